"""How a cost grows with size: measured at some sizes, fitted on a log-log scale, and plotted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import MB

# A fit of measured times scatters. Quadratic growth would be at 2, n log n near 1.1.
LINEAR = 1.1
# The memory at the largest size divided by that at the smallest. A tenth is the allocator's; more would be
# data that is kept.
FLAT = 1.25
# The part of the smallest size's time that counts as the start of the program. Not all of it, so that the
# logarithm exists.
START = 0.9


@dataclass(frozen=True, slots=True)
class Point:
    """One size, its time and CPU time in seconds, and its peak memory in bytes."""

    size: int
    seconds: float
    cpu: float
    resident: int


@dataclass(frozen=True, slots=True)
class Curve:
    """The cost as a function of one kind of size."""

    name: str
    unit: str
    points: Sequence[Point]

    @property
    def exponent(self) -> float:
        """The growth of the time; see :func:`fitted`."""
        return fitted([(point.size, point.seconds) for point in self.points])

    @property
    def cpu_exponent(self) -> float:
        """The growth of the CPU time, without the time that the program waits for the emulator, which grows
        too.
        """
        return fitted([(point.size, point.cpu) for point in self.points])

    @property
    def memory_growth(self) -> float:
        """The memory at the largest size, as a multiple of that at the smallest."""
        return self.points[-1].resident / self.points[0].resident

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "exponent": round(self.exponent, 3),
            "cpu_exponent": round(self.cpu_exponent, 3),
            "memory_growth": round(self.memory_growth, 3),
            "points": [
                {
                    "size": point.size,
                    "seconds": round(point.seconds, 3),
                    "cpu_seconds": round(point.cpu, 3),
                    "resident_mb": point.resident / MB,
                }
                for point in self.points
            ],
        }


def fitted(costs: Sequence[tuple[int, float]]) -> float:
    """Return the slope of log(cost above the start) against log(size), by least squares.

    At small sizes the start of the program hides the growth, so that the slope would look too good. So sizes
    below a twentieth of the largest are left out, and most of the smallest cost is subtracted from the
    others.

    Args:
        costs: (size, seconds), the largest size last.
    """
    start = START * min(cost for _, cost in costs)
    larger = [(size, cost) for size, cost in costs if size >= costs[-1][0] / 20]
    xs = [math.log(size) for size, _ in larger]
    ys = [math.log(cost - start) for _, cost in larger]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def plot(curves: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the curves (from :meth:`Curve.as_dict`) as an SVG, with time above and memory below."""
    import matplotlib as mpl

    mpl.use("svg")
    # Text stays text, and the same figures produce the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "aml-mirror", "font.size": 9})
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(curves), figsize=(3.2 * len(curves), 4.6), squeeze=False, sharex="col")
    for column, curve in enumerate(curves):
        sizes = [point["size"] for point in curve["points"]]
        seconds = [point["seconds"] for point in curve["points"]]
        above, below = axes[0][column], axes[1][column]
        above.loglog(sizes, seconds, "o-", color="#1f6feb")
        # A line for linear growth, through the largest measurement.
        linear = [seconds[-1] * size / sizes[-1] for size in sizes]
        above.loglog(sizes, linear, "--", color="#999999", linewidth=1)
        above.set_ylim(min(seconds) / 3, max(seconds) * 2)
        above.set_title(f"{curve['name']}: size$^{{{curve['exponent']:.2f}}}$", fontsize=10)
        below.semilogx(sizes, [point["resident_mb"] for point in curve["points"]], "o-", color="#bf3989")
        below.set_ylim(0, 300)
        below.set_xlabel(curve["unit"])
        for axis in (above, below):
            axis.grid(True, alpha=0.3)
    axes[0][0].set_ylabel("seconds (dashed: linear)")
    axes[1][0].set_ylabel("MB resident, at most")
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
