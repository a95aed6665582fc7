"""Finds checkpoints with the step of the final one but other weights.

A training has one policy at a step. Two that differ belong to two trainings in one folder, or one was changed
after it was saved (averaged, merged, trained further by hand). No name tells which of them a robot should
run. A framework that saves twice at one step, with an update of the weights in between, sorts these itself.
"""

from __future__ import annotations

from aml_mirror.layouts.base import RunDraft
from aml_mirror.layouts.generic.name_words import ASIDE, words_of
from aml_mirror.layouts.kit.roles import leave_undecided
from aml_mirror.layouts.same_weights import have_other_weights
from aml_mirror.sources.tree import Tree

# How many checkpoints of one step are compared. No run has more.
_MAX_COMPARED = 8


def ask_about_rivals(run: Tree, result: RunDraft) -> None:
    """Mark a run as undecided if another checkpoint has the step of the final one, but other weights.

    Args:
        run: the run.
        result: what its layout says about it; ``undecided`` and ``choices`` may be changed.
    """
    if result.undecided or not result.checkpoints:
        return
    whole = [item for item in result.checkpoints if not item.problem]
    if not whole or whole[0].step is None:
        return
    final = whole[0]
    rivals = [
        item
        for item in whole[1:]
        if item.step == final.step and not words_of(item.path) & (ASIDE - words_of(final.path))
    ]
    others = [item for item in rivals[:_MAX_COMPARED] if have_other_weights(run, final, item)]
    if others:
        leave_undecided(
            result,
            [final, *others],
            f"{len(others) + 1} checkpoints state step {final.step}, but their weights differ",
        )
