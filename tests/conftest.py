"""Fixtures: the program as a person starts it, and a real MLflow server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from mlflow import MlflowClient

from support.program import PROGRAM, Call, Done, clean_environment


@pytest.fixture
def aml_mirror(tmp_path: Path) -> Call:
    """Run the program in a process of its own, in an empty folder, and return what came of it."""

    def call(
        *arguments: str | Path, cwd: Path | None = None, code: int | None = 0, **environment: str
    ) -> Done:
        folder = cwd or tmp_path
        done = subprocess.run(
            [PROGRAM, *map(str, arguments)],
            cwd=folder,
            env=clean_environment(**environment),
            capture_output=True,
            text=True,
            timeout=300,
        )
        result = Done(done.returncode, done.stdout, done.stderr)
        assert code is None or result.code == code, f"exit {result.code}\n{result.out}\n{result.err}"
        return result

    return call


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """A real MLflow server with a database and proxied artifacts, one for the whole session."""
    shared = (
        tmp_path_factory.getbasetemp().parent if worker_id != "master" else tmp_path_factory.getbasetemp()
    )
    # With xdist each worker asks; the first one starts the server, the last one to leave stops it.
    state, lock = shared / "mlflow-server.json", FileLock(shared / "mlflow-server.lock")
    with lock:
        found = json.loads(state.read_text()) if state.exists() else _start_server(shared)
        found["users"] += 1
        state.write_text(json.dumps(found))
    yield found["url"]
    with lock:
        found = json.loads(state.read_text())
        found["users"] -= 1
        state.write_text(json.dumps(found))
        if not found["users"]:
            state.unlink()
            os.killpg(found["pid"], signal.SIGTERM)


def _start_server(folder: Path) -> dict[str, Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / f"mlflow-{uuid.uuid4().hex[:6]}"
    data.mkdir()
    log = (data / "server.log").open("w")
    process = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("mlflow")),
            *("server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"),
            *(
                "--backend-store-uri",
                f"sqlite:///{data}/mlflow.db",
                "--artifacts-destination",
                str(data / "artifacts"),
            ),
        ],
        env=clean_environment(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true"),
        cwd=data,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/health", timeout=2)
        except OSError:
            assert process.poll() is None, (data / "server.log").read_text()
            time.sleep(0.2)
        else:
            return {"url": url, "pid": process.pid, "users": 0}
    raise AssertionError((data / "server.log").read_text())


@pytest.fixture
def model_name() -> str:
    """A model that no other test uses."""
    return f"model-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def database(tmp_path: Path) -> str:
    """A tracking URI for a local database of its own."""
    (tmp_path / "db").mkdir()
    return f"sqlite:///{tmp_path}/db/mlflow.db"


@pytest.fixture
def client(mlflow_url: str) -> MlflowClient:
    """MLflow's own client of the server."""
    return MlflowClient(mlflow_url, mlflow_url)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest, so that no core waits for them at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/test_kill.py"))
