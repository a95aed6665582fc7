"""Which checkpoint is the final one, and when nobody can tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from aml_mirror.layouts.base import Checkpoint, RunDraft

# A message names at most so many candidates.
_MAX_SHOWN = 8


def newest_first(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Give the first checkpoint the role ``final`` and every other one ``periodic``."""
    return [
        replace(checkpoint, role="periodic" if index else "final")
        for index, checkpoint in enumerate(checkpoints)
    ]


def leave_undecided(run: RunDraft, candidates: Sequence[Checkpoint], why: str) -> None:
    """Say of a run that each of some checkpoints may be its final one, and ``why`` there are several."""
    shown = [
        checkpoint.path if checkpoint.step is None else f"{checkpoint.path} (step {checkpoint.step})"
        for checkpoint in candidates[:_MAX_SHOWN]
    ]
    more = f" and {len(candidates) - _MAX_SHOWN} more" if len(candidates) > _MAX_SHOWN else ""
    run.undecided = f"{why}: {', '.join(shown)}{more}"
    run.choices = [checkpoint.path for checkpoint in candidates]
