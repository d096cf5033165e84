"""The MLflow server's systemd unit."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def unit(cluster: Path) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(cluster / "mlflow.service")
    return parsed


def test_the_server_asks_for_a_password_and_listens_on_loopback(unit: configparser.ConfigParser) -> None:
    words = unit["Service"]["ExecStart"].replace("\\\n", " ").split()
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options["--app-name"] == "basic-auth"
    assert options["--host"] == "127.0.0.1"
    assert unit["Service"]["Environment"] == "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false"


def test_passwords_come_from_a_file_and_not_from_the_command_line(
    unit: configparser.ConfigParser, cluster: Path
) -> None:
    assert "--backend-store-uri" not in unit["Service"]["ExecStart"]
    assert unit["Service"]["EnvironmentFile"] == "/etc/raystudy/mlflow.env"
    example = (cluster / "mlflow.env.example").read_text()
    settings = dict(line.split("=", 1) for line in example.splitlines() if line and not line.startswith("#"))
    assert set(settings) == {
        "MLFLOW_BACKEND_STORE_URI",
        "MLFLOW_AUTH_ADMIN_PASSWORD",
        "MLFLOW_FLASK_SERVER_SECRET_KEY",
    }
    assert all("YOUR_" in value for value in settings.values())
    assert "-m 600" in (cluster / "README.md").read_text()


def test_the_server_may_do_little(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    assert service["User"] != "root"
    for option in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictSUIDSGID"):
        assert service[option] == "true", option
    assert service["ProtectSystem"] == "strict"


def _verify(text: str, folder: Path) -> str:
    path = folder / "mlflow.service"
    path.write_text(text)
    found = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    return found.stderr if found.returncode or "mlflow.service" in found.stderr else ""


def test_systemd_accepts_the_unit_and_would_see_a_mistake(cluster: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (cluster / "mlflow.service").read_text().replace("/opt/raystudy/.venv/bin/mlflow", "/bin/true")
    assert _verify(text, tmp_path) == ""
    assert "NoNewPrivilege" in _verify(text.replace("NoNewPrivileges=true", "NoNewPrivilege=true"), tmp_path)
