"""One evaluation of a policy: its trials and its other metrics, whatever wrote it.

A *trial* is one episode of which somebody knows whether it succeeded. Rewards, errors and a verdict that a
tool printed are no trials: an evaluation without trials is no evidence of success.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from aml_mirror.core.errors import DataError
from aml_mirror.core.manifest import digest_of_json

# Names of single trials that a statement lists; of more it has the counts alone.
MAX_NAMED = 10_000
MAX_TRIALS = 10_000_000
MAX_TASKS = 1_000
MAX_METRICS = 100
_NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TaskTrials:
    """The trials of one task. ``task`` is empty where the result names none."""

    task: str
    episodes: int
    successes: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a result file says."""

    format: str
    """The name of the format that was recognised."""
    trials: tuple[TaskTrials, ...] = ()
    """By task, in the order of their names."""
    metrics: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    """Means over all episodes, by name; finite."""
    outcomes: tuple[tuple[str, bool], ...] = ()
    """Name and success of each single trial, where the result tells them."""
    rows: str = ""
    """Digest of all that the result tells of single trials: seeds, rewards, times."""
    evaluated_at: datetime | None = None
    """When the evaluation ended, where the result says it; with a time zone."""
    manifest_sha256: str = ""
    """The digest of the manifest that was evaluated, where the result says it."""

    @property
    def episodes(self) -> int:
        """The number of trials."""
        return sum(one.episodes for one in self.trials)

    @property
    def successes(self) -> int:
        """The number of those that succeeded."""
        return sum(one.successes for one in self.trials)

    @property
    def id(self) -> str:
        """What makes two results the same evaluation, as 64 hexadecimal digits.

        The name of the file and its white space do not count, so that the same result counts once.
        """
        return digest_of_json(
            [
                sorted([one.task, one.episodes, one.successes] for one in self.trials),
                sorted([name, repr(value)] for name, value in self.metrics.items()),
                self.rows,
                self.evaluated_at.isoformat() if self.evaluated_at else "",
            ]
        )


def evaluation_of(
    format_name: str,
    trials: Iterable[tuple[str, int, int]],
    metrics: Mapping[str, object],
    rows: Iterable[tuple[str, str, bool, Any]] = (),
    evaluated_at: datetime | None = None,
    manifest_sha256: str = "",
) -> Evaluation:
    """Build an evaluation and check it.

    Args:
        format_name: the name of the format.
        trials: (task, episodes, successes); those of one task are added up.
        metrics: by name; what is no finite number is left out.
        rows: of each single trial its task, its name, its success, and what else is known of it.
        evaluated_at: see :class:`Evaluation`.
        manifest_sha256: likewise.

    Raises:
        DataError: the counts cannot be right, or there are too many.
    """
    by_task: dict[str, list[int]] = {}
    for task, episodes, successes in trials:
        if not 0 <= successes <= episodes <= MAX_TRIALS:
            raise DataError(
                f"the result counts {successes} successes in {episodes} episodes"
                + (f" of the task {task!r}" if task else ""),
                "check the file: it cannot be the result of an evaluation",
            )
        found = by_task.setdefault(task, [0, 0])
        found[0] += episodes
        found[1] += successes
    if len(by_task) > MAX_TASKS:
        raise DataError(f"the result has over {MAX_TASKS} tasks", "split it into several")
    listed = list(rows)
    return Evaluation(
        format_name,
        tuple(TaskTrials(task, *by_task[task]) for task in sorted(by_task) if by_task[task][0]),
        MappingProxyType(
            {name: number for name, value in metrics.items() if (number := finite(value)) is not None}
        ),
        tuple((f"{task}: {name}" if task else name, success) for task, name, success, _ in listed)
        if len(listed) <= MAX_NAMED
        else (),
        digest_of_json([[task, name, success, repr(rest)] for task, name, success, rest in listed]),
        evaluated_at,
        manifest_sha256,
    )


def finite(value: object) -> float | None:
    """Return a number as a float; None where it is none, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
