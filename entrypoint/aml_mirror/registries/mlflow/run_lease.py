"""Records who is writing a run: a note on the run itself, renewed as long as its writer lives.

OSMO ends a task with SIGKILL, so a run may be left half-written without notice. Two mirrors of one run may
also start in the same second. A lease tells the two cases apart. It names its owner: machine, PID namespace,
process and start time. So a process on the same machine that no longer runs is recognised at once. It also
has a counter that the owner increases every ``RENEW_SECONDS``. A lease whose counter has not changed for
``STALE_SECONDS`` of the *observer's* clock is dead. Clocks of different machines are never compared. The
ticket is the owner's place among mirrors that began at once; see :mod:`.bakery_lock`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger(__name__)

RENEW_SECONDS = 5.0
# Six renewals: a slow server must not make a live writer look dead.
STALE_SECONDS = 30.0
# After writing a lease over a dead one, wait this long and read it back. If several tried, the last one to
# write continues.
SETTLE_SECONDS = 1.0
# The ticket of an owner that has none yet.
CHOOSING = 0


def _first_line(path: str) -> str:
    try:
        # The name of a process is in its stat, and may contain any bytes.
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.readline().strip()
    except OSError:
        return ""


def _namespace() -> str:
    """Return the machine and PID namespace that we can inspect; empty if unknown."""
    boot = _first_line("/proc/sys/kernel/random/boot_id")
    try:
        # The first namespace has the same number on every machine, so without a boot id it says nothing.
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}" if boot else ""
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return a process's start, in clock ticks since boot (proc(5), field 22); empty: no such process."""
    line = _first_line(f"/proc/{pid}/stat")
    fields = line.rpartition(")")[2].split()
    # A zombie still has its PID but no longer writes.
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


@dataclass(frozen=True, slots=True)
class Lease:
    """The contents of the note."""

    owner: str
    beat: int
    namespace: str = ""
    pid: int = 0
    started: str = ""
    ticket: int = CHOOSING + 1

    @classmethod
    def parse(cls, text: str | None) -> Lease | None:
        """Parse a note. One that cannot be parsed counts as none."""
        try:
            found = json.loads(text or "")
            return cls(
                str(found["owner"]),
                int(found["beat"]),
                str(found.get("namespace", "")),
                int(found.get("pid", 0)),
                str(found.get("started", "")),
                int(found.get("ticket", CHOOSING + 1)),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None

    def text(self) -> str:
        """The note as it is stored."""
        return json.dumps(
            {
                "owner": self.owner,
                "beat": self.beat,
                "namespace": self.namespace,
                "pid": self.pid,
                "started": self.started,
                "ticket": self.ticket,
            }
        )

    @property
    def owner_is_gone(self) -> bool:
        """Whether the owner ran on this machine and is known to be dead."""
        if not self.namespace or not self.started:
            return False
        return self.namespace == _namespace() and _started(self.pid) != self.started


class Watch:
    """Observes another owner's lease until its counter stops."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: tuple[str, int] | None = None
        self._since = 0.0

    def is_dead(self, lease: Lease | None) -> bool:
        """Tell whether nobody holds the lease any more."""
        if lease is None or lease.owner_is_gone:
            return True
        now = self._clock()
        if self._seen != (lease.owner, lease.beat):
            self._seen, self._since = (lease.owner, lease.beat), now
        return now - self._since >= STALE_SECONDS


class Keeper:
    """Our own lease: the note, a thread that renews it, and a flag that says whether another has taken it."""

    def __init__(self) -> None:
        self.owner = uuid.uuid4().hex
        self.ticket = CHOOSING
        self.lost = False
        self._beat = 0
        self._read: Callable[[], str | None] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self) -> str:
        """The next note to store."""
        self._beat += 1
        pid = os.getpid()
        return Lease(self.owner, self._beat, _namespace(), pid, _started(pid), self.ticket).text()

    def holds(self, text: str | None) -> bool:
        """Tell whether a stored note is ours."""
        lease = Lease.parse(text)
        return lease is not None and lease.owner == self.owner

    def start(self, read: Callable[[], str | None], write: Callable[[str], None]) -> None:
        """Start to renew.

        Args:
            read: returns the stored note.
            write: stores a note.
        """
        self._read = read
        self._thread = threading.Thread(target=self._renew, args=(read, write), name="lease", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Read the note now, not only with the next renewal: before a step that must not be done twice."""
        if self._read is not None and not self.holds(self._read()):
            self.lost = True

    def _renew(self, read: Callable[[], str | None], write: Callable[[str], None]) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            try:
                if not self.holds(read()):
                    self.lost = True
                    return
                write(self.note())
            except Exception as error:  # noqa: BLE001 - the next renewal makes up for it; the work continues
                _log.debug("the lease could not be renewed: %s", error)

    def stop(self) -> None:
        """Stop renewing. The note stays as it is."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=RENEW_SECONDS)
