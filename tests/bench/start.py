"""Start: from ``docker run`` to the first request, and the cost of the program's own start."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import environments, runs
from bench.harness import (
    BenchError,
    Comparison,
    Goal,
    Result,
    Sample,
    Side,
    compare,
    times_faster,
)

TAG = "bench"
SLIM = "aml-mirror-bench-slim"
_SLIM_IMAGE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
    python3 python3-pip python3-venv
"""
# The container must use the same package index as the user's pip.
_PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "PIP_TRUSTED_HOST")
_SECONDS = 600


def results(rounds: int | None) -> Iterator[Result]:
    """See the module's first line."""
    if why := os.environ.get("NO_ENGINE"):
        raise BenchError(f"no container engine: {why}")
    docker = _run([str(environments.ROOT / "image" / "engine.sh"), "client"]).strip()
    _run([str(environments.ROOT / "image" / "engine.sh"), "check"])
    image, base = _images(docker)
    yield compare(first_request(docker, image, base), rounds)
    yield compare(version(docker, image), rounds)


def first_request(docker: str, image: str, base: str) -> Comparison:
    """Our image, and a workflow that pastes a script and installs what it needs."""
    run = runs.run("start", 100, 1, 1 << 20)
    mounts = ["-v", f"{run}:/run-7:ro", "-v", f"{environments.ROOT}:/source:ro"]
    arguments = ["--source", "/run-7", "--model-name", "bench", "--retry-for", "0s"]
    pip = (
        "python3 -m venv /tmp/v && /tmp/v/bin/pip install -q --no-deps --require-hashes"
        " -r /source/requirements.txt && PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/source/entrypoint"
        f" HTTPS_PROXY=$LATER exec /tmp/v/bin/python -m aml_mirror {' '.join(arguments)}"
    )
    given = [part for name in _PIP if name in os.environ for part in ("-e", f"{name}={os.environ[name]}")]

    def ours(proxy: str) -> list[str]:
        return ["-e", f"HTTPS_PROXY={proxy}", *mounts, image, *arguments]

    def installed(proxy: str) -> list[str]:
        return [*given, "-e", f"LATER={proxy}", *mounts, SLIM, "sh", "-c", pip]

    return Comparison(
        "start",
        "Start: from `docker run` to the first request on the wire",
        [
            Side(
                "the image",
                "as OSMO starts it, except that it is already pulled",
                _until_request(docker, ours),
            ),
            Side(
                "pip install",
                f"Python and pip on {base}, which install the same lock, then run the same program",
                _until_request(docker, installed),
                rounds=1,
            ),
        ],
        [Goal("the image ≥ 5 × as fast", 5, False, times_faster("the image", "pip install"))],
        "the image",
        note="The slim side stands for `python:slim`, on the base that the image is built on.",
    )


def version(docker: str, image: str) -> Comparison:
    """Only the start of the program."""

    def call(*arguments: str) -> Callable[[], Sample]:
        def run() -> Sample:
            started = time.perf_counter()
            _run([docker, "run", "--rm", *arguments])
            return Sample(time.perf_counter() - started, 0, {"container": 1})

        return run

    return Comparison(
        "start-version",
        "Start: `aml-mirror --version` in a container",
        [
            Side("--version", "the program's own start", call(image, "--version")),
            Side("true", "the container alone", call("--entrypoint", "true", image)),
        ],
        [
            Goal(
                "≤ 0.5 s more than `true`",
                0.5,
                True,
                lambda measured: measured["--version"].seconds - measured["true"].seconds,
                "s",
            )
        ],
        "--version",
    )


def _until_request(docker: str, arguments: Callable[[str], Sequence[str]]) -> Callable[[], Sample]:
    """Start a container that uses our proxy, and stop it at its first request."""
    # A workload identity, as a pod has it. The first request is the one for its token.
    token = environments.DATA / "token"

    def run() -> Sample:
        token.parent.mkdir(parents=True, exist_ok=True)
        token.write_text("x.y.z")
        name = f"bench-{uuid.uuid4().hex[:8]}"
        with _Listener() as listener:
            proxy = f"http://127.0.0.1:{listener.port}"
            command = [docker, "run", "--rm", "--name", name, "--network", "host"]
            command += [part for key, value in _pod().items() for part in ("-e", f"{key}={value}")]
            command += ["-v", f"{token}:/token:ro", *arguments(proxy)]
            started = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            arrived = listener.wait(process)
            subprocess.run([docker, "kill", name], capture_output=True)
            said, _ = process.communicate()
            if arrived is None:
                raise BenchError(f"{' '.join(command)[:400]}: no request\n{said[-2000:]}")
            return Sample(arrived - started, 0, {"first request": listener.line})

    return run


def _pod() -> dict[str, str]:
    return {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "AZURE_TENANT_ID": str(uuid.UUID(int=1)),
        "AZURE_CLIENT_ID": str(uuid.UUID(int=2)),
        "AZURE_FEDERATED_TOKEN_FILE": "/token",
        "AZURE_SUBSCRIPTION_ID": str(uuid.UUID(int=3)),
        "AZURE_RESOURCE_GROUP": "bench",
        "AZUREML_WORKSPACE_NAME": "bench",
    }


class _Listener:
    """A proxy that records the line and the time of the first request."""

    line = ""

    def __enter__(self) -> _Listener:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._arrived: float | None = None
        self._done = threading.Event()
        threading.Thread(target=self._take, daemon=True).start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._socket.close()

    def _take(self) -> None:
        try:
            connection, _ = self._socket.accept()
            with connection:
                data = connection.recv(4096)
                self._arrived = time.perf_counter()
                self.line = " ".join(data.decode("ascii", "replace").split("\r\n")[0].split()[:2])
        except OSError:
            return
        finally:
            self._done.set()

    def wait(self, process: subprocess.Popen[str]) -> float | None:
        """The time of the request. None if the container ended without one."""
        end = time.monotonic() + _SECONDS
        while not self._done.wait(0.05) and time.monotonic() < end:
            if process.poll() is not None:
                self._done.wait(0.5)
                break
        return self._arrived


def _images(docker: str) -> tuple[str, str]:
    """Build the image as `make build` does, and the slim one on the same base; returns image and base."""
    said = _run(["make", "-s", "-C", str(environments.ROOT), "build", f"TAG={TAG}"])
    facts = dict(line.split(None, 1) for line in said.splitlines() if len(line.split(None, 1)) == 2)
    base = facts["base"].strip()
    folder = environments.FOLDER / "slim"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Dockerfile").write_text(_SLIM_IMAGE)
    arguments = ["--network", "host", "--build-arg", f"BASE_IMAGE={base}", "--tag", SLIM, str(folder)]
    _run([docker, "build", "-q", *arguments])
    return facts["image"].strip(), base


def _run(command: Sequence[str | Path]) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
    )
    if done.returncode:
        raise BenchError(
            f"{' '.join(map(str, command))[:300]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout
