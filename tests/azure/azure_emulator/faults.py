"""Faults on demand: what goes wrong, at which request, before or after the server has acted.

Each fault belongs to a scope and counts the requests that match it. It acts at the ``nth`` match and at the
next ``times`` - 1 matches (0: at all that follow).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from multidict import CIMultiDict

from . import entra
from .state import Scope
from .web import Reply

ACTIONS = (
    *("status", "late", "drop", "cut", "length", "damage", "stall", "kill", "signal", "skew"),
    *("expire-tokens", "expire-sas", "count"),
)
MOMENTS = ("before", "after")


@dataclass
class Fault:
    """The fields of ``POST /__control/scopes/SCOPE/faults``; README.md explains them."""

    action: str
    match: str = ""
    skip: str = "$^"
    nth: int = 1
    times: int = 1
    when: str = "before"
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    seconds: float = 0
    delta: int = 7
    pid: int | str = "client"
    signal: int = signal.SIGTERM
    seen: int = 0
    acted: int = 0

    def __post_init__(self) -> None:
        if self.action not in ACTIONS or self.when not in MOMENTS:
            raise ValueError(f"action is one of {ACTIONS}, when one of {MOMENTS}")
        if self.action in ("cut", "length") and self.when == "before":
            raise ValueError(f"{self.action} damages an answer: it needs when=after")
        if self.action in ("damage", "late") and self.when == "after":
            raise ValueError(f"{self.action} concerns a request: it needs when=before")
        re.compile(self.match), re.compile(self.skip)

    def hits(self, text: str) -> bool:
        """Count the request if it matches, and tell whether the fault acts on it."""
        if re.search(self.skip, text) or not re.search(self.match, text):
            return False
        self.seen += 1
        if self.seen < self.nth or (self.times and self.seen >= self.nth + self.times):
            return False
        self.acted += 1
        return True

    def describe(self) -> dict[str, Any]:
        """Return it as JSON, with how often it was seen and acted."""
        return asdict(self)


class Dropped(Exception):
    """The connection must be closed without an answer."""


@dataclass
class Spoiled:
    """A request or answer that is changed on its way.

    If it is ``damaged``, one bit of the request's body is flipped. If it is ``cut``, the answer ends in the
    middle; with ``delta``, its stated length is off by that many bytes. A ``late`` request is answered now,
    and carried out that many seconds later.
    """

    damaged: bool = False
    late: float | None = None
    cut: bool = False
    delta: int = 0


async def interfere(
    scope: Scope, when: str, text: str, ports: tuple[int, int], spoiled: Spoiled
) -> tuple[Reply | None, list[str]]:
    """Apply the scope's faults at this moment; return the answer to send instead, and what was done."""
    reply, done = None, []
    for fault in scope.faults:
        if fault.when != when or not fault.hits(text):
            continue
        done.append(f"{fault.action} {when}")
        match fault.action:
            case "stall":
                await _stall(scope, fault)
            case "expire-tokens":
                entra.expire_tokens(scope)
            case "expire-sas":
                scope.expired_sas |= scope.seen_sas
            case "damage":
                spoiled.damaged = True
            case "cut":
                spoiled.cut = True
            case "length":
                spoiled.delta = fault.delta
            case "kill":
                kill(fault.pid, ports, signal.SIGKILL)
                raise Dropped
            case "signal":
                kill(fault.pid, ports, fault.signal)
                # The client's next action must come from the signal, not from an answer.
                await asyncio.sleep(fault.seconds)
            case "skew":
                # For existing tokens, and for those that are requested from now on.
                scope.skew = fault.seconds
                entra.expire_tokens(scope)
            case "drop":
                raise Dropped
            case "late" | "status":
                if fault.action == "late":
                    spoiled.late = fault.seconds
                headers = CIMultiDict({"Content-Type": "application/json", **fault.headers})
                reply = Reply(fault.status, headers, fault.body.encode())
    return reply, done


async def _stall(scope: Scope, fault: Fault) -> None:
    """Wait as long as the fault says, or until it is removed."""
    clock = asyncio.get_running_loop().time
    end = clock() + fault.seconds
    while (left := end - clock()) > 0 and any(one is fault for one in scope.faults):
        await asyncio.sleep(min(left, 0.05))


def kill(pid: int | str, ports: tuple[int, int], number: int) -> None:
    """Send a signal to a process; "client" is the one at the other end of the connection."""
    process = owner_of(*ports) if pid == "client" else int(pid)
    if process and process != os.getpid():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def owner_of(port: int, to: int) -> int | None:
    """Return the process with the connection from one local TCP port to another, found as ``ss -p`` does."""
    socket_name = None
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                # One port may have connections to several others.
                if [int(end.rpartition(":")[2], 16) for end in fields[1:3]] == [port, to]:
                    socket_name = f"socket:[{fields[9]}]"
    if socket_name is None:
        return None
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):
                for entry in (process / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        if os.readlink(entry) == socket_name:
                            return int(process.name)
    return None
