"""The points of a metric, as the emulator itself stores them.

The latest point, and the order of a history, are the same as in MLflow's SqlAlchemyStore
(``_update_latest_metrics_if_necessary``, ``get_metric_history``; NaN is 0 in both). It is assumed that Azure
ML does the same. Values stay as they were sent: that store would show an infinity as the largest float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Series:
    """One metric of a run."""

    # Timestamp, step, value (0 for NaN), whether it is NaN: directly comparable, and small.
    _points: list[tuple[int, int, float, bool]] = field(default_factory=list)
    _there: set[tuple[int, int, float, bool]] = field(default_factory=set)
    _latest: tuple[int, int, float, bool] | None = None
    _is_sorted: bool = True

    def add(self, row: dict[str, Any], twice: bool) -> None:
        """Add a row of a request; an existing one only if ``twice``."""
        value = float(row["value"])
        is_nan = math.isnan(value)
        point = int(row["timestamp"]), int(row.get("step") or 0), 0.0 if is_nan else value, is_nan
        if not twice:
            if point in self._there:
                return
            self._there.add(point)
        if self._points and point < self._points[-1]:
            self._is_sorted = False
        self._points.append(point)
        if self._latest is None or _recency(point) > _recency(self._latest):
            self._latest = point

    def latest(self, key: str) -> dict[str, Any]:
        """Return the point that ``run.data.metrics`` shows."""
        assert self._latest
        return _row(key, self._latest)

    def page(self, key: str, start: int, size: int) -> tuple[list[dict[str, Any]], bool]:
        """Return this many rows (0: all) from a position, and whether there are more."""
        if not self._is_sorted:
            self._points.sort()
            self._is_sorted = True
        end = start + size if size else len(self._points)
        return [_row(key, point) for point in self._points[start:end]], end < len(self._points)


def _recency(point: tuple[int, int, float, bool]) -> tuple[int, int, float]:
    timestamp, step, value, _ = point
    return step, timestamp, value


def _row(key: str, point: tuple[int, int, float, bool]) -> dict[str, Any]:
    timestamp, step, number, is_nan = point
    value: float | str = "NaN" if is_nan else number
    if math.isinf(number):
        value = "Infinity" if number > 0 else "-Infinity"
    return {"key": key, "value": value, "timestamp": timestamp, "step": step}
