"""The files for Ray's own autoscaler, against its schema and its validator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
from ray.autoscaler._private.util import prepare_config, validate_config

SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
FILES = ("aws-a100.yaml", "local.yaml")
Load = Callable[[str], dict[str, Any]]


def check(config: dict[str, Any]) -> None:
    jsonschema.validate(config, SCHEMA)
    validate_config(prepare_config(config))


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str, load: Load) -> None:
    check(load(name))


@pytest.mark.parametrize("name", FILES)
def test_an_unknown_key_would_be_seen(name: str, load: Load) -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        check(load(name) | {"idle_timeout": 5})


@pytest.mark.parametrize("name", FILES)
def test_a_value_of_the_wrong_type_would_be_seen(name: str, load: Load) -> None:
    config = load(name)
    config["max_workers"] = "four"
    with pytest.raises(jsonschema.ValidationError, match="four"):
        check(config)


def test_a_missing_list_that_ends_the_autoscaler_would_be_seen(load: Load) -> None:
    config = load("local.yaml")
    del config["cluster_synced_files"]
    with pytest.raises(RuntimeError, match="cluster_synced_files"):
        check(config)


def test_more_machines_than_the_whole_cluster_may_have_would_be_seen(aws: dict[str, Any]) -> None:
    aws["available_node_types"]["a100"]["min_workers"] = aws["max_workers"] + 1
    with pytest.raises(ValueError, match="max_workers"):
        check(aws)


def test_the_head_on_aws_has_no_gpu_and_workers_are_spot_machines_that_go(aws: dict[str, Any]) -> None:
    types = aws["available_node_types"]
    assert "GPU" not in types[aws["head_node_type"]]["resources"]
    assert types["head"]["node_config"]["InstanceType"].startswith("m6i.")
    worker = types["a100"]
    assert (worker["min_workers"], worker["max_workers"]) == (0, aws["max_workers"])
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert worker["node_config"]["InstanceType"] == "p4d.24xlarge"
    assert 0 < aws["idle_timeout_minutes"] <= 10


def test_what_the_autoscaler_believes_of_a_node_is_what_the_node_is_started_with(aws: dict[str, Any]) -> None:
    flags = {"CPU": "--num-cpus", "GPU": "--num-gpus", "memory": "--memory"}
    for kind, commands in (("head", "head_start_ray_commands"), ("a100", "worker_start_ray_commands")):
        asked = aws["available_node_types"][kind]["resources"]
        start = aws[commands][-1].split()
        for resource, flag in flags.items():
            given = [word.partition("=")[2] for word in start if word.startswith(f"{flag}=")]
            assert given == ([str(asked[resource])] if resource in asked else []), (kind, resource)


def test_only_the_administrator_may_reach_ssh_and_nothing_else_is_open(aws: dict[str, Any]) -> None:
    (rule,) = aws["provider"]["security_group"]["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"]) == (22, 22)
    assert rule["IpRanges"] == [{"CidrIp": "YOUR_ADDRESS/32"}]


def test_the_pretended_nodes_are_told_where_the_head_of_local_sh_is(load: Load, texts: dict[str, str]) -> None:
    provider = load("local.yaml")["provider"]
    assert provider["gcs_address"].startswith("127.0.0.1:")
    assert load("local.yaml")["available_node_types"]["one_cpu"]["resources"]["CPU"] == 1
    script = texts["local.sh"]
    assert "gcs_address" in script  # both are read from the file, not written twice
    assert "head_node_id" in script
    assert provider["head_node_id"] not in script
