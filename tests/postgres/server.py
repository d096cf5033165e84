"""A real PostgreSQL server on the loopback interface, from the distribution's package."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

ROLE = "raystudy"
PASSWORD = "Zwiebel-4711/ä@:%"  # noqa: S105 (a test's)
_SETTINGS = (
    "unix_socket_directories=",
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=16MB",
    "max_connections=400",
)
"""A study lets go of its connections when it is collected, and a test may open a hundred studies."""


def find_binaries() -> Path | None:
    """The folder that has initdb; Debian keeps it off the PATH."""
    asked = shutil.which("pg_config")
    told = subprocess.run([asked, "--bindir"], capture_output=True, text=True).stdout.strip() if asked else ""
    known = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    on_path = [Path(found).parent] if (found := shutil.which("initdb")) else []
    return next((path for path in [*known[::-1], *on_path, Path(told)] if (path / "initdb").exists()), None)


class Server:
    """Made here, then started, stopped and started again; whoever connects gives a password (SCRAM)."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        """``folder`` is empty and, where this is root, reachable for the user ``postgres``: root may not serve."""
        self._binaries, self._data, self._log = binaries, folder / "data", folder / "server.log"
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None
        self._num_databases = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        options = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8"]
        subprocess.run(
            [binaries / "initdb", f"--pgdata={self._data}", *options, "--locale=C", "--no-sync"],
            **self._as, cwd=folder, capture_output=True, check=True,
        )  # fmt: skip

    def start(self) -> None:
        settings = [text for setting in _SETTINGS for text in ("-c", setting)]
        where = ["-D", self._data, "-h", "127.0.0.1", "-p", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", *where, *settings], **self._as, cwd=self._data, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self, crash: bool = False) -> None:
        """End it at once, every connection with it; ``crash`` leaves its data to be recovered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            self._process.wait(timeout=30)
            self._process = None

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """As the administrator; what it answers."""
        import psycopg

        asked = f"host=127.0.0.1 port={self.port} user=postgres dbname={database}"
        with psycopg.connect(asked, password=PASSWORD, autocommit=True) as connection:
            answer = connection.execute(statement)  # type: ignore[call-overload]
            return answer.fetchall() if answer.description else []

    def new_database(self, template: str = "template1") -> str:
        """The URL, without a password, of a new database that belongs to `ROLE`."""
        self._num_databases += 1
        name = f"test{self._num_databases}"
        self.execute(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE {template}")
        return f"postgresql+psycopg://{ROLE}@127.0.0.1:{self.port}/{name}"

    def _answers(self) -> bool:
        import psycopg

        try:
            return self.execute("SELECT 1") == [(1,)]
        except psycopg.OperationalError:
            return False
