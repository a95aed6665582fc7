"""Runs the program without its start: a process has the clients loaded, and forks for each call.

Loading the clients of Azure and MLflow takes three seconds of CPU time. A test of what the program *does*
need not pay that each time. It still gets a separate process, with its own environment, folder, pipes,
threads and connections, and signals work as usual.

The server (``python -m builders.forks SOCKET ENTRY MODULE…``, where a call is ENTRY's ``main``) has one
thread and opens no connection, so a fork of it is as good as new. All workers of a session share it. Each
connects to its socket and sends calls: the arguments, the environment and the folder as JSON, with the pipes,
and a socket on which the server reports the child's number and later its exit code. The processes of a worker
end with its connection, and the server ends with the last one.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from filelock import FileLock

HERE = Path(__file__).parent.parent
# What a mirror into MLflow or Azure ML loads, including all modules of the program.
MLFLOW = (
    "aml_mirror.registries.mlflow.tracking_server",
    # What a call would load later, for its requests, a signature and a local database.
    *("mlflow.tracking.request_header.registry", "azureml.mlflow._internal.service_context_loader"),
    *("securesystemslib.signer", "azureml.mlflow._tracking.request_header.azureml_request_header_provider"),
    *("mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store"),
)
# Only the clients of Azure ML.
CLIENTS = ("azure.ai.ml", "azure.ai.ml.entities", "azureml.mlflow", "azureml.mlflow._store.tracking.store")
AZURE = (*MLFLOW, *CLIENTS)
PACKAGE = "aml_mirror"
_MOST = 1 << 20  # the most bytes of one call
_SHARED = "PYTEST_FORKS"  # names the folder that all processes of a session share


class Forked:
    """One call, with the interface of :class:`subprocess.Popen`."""

    def __init__(self, pid: int, told: socket.socket, out: TextIO, err: TextIO) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout, self.stderr = out, err
        self._told = told

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code; negative if a signal ended it."""
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                said = self._told.recv(64)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("aml-mirror", timeout or 0) from None
            assert said, "the fork server is gone"
            self.returncode = int(said)
            self._told.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end and return the output."""
        read: dict[str, str] = {}
        streams = {"out": self.stdout, "err": self.stderr}
        threads = [
            threading.Thread(target=lambda name=name: read.update({name: streams[name].read()}))
            for name in streams
        ]
        for thread in threads:
            thread.start()
        self.wait(timeout)
        for thread in threads:
            thread.join()
        for stream in streams.values():
            stream.close()
        return read["out"], read["err"]

    def send_signal(self, number: int) -> None:
        """Send a signal, if it is still running."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Forks:
    """A connection to a running server, which other test processes may share.

    Args:
        place: where the server listens.

    Raises:
        OSError: there is no server.
    """

    def __init__(self, place: Path) -> None:
        self._calls = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._calls.connect(str(place))
            if self._calls.recv(16) != b"ready":
                raise ConnectionError(f"{place}: the server ends")
        except OSError:
            self._calls.close()
            raise

    def start(self, arguments: list[str], folder: Path, environment: dict[str, str]) -> Forked:
        """Start the program in a fork without waiting for it."""
        call = json.dumps({"arguments": arguments, "folder": str(folder), "environment": environment})
        out, their_out = os.pipe()
        err, their_err = os.pipe()
        told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(self._calls, [call.encode()], [their_out, their_err, theirs.fileno()])
        os.close(their_out)
        os.close(their_err)
        theirs.close()
        pid = int(told.recv(64))
        return Forked(pid, told, os.fdopen(out, encoding="utf-8"), os.fdopen(err, encoding="utf-8"))

    def close(self) -> None:
        """End everything that it started and that is still running."""
        self._calls.close()


_connections: dict[tuple[str, ...], Forks] = {}


def share() -> None:
    """Let the test processes that this one starts share its servers."""
    folder = tempfile.TemporaryDirectory(prefix="forks-")
    atexit.register(folder.cleanup)
    os.environ[_SHARED] = folder.name


