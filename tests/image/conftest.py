"""The built image, the stack it talks to, and a registry, each once for all workers.

If no container engine answers, these tests are skipped, and the last lines of the run say so
(tests/conftest.py). With ``CI`` set they fail. ``make test`` starts an engine if it may.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from pytest_docker.plugin import get_docker_services

from azure_emulator.client import Azure, Control
from builders.containers import Image
from builders.making import ROOT, build

ENGINE = ROOT / "image" / "engine.sh"
# Everything that `docker build` reads.
CONTEXT = (
    ".dockerignore",
    "LICENSE",
    "README.md",
    "entrypoint",
    "image",
    "pyproject.toml",
    "requirements.txt",
)


@pytest.fixture(scope="session")
def docker() -> str:
    """The client of an engine that answers."""
    done = subprocess.run([ENGINE, "check"], capture_output=True, text=True)
    if done.returncode:
        reason = os.environ.get("NO_ENGINE") or done.stderr.strip()
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return subprocess.run([ENGINE, "client"], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers see."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "image"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def context(shared: Path) -> Path:
    """The sources as they are now: a second build of them must see the same."""
    folder = shared / "context"
    with FileLock(shared / "context.lock"):
        if not folder.exists():
            draft = shared / "context.new"
            draft.mkdir()
            for name in CONTEXT:
                source = ROOT / name
                shutil.copytree(source, draft / name) if source.is_dir() else shutil.copy2(
                    source, draft / name
                )
            draft.rename(folder)
    return folder


@pytest.fixture(scope="session")
def built(docker: str, shared: Path, context: Path) -> dict[str, str]:
    """The image of these sources: what ``make build`` printed about it.

    TEST_IMAGE names an image that was built and pushed before, and BASE_IMAGE its base, so that a release
    tests the image that it signs.
    """
    if pushed := os.environ.get("TEST_IMAGE"):
        return {"image": pushed, "base": os.environ["BASE_IMAGE"]}
    state = shared / "built.json"
    with FileLock(shared / "built.lock"):
        if not state.exists():
            state.write_text(json.dumps(build(context, "aml-mirror:pytest")))
    found: dict[str, str] = json.loads(state.read_text())
    return found


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def docker_compose_command() -> str:
    """Compose as the client's plugin, or else as Debian's separate program."""
    if not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return "docker compose"
    if not shutil.which("docker-compose"):
        pytest.fail("Docker Compose is needed: on Debian, apt-get install docker-compose")
    return "docker-compose"


@pytest.fixture(scope="session")
def stack(built: dict[str, str], docker_compose_command: str, shared: Path) -> Iterator[dict[str, str]]:
    """The addresses of the emulated Azure and of the MLflow server of compose.yaml."""
    state, count = shared / "stack.json", shared / "stack.users"
    folder = shared / "stack"
    lock = FileLock(shared / "stack.lock")

    def compose(setup: list[str] | None, cleanup: list[str] | None) -> Any:
        return get_docker_services(
            docker_compose_command,
            str(Path(__file__).with_name("compose.yaml")),
            f"aml-mirror-{os.path.basename(shared.parent)}".lower(),
            setup,
            cleanup,
        )

    # The first worker that asks starts it, the last one to leave stops it.
    with lock:
        users = int(count.read_text()) if count.exists() else 0
        if users:
            found = json.loads(state.read_text())
            os.environ.update(found["variables"])
        else:
            for name in ("azure", "mlflow"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            variables = {
                "BASE_IMAGE": built["base"],
                "STATE": str(folder),
                "MLFLOW_PORT": str(free_port()),
                "USER_AND_GROUP": f"{os.getuid()}:{os.getgid()}",
            }
            os.environ.update(variables)
            with compose(["up --build --detach"], None) as services:
                services.wait_until_responsive(
                    timeout=600, pause=0.5, check=lambda: (folder / "azure" / "emulator.json").exists()
                )
                mlflow = f"http://127.0.0.1:{variables['MLFLOW_PORT']}"
                services.wait_until_responsive(timeout=600, pause=0.5, check=lambda: _answers(mlflow))
            azure = json.loads((folder / "azure" / "emulator.json").read_text())["url"]
            found = {"azure": azure, "mlflow": mlflow, "variables": variables}
            state.write_text(json.dumps(found))
        count.write_text(str(users + 1))
    yield found
    with lock:
        users = int(count.read_text()) - 1
        count.write_text(str(users))
        if not users:
            with compose(None, ["down --volumes --timeout 20"]):
                pass


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health", timeout=2)
    except OSError:
        return False
    return True


@pytest.fixture
def azure(stack: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Azure]:
    """A scope of the emulated Azure in its container."""
    scope = Control(stack["azure"]).new_scope()
    yield scope
    scope.call("DELETE")


@pytest.fixture
def image(docker: str, built: dict[str, str]) -> Iterator[Image]:
    """The image, and containers of it that do not outlive the test."""
    found = Image(docker, built["image"])
    yield found
    found.remove_all()


@pytest.fixture
def registry(docker: str, tmp_path: Path) -> Iterator[str]:
    """``127.0.0.1:PORT`` of a real registry: Debian's docker-registry."""
    if not (program := shutil.which("docker-registry")):
        pytest.fail("docker-registry is needed for the test of `make push`: apt-get install docker-registry")
    port = free_port()
    configuration = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "log": {"level": "warn"},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(configuration))
    with (tmp_path / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", tmp_path / "registry.yml"], stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=2)
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "registry.log").read_text()
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(600)
