"""``python -m azure_emulator up|down|env``: the emulated Azure by hand.

``up`` starts it in the background, waits until it is ready, and prints the environment to export. ``env``
prints it again, ``down`` stops everything that was started, ``run`` is the server itself in the foreground.
Everything is stored below one folder (``--state``, by default ``.state`` beside this package), which ``up``
empties first.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

from . import processes
from .blobs import KEEP_ALIVE, Blobs
from .certificates import write_certificates
from .client import Control
from .server import Emulator, listen

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="azure_emulator", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "env", "run"))
    parser.add_argument("--state", type=Path, default=HERE.parent / ".state", help="folder for its state")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    parser.add_argument("--owner", type=int, help="stop when this process has ended, for any reason")
    parser.add_argument("--in-memory", action="store_true", help="store blobs in memory, not in files")
    parser.add_argument("--scope", default="main", help="whose environment to print")
    options = parser.parse_args()
    folder: Path = options.state.resolve()
    match options.command:
        case "up":
            up(folder, options.port, options.owner, options.in_memory)
            print_environment(folder, options.scope)
        case "env":
            print_environment(folder, options.scope)
        case "down":
            down(folder)
        case "run":
            asyncio.run(run(folder, options.port, options.owner, options.in_memory))


def up(folder: Path, port: int = 0, owner: int | None = None, in_memory: bool = False) -> dict[str, Any]:
    """Start it in the background and return its state once it is ready.

    Args:
        folder: the folder for its state.
        port: the port to listen on; 0: a free one.
        owner: a process; when it has ended, for any reason, the emulator ends too.
        in_memory: store blobs in memory.
    """
    down(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "azure_emulator", "run", "--state", str(folder), "--port", str(port)]
    if in_memory:
        command.append("--in-memory")
    with (folder / "emulator.log").open("wb") as log:
        process = subprocess.Popen(
            command if owner is None else [*command, "--owner", str(owner)],
            env={**processes.plain_environment(), "PYTHONPATH": str(HERE.parent)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    end = time.monotonic() + 600
    while not (folder / "emulator.json").exists():
        if process.poll() is not None or time.monotonic() > end:
            processes.stop(process)
            raise SystemExit((folder / "emulator.log").read_text())
        time.sleep(0.1)
    return state(folder)


def state(folder: Path) -> dict[str, Any]:
    """Return what the running emulator wrote about itself."""
    found = json.loads((folder / "emulator.json").read_text())
    assert isinstance(found, dict)
    return found


def print_environment(folder: Path, scope: str) -> None:
    if not (folder / "emulator.json").exists():
        raise SystemExit("the emulator is not running")
    for name, value in Control(state(folder)["url"]).scope(scope).env().items():
        print(f"export {name}={shlex.quote(value)}")


def down(folder: Path) -> None:
    """Stop what ``up`` started, including the servers behind it if the emulator has crashed."""
    for name in ("emulator.json", "backends.json"):
        with contextlib.suppress(FileNotFoundError):
            for group in json.loads((folder / name).read_text())["groups"]:
                processes.stop_group(group, 20)
            (folder / name).unlink()


async def run(folder: Path, port: int, owner: int | None = None, in_memory: bool = False) -> None:
    """Start the servers behind it, then serve until SIGTERM or SIGINT, or the end of the owner."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    write_certificates(folder)
    pool = processes.account_pool()
    azurite, azurite_url = processes.start_azurite(folder, pool, in_memory)
    mlflow, mlflow_url = processes.start_mlflow(folder)
    _write(folder / "backends.json", {"groups": [azurite.pid, mlflow.pid]})
    try:
        await asyncio.gather(
            asyncio.to_thread(processes.wait_until_ready, azurite, azurite_url, folder, "azurite.log"),
            asyncio.to_thread(
                processes.wait_until_ready, mlflow, f"{mlflow_url}/health", folder, "mlflow.log"
            ),
        )
        emulator = Emulator(folder, Blobs(azurite_url, str(folder / "ca.pem"), pool), mlflow_url)
        await emulator.blobs.open()
        emulator.mlflow = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(keepalive_timeout=KEEP_ALIVE),
            timeout=aiohttp.ClientTimeout(total=300),
        )
        server = await listen(emulator, port)
        emulator.port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{emulator.port}"
        main = await asyncio.to_thread(Control(url).new_scope, "main")
        # The SDK's own test waits this long before it lists what it created.
        await asyncio.to_thread(main.set_workspace, list_lag=30)
        _write(folder / "emulator.json", {"url": url, "groups": [os.getpgrp()]})
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        while not stop.is_set() and _is_there(owner):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1)
        server.close()
        await emulator.blobs.close()
        await emulator.mlflow.close()
    finally:
        for process in (mlflow, azurite):
            processes.stop(process)
        (folder / "backends.json").unlink(missing_ok=True)


def _is_there(process: int | None) -> bool:
    if process is None:
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _write(path: Path, value: object) -> None:
    # Readers of the file must find it complete.
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(value))
    draft.rename(path)


if __name__ == "__main__":
    main()
