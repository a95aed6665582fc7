"""Which checkpoint is the final one, and when nobody can tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from aml_mirror.layouts.base import Checkpoint

# A message names at most so many candidates.
_MAX_SHOWN = 8


def newest_first(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Give the first checkpoint the role ``final`` and every other one ``periodic``."""
    return [
        replace(checkpoint, role="periodic" if index else "final")
        for index, checkpoint in enumerate(checkpoints)
    ]


def several_ends(candidates: Sequence[Checkpoint], why: str) -> str:
    """Return the text of :attr:`Run.undecided`: ``why`` there are several ends, and which they are."""
    shown = [
        checkpoint.path if checkpoint.step is None else f"{checkpoint.path} (step {checkpoint.step})"
        for checkpoint in candidates[:_MAX_SHOWN]
    ]
    more = f" and {len(candidates) - _MAX_SHOWN} more" if len(candidates) > _MAX_SHOWN else ""
    return f"{why}: {', '.join(shown)}{more}"
