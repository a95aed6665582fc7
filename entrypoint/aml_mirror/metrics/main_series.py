"""Chooses the series of a run that a person would look at first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aml_mirror.metrics.series_names import goal, usefulness
from aml_mirror.metrics.summaries import Series


@dataclass(frozen=True, slots=True)
class MainSeries:
    """The series that best shows how good the policy is."""

    name: str
    last: float
    last_step: int
    best: float
    best_step: int
    direction: str
    """``max`` or ``min``: which values are better."""


def main_series(series: Iterable[Series]) -> MainSeries | None:
    """Choose the series whose last and best value a person wants to see; None: no name suggests one.

    It is the most useful series in the sense of :meth:`Metrics.limited` whose name says that high values are
    good (success, reward, return, score) or low ones (loss, error).
    """
    ranked = [
        (one.points == 1, usefulness(one.tag), one.name, one, aim[1])
        for one in series
        if (aim := goal(one.tag)) is not None
    ]
    for *_, one, direction in sorted(ranked, key=lambda item: item[:3]):
        best, step = (one.max_value, one.max_step) if direction == "max" else (one.min_value, one.min_step)
        if best is not None and step is not None:
            return MainSeries(one.name, one.last_value, one.last_step, best, step, direction)
    return None
