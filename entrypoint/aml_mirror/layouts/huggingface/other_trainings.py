"""Tells whether the checkpoints of a folder are of two trainings, by the losses that both logged."""

from __future__ import annotations

from aml_mirror.layouts.base import Checkpoint, RunDraft
from aml_mirror.layouts.huggingface.model_roots import STATE
from aml_mirror.layouts.huggingface.trainer_files import TrainerState, has_arguments, same_arguments, state_in
from aml_mirror.layouts.kit.roles import leave_undecided
from aml_mirror.sources.tree import Tree

# A state holds the whole log, some MB in a long training: of so many of the newest checkpoints, and of the
# oldest, it is read in any case.
_LOOKED_AT = 8
# Of the others only where their arguments, some KB, are not those of the chosen one.
_MAX_COMPARED = 64


def look_for_another_training(
    run: Tree, result: RunDraft, numbered: list[Checkpoint], newest_state: TrainerState | None
) -> None:
    """Leave undecided which checkpoint is the end where a numbered one is of another training.

    Args:
        run: the run.
        result: what is known of it; ``undecided`` and ``choices`` may be changed.
        numbered: the numbered checkpoints, newest first.
        newest_state: of the newest of them that has a whole one.
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
            why = f"{final.path} and {item.path} are of different trainings, by the losses in {STATE}"
            leave_undecided(result, [final, item], why)
            return
