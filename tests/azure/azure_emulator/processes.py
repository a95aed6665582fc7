"""The real servers behind the emulator: MLflow (with sqlite) and Azurite, each in its own process group.

MLflow is started with workspaces enabled, so scopes do not see each other's experiments and models. Azurite
uses TLS, which ``--oauth`` requires. It has a fixed pool of accounts, which it reads from its environment at
its start.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

POOL = 1500
NODE_MODULES = Path(__file__).parent.parent / "node_modules"


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def account_pool() -> dict[str, str]:
    """Return account names, and keys that are short enough for a pool in one environment variable."""
    return {
        f"azureml{number:04d}": base64.b64encode(secrets.token_bytes(18)).decode() for number in range(POOL)
    }


def plain_environment() -> dict[str, str]:
    """Return the environment without variables that would change these servers."""
    foreign = ("AZURE", "AZURITE", "MLFLOW", "ARM_", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return {**kept, "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}


def start_azurite(
    folder: Path, pool: dict[str, str], in_memory: bool = False
) -> tuple[subprocess.Popen[bytes], str]:
    """Start Azurite's blob service and return it with its address.

    Args:
        folder: for its files and its log.
        pool: its accounts and their keys.
        in_memory: store no files. Otherwise it writes a list of all blobs every five seconds, which takes
            longer after each test.
    """
    program = NODE_MODULES.parent / "azurite.js"
    if not (NODE_MODULES / "azurite").exists():
        raise SystemExit(f"Azurite is not installed: npm ci --prefix {NODE_MODULES.parent}")
    port = free_port()
    command = [
        *("node", str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
        *(("--inMemoryPersistence",) if in_memory else ("--location", str(folder / "azurite"))),
        *("--silent", "--disableTelemetry"),
        *("--oauth", "basic", "--cert", str(folder / "server.pem"), "--key", str(folder / "server-key.pem")),
    ]
    environment = {
        **plain_environment(),
        "AZURITE_ACCOUNTS": ";".join(f"{name}:{key}" for name, key in pool.items()),
        # It accesses the source of a copy between accounts through its own address.
        "NODE_EXTRA_CA_CERTS": str(folder / "ca.pem"),
    }
    return _start(command, folder, "azurite.log", environment), f"https://127.0.0.1:{port}"


def start_mlflow(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start MLflow's server and return it with its address."""
    port = free_port()
    data = folder / "mlflow"
    data.mkdir(exist_ok=True)
    command = [
        str(Path(sys.executable).with_name("mlflow")),
        *("server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--enable-workspaces"),
        *("--backend-store-uri", f"sqlite:///{data}/mlflow.db"),
        *("--artifacts-destination", str(data / "artifacts")),
    ]
    # Its background jobs would be eight more processes, which are not needed here.
    environment = {**plain_environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return _start(command, folder, "mlflow.log", environment), f"http://127.0.0.1:{port}"


def _start(
    command: list[str], folder: Path, log: str, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    with (folder / log).open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def wait_until_ready(
    process: subprocess.Popen[bytes], url: str, folder: Path, log: str, seconds: float = 600
) -> None:
    """Wait until the server gives any answer. If it ends before, raise with its log."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    end = time.monotonic() + seconds
    while True:
        try:
            opener.open(url, timeout=5)
        except urllib.error.HTTPError:
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{url} does not answer:\n{(folder / log).read_text()}") from None
            time.sleep(0.1)
        else:
            return


def stop(process: subprocess.Popen[bytes], seconds: float = 10) -> None:
    """End the whole group that the process leads, including children that outlive it."""
    stop_group(process.pid, seconds)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def stop_group(group: int, seconds: float = 10) -> None:
    """Send SIGTERM to a process group, and later SIGKILL to what is left of it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # If it is a child of this process, only this process can wait for it.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(group, os.WNOHANG)
            if not _runs(group):
                return
            time.sleep(0.05)


def _runs(group: int) -> bool:
    """Tell whether any process of a group is running. Zombies do not count."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # The process may end meanwhile.
        with contextlib.suppress(OSError):
            # The name, in brackets, may contain anything. After it come the state, the parent and the group.
            state, _, number = stat.read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state not in "ZX":
                return True
    return False
