"""Decides which checkpoint is the final one, and when that is undecided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from aml_mirror.layouts.base import Checkpoint, RunDraft

# A message names at most this many candidates.
_MAX_SHOWN = 8


def newest_first(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Give the first checkpoint the role ``final`` and all others the role ``periodic``."""
    return [
        replace(checkpoint, role="periodic" if index else "final")
        for index, checkpoint in enumerate(checkpoints)
    ]


def warn_of_scores(run: RunDraft) -> None:
    """Warn that all checkpoints of a run were kept for their scores, so the training may have continued.

    The newest of them is not called the end. If the numbering has no gaps from the first on, they are all the
    checkpoints that were saved, whatever their names say.
    """
    steps = sorted({item.step for item in run.checkpoints if item.step is not None})
    gaps = {after - before for before, after in pairwise([0, *steps])}
    if len(steps) > 2 and len(gaps) == 1:
        return
    newest = run.checkpoints[0]
    run.checkpoints = [replace(newest, role="unknown"), *run.checkpoints[1:]]
    run.warnings.append(
        f"all checkpoints were kept for their scores, as the best ones: {newest.path} is the newest of them, "
        "but the training may have continued"
    )


def leave_undecided(run: RunDraft, candidates: Sequence[Checkpoint], why: str) -> None:
    """Mark a run as undecided: each of these checkpoints may be the final one, for the reason ``why``."""
    shown = [
        checkpoint.path if checkpoint.step is None else f"{checkpoint.path} (step {checkpoint.step})"
        for checkpoint in candidates[:_MAX_SHOWN]
    ]
    more = f" and {len(candidates) - _MAX_SHOWN} more" if len(candidates) > _MAX_SHOWN else ""
    run.undecided = f"{why}: {', '.join(shown)}{more}"
    run.choices = [checkpoint.path for checkpoint in candidates]
