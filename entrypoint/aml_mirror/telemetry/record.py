"""What telemetry reports about a call: its stages with their times, and sums over its receipts.

Like OpenTelemetry's own interface, this is one recorder for the process. So a stage is measured where it
happens, without passing an argument through every function. Nothing is recorded unless telemetry was
requested.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

# A backfill may mirror tens of thousands of runs. The sums continue, but the stages of later runs are only
# counted.
MOST_SPANS = 2_000

ROOT = -1


@dataclass(slots=True)
class Span:
    """One stage. Times in nanoseconds since the epoch."""

    name: str
    parent: int
    """Its index in :attr:`Record.spans`, or ROOT."""
    begun: int
    ended: int = 0
    attributes: dict[str, str | int] = field(default_factory=dict)
    error: str = ""


class Counted(Protocol):
    """The fields of a receipt that are summed up."""

    @property
    def outcome(self) -> str: ...
    @property
    def bytes_sent(self) -> int: ...
    @property
    def bytes_copied(self) -> int: ...
    @property
    def bytes_reused(self) -> int: ...
    @property
    def points(self) -> int: ...


@dataclass(slots=True)
class Record:
    """One call of the program."""

    command: str
    begun: int = field(default_factory=time.time_ns)
    begun_monotonic: float = field(default_factory=time.monotonic)
    ended: int = 0
    seconds: float = 0.0
    exit_code: int = 0
    passes: int = 0
    """How many passes were delivered; one, except for ``watch``."""
    spans: list[Span] = field(default_factory=list)
    spans_left_out: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    bytes_sent: int = 0
    bytes_copied: int = 0
    bytes_reused: int = 0
    points: int = 0
    open: list[int] = field(default_factory=list)

    @property
    def was_delivered(self) -> bool:
        """Whether a pass was delivered, and nothing has happened since."""
        return self.passes > 0 and not self.spans and not self.outcomes

    def end(self, exit_code: int) -> None:
        """Record how the call, or this pass of it, ended."""
        self.ended, self.seconds = time.time_ns(), time.monotonic() - self.begun_monotonic
        self.exit_code = exit_code

    def next_pass(self) -> None:
        """Begin again. The previous pass was delivered and must not be counted twice."""
        self.begun, self.begun_monotonic, self.ended = time.time_ns(), time.monotonic(), 0
        self.passes += 1
        self.spans, self.open, self.spans_left_out = [], [], 0
        self.outcomes = Counter()
        self.bytes_sent = self.bytes_copied = self.bytes_reused = self.points = 0


_record: Record | None = None


def start(command: str) -> Record:
    """Begin to record, and return the record."""
    global _record
    _record = Record(command)
    return _record


def current() -> Record | None:
    """Return the record of this process; None if telemetry was not requested."""
    return _record


@contextmanager
def span(name: str, **attributes: str | int | None) -> Iterator[None]:
    """Record a stage of the work.

    Args:
        name: the kind of stage, for example ``locate``; never the name of a run.
        attributes: details, for example the run's id.
    """
    record = _record
    if record is None:
        yield
        return
    if len(record.spans) >= MOST_SPANS:
        record.spans_left_out += 1
        yield
        return
    place = len(record.spans)
    kept = {key: value for key, value in attributes.items() if value is not None}
    item = Span(name, record.open[-1] if record.open else ROOT, time.time_ns(), attributes=kept)
    record.spans.append(item)
    record.open.append(place)
    try:
        yield
    except BaseException as error:
        item.error = type(error).__name__
        raise
    finally:
        item.ended = time.time_ns()
        if record.open and record.open[-1] == place:
            record.open.pop()


def count(receipt: Counted) -> None:
    """Add a receipt to the sums."""
    record = _record
    if record is None:
        return
    record.outcomes[receipt.outcome] += 1
    record.bytes_sent += receipt.bytes_sent
    record.bytes_copied += receipt.bytes_copied
    record.bytes_reused += receipt.bytes_reused
    record.points += receipt.points
