"""Counts the same trials once if they are attached in two formats.

The id of an evaluation is made from everything in its file. So a result and its conversion (LeRobot's
``eval_info.json``, and a table of the same episodes) have two ids. They count as one if the formats differ,
the counts are equal, their tasks do not contradict each other, and no common metric differs. Two evaluations
in one format are never the same: they differ in a seed, a time or a reward.

Two real evaluations with equal counts may also meet these conditions. Then too few trials are counted, never
too many, and a note says which. A table that names the metrics or tasks of its own evaluation is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from aml_mirror.evidence.result_statement import Evidence

_SHOWN = 16  # characters of an id


def counted_once(evidence: Iterable[Evidence]) -> tuple[list[Evidence], list[str]]:
    """Return the evidence without repetitions of the same trials, and a note on each that was left out.

    The one with more tasks, then more metrics, is kept; the order stays.
    """
    given = list(evidence)
    kept: list[Evidence] = []
    notes: list[str] = []
    for one in sorted(given, key=lambda one: (-_named(one), -len(one.metrics), one.id)):
        first = next((other for other in kept if _same_trials(one, other)), None)
        if first is None:
            kept.append(one)
            continue
        notes.append(
            f"the evaluation {one.id[:_SHOWN]} ({one.format}) repeats the trials of {first.id[:_SHOWN]} "
            f"({first.format}): they are counted once"
        )
    return [one for one in given if one in kept], notes


def _same_trials(one: Evidence, other: Evidence) -> bool:
    if one.format == other.format or not one.episodes:
        return False
    if (one.episodes, one.successes) != (other.episodes, other.successes):
        return False
    if _named(one) and _named(other) and set(one.trials) != set(other.trials):
        return False
    shared = one.metrics.keys() & other.metrics.keys()
    # A table may have rounded them.
    return all(
        math.isclose(one.metrics[name], other.metrics[name], rel_tol=1e-3, abs_tol=1e-6) for name in shared
    )


def _named(evidence: Evidence) -> int:
    """Return how many tasks are named."""
    return sum(bool(one.task) for one in evidence.trials)
