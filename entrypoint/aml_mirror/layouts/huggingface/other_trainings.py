"""Tells whether the checkpoints of a folder belong to two trainings, by the losses that both logged."""

from __future__ import annotations

from aml_mirror.layouts.base import Checkpoint, RunDraft
from aml_mirror.layouts.huggingface.model_roots import STATE
from aml_mirror.layouts.huggingface.trainer_files import TrainerState, has_arguments, same_arguments, state_in
from aml_mirror.layouts.kit.roles import leave_undecided
from aml_mirror.sources.tree import Tree

# A state contains the whole log, some MB in a long training. This many of the newest checkpoints, and of the
# oldest, are always read.
_LOOKED_AT = 8
# The others are read only if their arguments, some KB, differ from those of the chosen one.
_MAX_COMPARED = 64


def look_for_another_training(
    run: Tree, result: RunDraft, numbered: list[Checkpoint], newest_state: TrainerState | None
) -> None:
    """Mark the run as undecided if a numbered checkpoint belongs to another training.

    Args:
        run: the run.
        result: what is known about it; ``undecided`` and ``choices`` may be changed.
        numbered: the numbered checkpoints, newest first.
        newest_state: the state of the newest of them that has a complete one.
    """
    if not result.checkpoints:
        return
    final = result.checkpoints[0]
    reference = state_in(run, final.path, []) or newest_state
    if reference is None:
        return
    for number, item in enumerate(numbered[:_MAX_COMPARED]):
        if item.path == final.path:
            continue
        other_call = has_arguments(run, item) and not same_arguments(run, item, final)
        if number >= _LOOKED_AT and item is not numbered[-1] and not other_call:
            continue
        state = state_in(run, item.path, [])
        if state is not None and reference.is_of_same_training(state) is False:
            why = f"{final.path} and {item.path} belong to different trainings by the losses in {STATE}"
            leave_undecided(result, [final, item], why)
            return
