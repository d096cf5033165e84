"""A study whose environment holds secrets wherever one may: none of them is written or said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.postgres.server import PASSWORD, Server
from tests.postgres.test_mlflow import tracking_server  # noqa: F401 (a fixture)
from tests.tracking.test_mlflow import everything

ROOT = Path(__file__).parents[2]
SECRETS = {name: f"Geheim-{name}-0815" for name in ("URI", "USER", "TOKEN")}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_no_secret_reaches_a_file_the_terminal_or_mlflow(
    postgres: Server,
    tracking_server: str,  # noqa: F811
    synthetic_dir: Path,
    tmp_path: Path,
) -> None:
    path, storage = tmp_path / "study.yaml", postgres.new_database()
    document = {
        "name": "discreet",
        "data": {"source": "synthetic", "window_bp": [200, 100], "max_protein": 50},
        "model": {"num_latents": 4, "queries_dim": 8},
        "search": {"latent_dim": {"kind": "pow2", "low": 8, "high": 16}},
        "training": {"epochs": 2, "batch_size": 16, "attention": "sdpa"},
        "budget": {"trials": 2, "minutes": 10},
        "baselines": ["ridge"],
        "tracking": {"storage": storage},
    }
    path.write_text(yaml.safe_dump(document))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MLFLOW_"))}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "RAYSTUDY_HOME": str(tmp_path / "studies"),
        "MLFLOW_TRACKING_URI": tracking_server.replace("//", f"//user:{SECRETS['URI']}@"),
        "MLFLOW_TRACKING_USERNAME": "user",
        "MLFLOW_TRACKING_PASSWORD": SECRETS["USER"],
        "RAY_AUTH_TOKEN": SECRETS["TOKEN"],
    }

    said = ""
    for command in (["plan"], ["tune", "--data", str(synthetic_dir), "--json"], ["status"], ["report", "--json"]):
        what = "discreet" if command[0] in ("status", "report") else str(path)
        call = [sys.executable, "-c", "from raystudy.cli import main; main()", command[0], what, *command[1:]]
        done = subprocess.run(call, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr

    runs = everything(tmp_path, "discreet", tracking_server)
    assert {"study", "t0000"} <= runs.keys()
    files = [file for file in (tmp_path / "studies").rglob("*") if file.is_file()]
    assert any(file.name == "report.html" for file in files)
    texts = {str(file): file.read_bytes().decode(errors="replace") for file in files}
    texts |= {"said": said, "MLflow": repr(runs)}
    for secret in [*SECRETS.values(), PASSWORD]:
        assert [where for where, text in texts.items() if secret in text] == []
