"""One evaluation of a policy: its trials and its other metrics, from any tool.

A *trial* is one episode with a known outcome. Rewards, errors and a tool's verdict are not trials. An
evaluation without trials is not evidence of success.
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

# The most names of single trials in a statement. If there are more, it only has the counts.
MAX_NAMED = 10_000
MAX_TRIALS = 10_000_000
MAX_TASKS = 1_000
MAX_METRICS = 100
_NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TaskTrials:
    """The trials of one task. ``task`` is empty if the result does not name one."""

    task: str
    episodes: int
    successes: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The contents of a result file."""

    format: str
    """The name of the format that was recognised."""
    trials: tuple[TaskTrials, ...] = ()
    """By task, sorted by name."""
    metrics: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    """Means over all episodes, by name; finite."""
    outcomes: tuple[tuple[str, bool], ...] = ()
    """Name and success of each single trial, if the result has them."""
    rows: str = ""
    """Digest of everything in the result about single trials: seeds, rewards, times."""
    evaluated_at: datetime | None = None
    """When the evaluation ended, if the result says so; with a time zone."""
    manifest_sha256: str = ""
    """The digest of the evaluated manifest, if the result contains it."""

    @property
    def episodes(self) -> int:
        """The number of trials."""
        return sum(one.episodes for one in self.trials)

    @property
    def successes(self) -> int:
        """The number of successful trials."""
        return sum(one.successes for one in self.trials)

    @property
    def id(self) -> str:
        """Identifies the evaluation, as 64 hexadecimal digits.

        The file's name and white space do not matter, so the same result counts once.
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
        metrics: by name; values that are not finite numbers are left out.
        rows: for each single trial its task, its name, its success, and anything else that is known.
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
        raise DataError(f"the result has more than {MAX_TASKS} tasks", "split it into several")
    listed = list(rows)
    for text in (*by_task, *metrics, *(name for _, name, _, _ in listed)):
        require_text(text)
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


def require_text(name: str) -> None:
    """Check that a name can be written.

    Raises:
        DataError: it has half of a character, which JSON can contain (``"\\ud800"``).
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the name {name!a} in the result is not text", "check what wrote the file, and name it again"
        ) from error


def finite(value: object) -> float | None:
    """Return a number as a float; None if it is not a number, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
