"""The manifests for Kubernetes, against KubeRay's schema and Ray's own reading of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.kuberay import autoscaling_config

CRD = Path(__file__).parents[2].parent / "shared" / "schemas" / "kuberay_rayjobs_crd.yaml"
Spoil = Callable[[dict[str, Any]], None]


@cache
def schema() -> dict[str, Any]:
    """The RayJob's schema with unknown keys refused wherever keys are named, as the API server's strict mode does."""
    if not CRD.exists():
        pytest.skip(f"KubeRay's schema is not at {CRD}")
    document = yaml.load(CRD.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    found = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    _close(found)
    found["properties"]["metadata"] = {"type": "object"}
    return found


def _close(part: Any) -> None:
    if isinstance(part, dict):
        if "properties" in part and not part.get("x-kubernetes-preserve-unknown-fields"):
            part.setdefault("additionalProperties", False)
        if part.pop("x-kubernetes-int-or-string", False):
            part.pop("type", None)
        for value in part.values():
            _close(value)
    elif isinstance(part, list):
        for value in part:
            _close(value)


def check(job: dict[str, Any]) -> None:
    jsonschema.Draft7Validator(schema()).validate(job)


def test_kuberay_knows_every_key_of_the_job(rayjob: dict[str, Any]) -> None:
    check(rayjob)


def test_the_lasting_cluster_is_the_cluster_of_the_job(rayjob: dict[str, Any], raycluster: dict[str, Any]) -> None:
    assert raycluster["kind"] == "RayCluster"
    assert raycluster["spec"] == rayjob["spec"]["rayClusterSpec"]


def _unknown(job: dict[str, Any]) -> None:
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["replicas"] = 1


def _deep(job: dict[str, Any]) -> None:
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    head["securityContext"]["runAsNonRot"] = True


def _number(job: dict[str, Any]) -> None:
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 1


def _mode(job: dict[str, Any]) -> None:
    job["spec"]["rayClusterSpec"]["authOptions"]["mode"] = "password"


def _missing(job: dict[str, Any]) -> None:
    del job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"]


@pytest.mark.parametrize("spoil", [_unknown, _deep, _number, _mode, _missing], ids=lambda spoil: spoil.__name__[1:])
def test_a_mistake_in_the_manifest_would_be_seen(spoil: Spoil, rayjob: dict[str, Any]) -> None:
    wrong = copy.deepcopy(rayjob)
    spoil(wrong)
    with pytest.raises(jsonschema.ValidationError):
        check(wrong)


def test_ray_plans_with_the_same_nodes_as_on_aws(raycluster: dict[str, Any], aws: dict[str, Any]) -> None:
    """Ray's autoscaler reads a manifest for the nodes that do not exist yet; so also: it knows that they are A100s."""
    raycluster["metadata"]["namespace"] = "any"
    derived = autoscaling_config._derive_autoscaling_config_from_ray_cr(raycluster)
    for here, there in (("headgroup", "head"), ("a100", "a100")):
        pods, machines = derived["available_node_types"][here], aws["available_node_types"][there]
        for key in ("resources", "min_workers", "max_workers"):
            assert pods[key] == machines[key], (here, key)
    assert derived["idle_timeout_minutes"] == aws["idle_timeout_minutes"]
    assert derived["max_workers"] == aws["max_workers"]


def test_the_head_pod_has_no_gpu_and_gpu_pods_come_and_go(raycluster: dict[str, Any]) -> None:
    spec = raycluster["spec"]
    (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
    assert not [name for kind in head["resources"].values() for name in kind if "gpu" in name]
    assert spec["enableInTreeAutoscaling"] is True
    (group,) = spec["workerGroupSpecs"]
    assert (group["minReplicas"], group["replicas"]) == (0, 0)
    assert "accelerator_type:A100" in group["rayStartParams"]["resources"]


def test_the_job_takes_its_cluster_down_and_cannot_run_for_ever(rayjob: dict[str, Any]) -> None:
    spec = rayjob["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] <= 3600
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["submissionMode"] == "K8sJobMode"


def test_no_container_runs_as_root_or_may_become_root(rayjob: dict[str, Any]) -> None:
    cluster = rayjob["spec"]["rayClusterSpec"]
    groups = (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    pods = [rayjob["spec"]["submitterPodTemplate"]["spec"], *(group["template"]["spec"] for group in groups)]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_every_pod_writes_to_the_claim_that_many_pods_may_write_to(raycluster: dict[str, Any], cluster: Path) -> None:
    claim, policy = yaml.safe_load_all((cluster / "kuberay-shared.yaml").read_text())
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    groups = (raycluster["spec"]["headGroupSpec"], *raycluster["spec"]["workerGroupSpecs"])
    for group in groups:
        pod = group["template"]["spec"]
        claimed = {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod["volumes"]}
        (home,) = [one["value"] for one in pod["containers"][0]["env"] if one["name"] == "RAYSTUDY_HOME"]
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert claimed["studies"] == {"claimName": claim["metadata"]["name"]}
        assert home.startswith(mounts["studies"] + "/")
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= group["template"]["metadata"]["labels"].items()
