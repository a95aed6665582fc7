"""Faults on demand: what goes wrong, at which request, before or after the server has acted.

Each fault belongs to a scope and counts the requests that match it. It acts at the ``nth`` of them and at the
``times`` - 1 that follow (0: at all that follow).
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
    """What ``POST /__control/scopes/SCOPE/faults`` takes; README.md explains each field."""

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
            raise ValueError(f"{self.action} spoils an answer: it goes with when=after")
        if self.action in ("damage", "late") and self.when == "after":
            raise ValueError(f"{self.action} is about a request: it goes with when=before")
        re.compile(self.match), re.compile(self.skip)

    def hits(self, text: str) -> bool:
        """Count the request if it matches, and say whether it is one to act on."""
        if re.search(self.skip, text) or not re.search(self.match, text):
            return False
        self.seen += 1
        if self.seen < self.nth or (self.times and self.seen >= self.nth + self.times):
            return False
        self.acted += 1
        return True

    def describe(self) -> dict[str, Any]:
        """As JSON, with how often it was seen and acted."""
        return asdict(self)


class Dropped(Exception):
    """The connection is to be closed without an answer."""


@dataclass
class Spoiled:
    """What is spoiled on its way.

    The request where it is ``damaged``: one bit of its body turned; the answer where it is ``cut`` in the
    middle, or ``delta`` bytes off in its length. A request that is ``late`` is answered now, and acted on so
    many seconds later.
    """

    damaged: bool = False
    late: float | None = None
    cut: bool = False
    delta: int = 0


async def interfere(
    scope: Scope, when: str, text: str, ports: tuple[int, int], spoiled: Spoiled
) -> tuple[Reply | None, list[str]]:
    """Do what the scope's faults say at this moment; return the answer to send instead, and what was done."""
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
                # What the client does now is what it does on a signal, not on an answer.
                await asyncio.sleep(fault.seconds)
            case "skew":
                # From now on, and for the tokens that are asked for from now on.
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
    """Wait as long as the fault says, or until it is taken back."""
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
    """The process with the connection from one local TCP port to another, found as ``ss -p`` finds it."""
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
