"""Numbered files with names that the framework does not use: ``student_9.pt`` beside ``model_5.pt``.

They contain what the framework saves, so they belong to a second training in the same folder. The numbers of
two trainings cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aml_mirror.layouts.base import RunDraft
from aml_mirror.layouts.generic.name_words import (
    ASIDE,
    DATA_WORDS,
    is_kept_for_its_score,
    stem_of,
    step_of,
    words_of,
)
from aml_mirror.layouts.kit.other_ends import file_checkpoint
from aml_mirror.layouts.kit.roles import leave_undecided
from aml_mirror.layouts.same_weights import is_copy
from aml_mirror.sources.tree import Tree, join

# How many files are examined. Each series has its newest file among them.
_LOOKED_INTO = 8


def ask_about_other_series(
    run: Tree, result: RunDraft, base: str, names: Iterable[str], is_own: Callable[[str], bool]
) -> None:
    """Mark a run that contains such files as undecided.

    Args:
        run: the run.
        result: what the layout says about it; ``undecided`` and ``choices`` may be changed.
        base: the folder of the checkpoints.
        names: the files in it that the layout does not know.
        is_own: tells whether the file at a path contains what the framework saves.
    """
    if result.undecided or not result.checkpoints:
        return
    newest: dict[frozenset[str], tuple[int, str]] = {}
    for name in names:
        step, words = step_of(stem_of(name)), frozenset(words_of(stem_of(name)))
        if step is None or words & (DATA_WORDS | ASIDE) or is_kept_for_its_score(stem_of(name)):
            continue
        newest[words] = max(newest.get(words, (-1, "")), (step, join(base, name)))
    others = [
        other
        for _, path in sorted(newest.values(), reverse=True)[:_LOOKED_INTO]
        if is_own(path)
        for other in [file_checkpoint(path)]
        if not any(is_copy(run, other, item) for item in result.checkpoints)
    ]
    if others:
        leave_undecided(
            result,
            [result.checkpoints[0], *others],
            "the run contains several series of files, whose numbers cannot be compared",
        )
