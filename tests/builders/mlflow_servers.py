"""Real MLflow servers, of the newest release and of the last 2.x, each with its own database."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from builders.program import clean_environment

ROOT = Path(__file__).parent.parent.parent
NEWEST = Path(sys.executable).with_name("mlflow")
MLFLOW2 = ROOT / ".venv-mlflow2" / "bin" / "mlflow"
# Its job runner would be seven more processes, none of which a tracking server needs.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


@dataclass(frozen=True)
class Server:
    """A running server: its address, its process group, the folder with its database and artifacts."""

    url: str
    pid: int
    folder: Path

    def stop(self) -> None:
        """End it."""
        os.killpg(self.pid, signal.SIGTERM)


def free_port() -> int:
    """Return a TCP port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(
    folder: Path, *options: str, program: Path = NEWEST, environment: Mapping[str, str] | None = None
) -> Server:
    """Start a server and wait until it answers.

    Args:
        folder: created for its database, its artifacts and its log.
        options: of ``mlflow server``; without any about artifacts, the server stores them in ``folder``.
        program: the ``mlflow`` to start.
        environment: more variables.
    """
    if not program.exists():
        pytest.fail(f"{program} is not there: run 'make mlflow2'", pytrace=False)
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    store = () if any("artifact" in option for option in options) else (
        "--artifacts-destination", str(folder / "artifacts"),
    )  # fmt: skip
    backend = () if "--backend-store-uri" in options else (
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
    )  # fmt: skip
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [str(program), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
             *backend, *store, *options],
            # MLflow 2 looks up gunicorn on the PATH
            env={
                **clean_environment(**_QUIET, **(environment or {})),
                "PATH": f"{program.parent}:{os.environ['PATH']}",
            },
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    # Ten minutes: a busy machine says nothing about the server.
    for _ in range(3000):
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2):
            return Server(url, process.pid, folder)
        assert process.poll() is None, (folder / "server.log").read_text()
        time.sleep(0.2)
    raise AssertionError((folder / "server.log").read_text())


@contextmanager
def server(folder: Path, *options: str, **more: object) -> Iterator[Server]:
    """Start a server with :func:`start`, and stop it at the end."""
    running = start(folder, *options, **more)  # type: ignore[arg-type]
    try:
        yield running
    finally:
        running.stop()