def shared() -> Path:
    """A folder that all processes of a session share."""
    return Path(os.environ[_SHARED])


def forks(
    modules: tuple[str, ...], environment: Callable[[], dict[str, str]], entry: str = "aml_mirror.cli.main"
) -> Forks:
    """Return the server with these modules, started at the first call, in an environment for loading them.

    Args:
        modules: what it loads. They distinguish the servers of a session.
        environment: returns the variables for loading them.
        entry: the module whose ``main`` is called.
    """
    if modules not in _connections:
        place = shared() / f"{zlib.crc32(' '.join(modules).encode()):x}"
        with FileLock(place.with_suffix(".lock")):
            try:
                found = Forks(place)
            except OSError:  # there is none yet, or the last one had no clients left
                _start(place, entry, modules, environment())
                found = Forks(place)
        _connections[modules] = found
        atexit.register(found.close)
    return _connections[modules]


def _start(place: Path, entry: str, modules: tuple[str, ...], environment: dict[str, str]) -> None:
    place.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "builders.forks", str(place), entry, *modules],
        cwd=HERE,
        env={**environment, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n", "the fork server did not start"


def serve(place: str, entry: str, modules: list[str]) -> int:
    """Load the modules, and fork for each call. Returns in each child, with its exit code."""
    for module in (entry, *modules):
        importlib.import_module(module)
    # All of the program, because otherwise each call would load what its command needs.
    for one in pkgutil.walk_packages(sys.modules[PACKAGE].__path__, f"{PACKAGE}."):
        if not one.name.endswith(".__main__"):
            importlib.import_module(one.name)
    if plugins := sys.modules.get(f"{PACKAGE}.support.plugins"):  # an earlier release does not have it
        plugins.entry_points(plugins.LAYOUTS)
    assert threading.active_count() == 1, threading.enumerate()
    gc.freeze()  # loaded objects stay, so no child examines them again
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(place)
    listening.listen(64)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    woken, wake = os.pipe()
    for number in (woken, wake):
        os.set_blocking(number, False)
    selector.register(woken, selectors.EVENT_READ)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    print("ready", flush=True)
    callers: set[socket.socket] = set()
    children: dict[int, _Child] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj == woken:
                os.read(woken, 4096)
                _reap(children)
                continue
            if key.fileobj is listening:
                caller, _ = listening.accept()
                caller.send(b"ready")
                callers.add(caller)
                selector.register(caller, selectors.EVENT_READ)
                continue
            caller = cast(socket.socket, key.fileobj)
            message, numbers, _, _ = socket.recv_fds(caller, _MOST, 3)
            if not message:
                for pid, child in children.items():
                    if child.caller is caller:
                        os.kill(pid, signal.SIGKILL)
                selector.unregister(caller)
                callers.remove(caller)
                caller.close()
                if not callers:
                    return 0
                continue
            out, err, told = numbers
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                selector.close()
                for one in (listening, *callers, *(child.told for child in children.values())):
                    one.close()
                for number in (woken, wake, told):
                    os.close(number)
                return _child(entry, json.loads(message), out, err)
            os.close(out)
            os.close(err)
            children[pid] = _Child(caller, socket.socket(fileno=told))
            children[pid].told.send(str(pid).encode())


@dataclass(frozen=True)
class _Child:
    caller: socket.socket
    told: socket.socket


def _reap(children: dict[int, _Child]) -> None:
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with children.pop(pid).told as told:
                try:
                    told.send(str(os.waitstatus_to_exitcode(status)).encode())
                except OSError:
                    continue  # nobody is waiting for it


def _child(entry: str, call: dict[str, Any], out: int, err: int) -> int:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(number, target)
        os.close(number)
    os.environ.clear()
    os.environ.update(call["environment"])
    os.chdir(call["folder"])
    sys.argv[1:] = call["arguments"]
    code = importlib.import_module(entry).main()
    # Like the end of the interpreter, but without clearing three thousand modules.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1], sys.argv[2], sys.argv[3:]))
