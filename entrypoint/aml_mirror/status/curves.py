"""The small curve of a run: its main series, from its own logs, reduced to a few dozen points."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aml_mirror.metrics.main_series import main_series
from aml_mirror.metrics.series import read_metrics
from aml_mirror.pipeline.locate import LocatedRun
from aml_mirror.pipeline.log_state import log_sizes
from aml_mirror.sources.growing import log_view

# The number of points of a curve about 100 pixels wide. In a longer series, each is the mean of several
# neighbours.
POINTS = 60
# If a run has more bytes of logs, no curve is drawn: reading them would take longer than a page is worth.
MAX_LOG_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Curve:
    """One series. The values are finite, in the order in which they were logged."""

    name: str
    values: tuple[float, ...]
    last: float
    last_step: int


def curve(located: LocatedRun) -> Curve | None:
    """Read the logs of a run and return the curve of its main series; None: there is none.

    Raises:
        MirrorError: a log changed while it was read, or cannot be read.
    """
    sizes = log_sizes(located.tree, located.run)
    if not sizes or sum(sizes.values()) > MAX_LOG_BYTES:
        return None
    metrics = read_metrics(log_view(located.tree, sizes), located.run.logs)
    main = main_series(metrics.series)
    if main is None or not math.isfinite(main.last):
        return None
    thinned = Thinned(POINTS)
    for name, value, _, _ in metrics.stream():
        if name == main.name and math.isfinite(value):
            thinned.add(value)
    return Curve(main.name, thinned.values, main.last, main.last_step)


class Thinned:
    """Takes values one by one and holds at most twice ``most`` means of neighbours, whatever their number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._means: list[float] = []
        self._each, self._sum, self._count = 1, 0.0, 0

    def add(self, value: float) -> None:
        """Add the next value."""
        self._sum, self._count = self._sum + value, self._count + 1
        if self._count == self._each:
            self._means.append(self._sum / self._each)
            self._sum, self._count = 0.0, 0
            if len(self._means) == 2 * self._most:
                pairs = zip(self._means[::2], self._means[1::2], strict=True)
                self._means = [(one + other) / 2 for one, other in pairs]
                self._each *= 2

    @property
    def values(self) -> tuple[float, ...]:
        """Return the means so far, including that of the last, smaller group."""
        return (*self._means, *([self._sum / self._count] if self._count else []))
