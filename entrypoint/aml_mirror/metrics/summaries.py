"""What is recorded about a series and a session while their points are read."""

from __future__ import annotations

import math
from dataclasses import dataclass

# The first second of the year 2000. Earlier wall times are not dates: clocks that were never set, and the
# milliseconds for the steps of a log without times (:mod:`aml_mirror.metrics.log_files`).
FIRST_DATE = 946_684_800.0


@dataclass(slots=True)
class WallTimes:
    """The first and the last wall time of points, in seconds since the epoch; None: no point has a date."""

    first: float | None = None
    last: float | None = None

    def add(self, wall_time: float) -> None:
        """Add one more point that has a date."""
        if self.first is None or wall_time < self.first:
            self.first = wall_time
        if self.last is None or wall_time > self.last:
            self.last = wall_time


@dataclass(slots=True)
class Span:
    """The steps at which one session logged one tag."""

    path: str
    """The file of the session, relative to the run's root."""
    first: int
    """The smallest step."""
    last: int
    """The largest step."""
    before_last: int | None = None
    """The largest step below ``last``; None: there is none."""

    def add(self, step: int) -> None:
        """Add one more step."""
        self.first = min(self.first, step)
        if step > self.last:
            self.before_last, self.last = self.last, step
        elif step < self.last and (self.before_last is None or step > self.before_last):
            self.before_last = step


@dataclass(frozen=True, slots=True)
class Restart:
    """A session that began again where an older one in the same folder had begun: another training."""

    older: Span
    newer: Span


@dataclass(slots=True)
class Series:
    """One metric and a summary of its points. NaN and infinity do not count as minimum or maximum."""

    name: str
    """As sent."""
    tag: str
    """The tag, as the framework wrote it."""
    folder: str
    """Relative to the run's root, ``""`` for the root itself; the folder of the first session."""
    points: int = 0
    first_step: int = 0
    """The smallest step."""
    last_step: int = 0
    """The largest step."""
    last_value: float = math.nan
    """The value at the largest step. If that step exists several times, the last written one."""
    min_value: float | None = None
    min_step: int | None = None
    max_value: float | None = None
    max_step: int | None = None
    newest: Span | None = None
    """The steps of the newest session that logged it, whether or not its points are sent."""

    def add(self, step: int, value: float) -> None:
        """Add one more point. It replaces none at the same step, because sessions are read backwards."""
        if self.points == 0:
            self.first_step = self.last_step = step
            self.last_value = value
        elif step >= self.last_step:
            self.last_step, self.last_value = step, value
        elif step < self.first_step:
            self.first_step = step
        self.points += 1
        if not math.isfinite(value):
            return
        # Of equal values, the one at the smallest step.
        if self.min_value is None or (value, step) < (self.min_value, self.min_step):
            self.min_value, self.min_step = value, step
        if self.max_value is None or (-value, step) < (-self.max_value, self.max_step):
            self.max_value, self.max_step = value, step


def restart_of(older: dict[str, Span], newer: dict[str, Span]) -> Restart | None:
    """Tell whether a later session began again, by the tag that both logged most often.

    A resumed training continues from a checkpoint, after the first step that it ever logged. A training that
    logs that step, or an earlier one, again began again.
    """
    shared = [tag for tag in older.keys() & newer.keys() if older[tag].last > older[tag].first]
    if not shared:
        return None
    tag = min(shared, key=lambda tag: (older[tag].first, -older[tag].last, tag))
    return Restart(older[tag], newer[tag]) if newer[tag].first <= older[tag].first else None
