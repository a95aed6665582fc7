"""pytest without its start: a process that has loaded what tests import, and a fork of it for each change.

    python pytest_forks.py serve SOCKET              # until its standard input ends
    python -I -S pytest_forks.py run SOCKET WORD…    # pytest's exit code; SOCKET.out is what it printed

Loading pytest, Hypothesis and MLflow's client takes five seconds of a core; most changes are noticed in less.
Nothing of the program under test is loaded before the fork. A run whose client is gone is ended: a change
that makes a test wait leaves no process behind.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import sys

LOADED = (
    *("pytest", "hypothesis", "hypothesis.extra.pytestplugin", "_hypothesis_pytestplugin", "xdist.plugin"),
    *("pytest_docker.plugin", "pytest_timeout", "anyio.pytest_plugin", "requests", "yaml"),
    *("mlflow", "google.protobuf.descriptor_pb2", "numpy", "blake3"),
)

# Of one process, in bytes. A change that makes a test take more fails, and leaves the machine as it was.
MEMORY = 4 << 30


def serve(path: str) -> None:
    """Answer calls one after the other."""
    import contextlib
    import gc
    import importlib

    for name in LOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        caller, _ = listening.accept()
        with caller:
            call = json.loads(caller.makefile("rb").readline())
            child = os.fork()
            if child == 0:
                listening.close()
                _test(path + ".out", **call)
            _wait(child, caller)


def _test(output: str, folder: str, environment: dict[str, str], words: list[str]) -> None:
    """Be the process of one run of pytest."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.dont_write_bytecode = True
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    with open(os.devnull, "rb") as nothing, open(output, "wb") as told:
        for target, descriptor in enumerate((nothing, told, told)):
            os.dup2(descriptor.fileno(), target)
    code = 70
    try:
        import pytest

        code = int(pytest.main(words))
    finally:
        sys.stdout.flush()
        os._exit(code)


def _wait(child: int, caller: socket.socket) -> None:
    """Tell the caller the exit code; end the run, with all that it started, where the caller is gone."""
    end = os.pidfd_open(child)
    try:
        ready, _, _ = select.select([end, caller], [], [])
        if end not in ready:
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if end in ready:
            caller.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    finally:
        os.close(end)


def run(path: str, words: list[str]) -> int:
    """Call the server, and return the exit code of pytest."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        call = {"folder": os.getcwd(), "environment": dict(os.environ), "words": words}
        server.sendall(json.dumps(call).encode() + b"\n")
        return int(server.recv(100) or b"70")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(run(sys.argv[2], sys.argv[3:]))
