"""Kills processes at a chosen request to a real server, or at a chosen change of the disk.

They are killed with SIGKILL, so nothing is cleaned up.
"""

from __future__ import annotations

import builtins
import io
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from builders.forks import MLFLOW, Forked, forks
from builders.matrix import Moment
from builders.program import clean_environment
from builders.proxy import DROP, Proxy

CHANGES = ("write", "rename", "mkdir", "unlink", "fsync", "rmdir", "ftruncate")


@dataclass(frozen=True)
class Killed:
    """The result of a program that may have been killed."""

    code: int
    seen: list[str]
    """Method and path of each counted request, without its query."""
    struck: str
    """The request at which it was killed; empty: it was not reached."""

    @property
    def requests(self) -> int:
        """The number of counted requests."""
        return len(self.seen)


def killed_at_request(
    arguments: list[str],
    url: str,
    folder: Path,
    at: Moment | None,
    counts: Callable[[str, str], bool] = lambda method, path: True,
    given: Callable[[str], list[str]] = lambda url: ["--tracking-uri", url],
) -> Killed:
    """Run the program with a proxy in front of its MLflow server, or another one, which kills it at a
    request.

    Args:
        arguments: of the program, without the server.
        url: the server's address.
        folder: where the program runs.
        at: the request, counted from 1, and the moment; None: it is not killed.
        counts: tells by method and path which requests count.
        given: returns more arguments of the program, from the proxy's address.
    """
    with Proxy(url) as proxy:
        process: Forked | None = None
        struck: list[str] = []
        seen: list[str] = []
        numbers: dict[int, int] = {}

        def interfere(now: int, when: str, method: str, path: str) -> str | None:
            path = path.partition("?")[0]
            if not counts(method, path):
                return None
            if now not in numbers:
                seen.append(f"{method} {path}")
            number = numbers.setdefault(now, len(numbers) + 1)
            if at is None or (number, when) != (at.number, at.moment):
                return None
            while process is None:
                time.sleep(0.01)
            # First of all: a waiting process looks at it.
            struck.append(f"{method} {path}")
            os.kill(process.pid, signal.SIGKILL)
            return DROP

        proxy.interfere = interfere
        process = forks(MLFLOW, clean_environment).start(
            [*arguments, *given(proxy.url)], folder, clean_environment()
        )
        _, err = process.communicate(timeout=600)
        assert process.returncode == (-signal.SIGKILL if struck else 0), err
        return Killed(process.returncode, seen, struck[0] if struck else "")


def in_a_child(work: Callable[[], object]) -> int:
    """Run a function in a fork of this process; return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - only its end matters
            os._exit(3)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def die_at_change(number: int) -> None:
    """Make this process die at the nth change of the disk, before the change.

    Opening a file for writing counts as two changes: before it is opened, and after, when it is empty.
    """
    count = [0]

    def counted() -> None:
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(change: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **more: object) -> object:
            counted()
            return change(*given, **more)

        return call

    for name in CHANGES:
        setattr(os, name, dying(getattr(os, name)))
    opens = builtins.open

    def opening(file: object, mode: str = "r", *given: object, **more: object) -> object:
        if not set(mode) & set("wax+"):
            return opens(file, mode, *given, **more)  # type: ignore[call-overload]
        counted()
        stream = opens(file, mode, *given, **more)  # type: ignore[call-overload]
        counted()
        return stream

    builtins.open = io.open = opening  # type: ignore[assignment]
