"""Fixtures: the program in the way that a person starts it, and real MLflow servers."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

# Otherwise a thread of MLflow changes os.environ while other threads of a test read it (KeyError).
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from mlflow import MlflowClient

from aml_mirror.support import redaction
from builders import forks as fork_servers
from builders import matrix, mlflow_servers, ordering, postgres
from builders.forks import MLFLOW, Forked, forks
from builders.program import PROGRAM, Call, Done, clean_environment

# The speed of this machine says nothing about the code: a slow example is not a failure.
settings.register_profile("no-clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no-clock")


@pytest.fixture(autouse=True)
def forgotten_secrets() -> Iterator[None]:
    """Forget the secrets that the program learned in this process, which it would mask in later tests."""
    before = set(redaction._known)
    yield
    redaction._known.clear()
    redaction._known.update(before)


@pytest.fixture
def aml_mirror(tmp_path: Path) -> Call:
    """Run the program in a separate process, in an empty folder, and return the result.

    The process is a fork of one that has MLflow loaded. With ``fork=False`` it is started like a person does.
    """

    def call(
        *arguments: str | Path,
        cwd: Path | None = None,
        code: int | None = 0,
        fork: bool = True,
        **environment: str,
    ) -> Done:
        given, folder, variables = [*map(str, arguments)], cwd or tmp_path, clean_environment(**environment)
        process: Forked | subprocess.Popen[str]
        if fork:
            process = forks(MLFLOW, clean_environment).start(given, folder, variables)
        else:
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                [PROGRAM, *given], cwd=folder, env=variables, stdout=pipe, stderr=pipe, text=True
            )
        out, err = process.communicate(timeout=600)
        assert process.returncode is not None
        result = Done(process.returncode, out, err)
        assert code is None or result.code == code, f"exit {result.code}\n{result.out}\n{result.err}"
        return result

    return call


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """A real MLflow server with a database and proxied artifacts, shared by the whole session."""
    with _session_server(_shared(tmp_path_factory, worker_id), "newest") as url:
        yield url


@pytest.fixture(scope="session")
def mlflow2_url(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """The same with the last MLflow 2."""
    with _session_server(_shared(tmp_path_factory, worker_id), "mlflow2") as url:
        yield url


@pytest.fixture(scope="session")
def mlflow_postgres_url(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """The same with the newest MLflow, and its runs and models in PostgreSQL."""
    with _session_server(_shared(tmp_path_factory, worker_id), "postgres") as url:
        yield url


@contextmanager
def _session_server(shared: Path, kind: str) -> Iterator[str]:
    # With xdist, each worker asks for it. The first one starts the server, the last one to leave stops it.
    name = f"mlflow-server-{kind}"
    state, lock = shared / f"{name}.json", FileLock(shared / f"{name}.lock")
    with lock:
        found = json.loads(state.read_text()) if state.exists() else _start_server(shared, kind)
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
            if found["database"]:
                postgres.Postgres(*found["database"]).stop()


def _shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of a session share."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


def _start_server(folder: Path, kind: str) -> dict[str, Any]:
    program = mlflow_servers.MLFLOW2 if kind == "mlflow2" else mlflow_servers.NEWEST
    database = postgres.start() if kind == "postgres" else None
    options = ("--backend-store-uri", database.uri) if database else ()
    server = mlflow_servers.start(folder / f"mlflow-{uuid.uuid4().hex[:6]}", *options, program=program)
    kept = [database.uri, database.pid, database.folder] if database else []
    return {"url": server.url, "pid": server.pid, "users": 0, "database": kept}


@pytest.fixture
def model_name() -> str:
    """The name of a model that no other test uses."""
    return f"model-{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A database with MLflow's tables, which take MLflow some forty migrations to create."""
    shared = _shared(tmp_path_factory, worker_id)
    made = shared / "empty" / "mlflow.db"
    with FileLock(shared / "empty.lock"):
        if not made.exists():
            made.parent.mkdir(exist_ok=True)
            making = made.with_suffix(".making")
            upgrade = [str(Path(sys.executable).with_name("mlflow")), "db", "upgrade", f"sqlite:///{making}"]
            subprocess.run(upgrade, env=clean_environment(), check=True, capture_output=True)
            making.rename(made)
    return made


@pytest.fixture
def database(tmp_path: Path, empty_database: Path) -> str:
    """The tracking URI of a separate local database."""
    (tmp_path / "db").mkdir()
    shutil.copy(empty_database, tmp_path / "db" / "mlflow.db")
    return f"sqlite:///{tmp_path}/db/mlflow.db"


@pytest.fixture
def client(mlflow_url: str) -> MlflowClient:
    """MLflow's own client of the server."""
    return MlflowClient(mlflow_url, mlflow_url)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Print the tables of the kill and fault matrices, and finally the tests that were left out."""
    matrix.summary(terminalreporter)
    yield
    left_out = [
        report
        for report in terminalreporter.stats.get("skipped", [])
        if report.nodeid.startswith("tests/image/")
    ]
    if left_out:
        # (file, line, reason); all have the same reason
        reason = str(left_out[0].longrepr[2]).removeprefix("Skipped: ")
        terminalreporter.write_line(
            f"LEFT OUT: {len(left_out)} tests of the image in containers: {reason}", red=True
        )


def pytest_configure(config: pytest.Config) -> None:
    """Before the first worker starts."""
    if not hasattr(config, "workerinput"):
        fork_servers.share()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Let one worker collect before the others. It writes the byte code of the tests, which the others read.

    In a fresh clone, each worker would compile all of it, which takes longer than the rest of its start.
    """
    is_worker = hasattr(session.config, "workerinput")
    done = fork_servers.shared() / "collected"
    with ExitStack() as turn:
        if is_worker and not done.exists():
            turn.enter_context(FileLock(done.with_suffix(".lock")))
            if done.exists():
                turn.close()
        # Loaded and collected objects stay to the end, so the garbage collector need not examine them.
        gc.disable()
        result = yield
        gc.freeze()
        gc.enable()
        if is_worker:
            done.touch()
        return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests, so that no core waits for them at the end; or shuffle them.

    ``TEST_SHARE`` selects a part of them, for example 1/3, for a matrix that takes long.
    """
    if part := os.environ.get("TEST_SHARE"):
        items[:] = ordering.share(items, part)
    if any(os.environ.get(name) == "all" for name in ("KILL", "STOPS", "FAULTS", "TRUTH")):
        # A test that covers all cells of a matrix may take any time.
        for item in items:
            item.add_marker(pytest.mark.timeout(6 * 3600))
    if seed := os.environ.get("TEST_SEED"):
        items[:] = ordering.shuffled(items, seed)
    else:
        items[:] = ordering.dealt(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
