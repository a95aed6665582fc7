"""The policy of a training that always saves under one name: ``model.pt``, ``model_best.pt``."""

from __future__ import annotations

from aml_mirror.layouts.generic.families import stand_for_numbers
from aml_mirror.layouts.generic.members import joined
from aml_mirror.layouts.generic.name_words import (
    DATA_WORDS,
    MODEL_WORDS,
    SHARD,
    TEMPORARY,
    end_of,
    is_in_data,
    is_kept_for_its_score,
    stem_of,
    step_of,
    words_of,
)
from aml_mirror.layouts.generic.training_evidence import is_training
from aml_mirror.layouts.generic.weight_files import Candidate, is_weights
from aml_mirror.layouts.step_folders import names_in
from aml_mirror.sources.tree import Tree, join

# A training that saves under one name has at most this many weight files. A folder with more is something
# else.
_MAX_LONE = 8
# The most numbered files that may be beside their end.
_MAX_SERIES = 2000


def lone(tree: Tree, folder: str) -> list[Candidate]:
    """Return the policy of a training that saves under one name, if the folder belongs to such a training.

    Several files are parts of one policy by the rules of :mod:`.members`. Otherwise each may be the policy.
    """
    names = sorted(name for name in names_in(tree, folder) if is_weights(name))
    words = [words_of(stem_of(name)) for name in names]
    if not 0 < len(names) <= _MAX_LONE or any(each & DATA_WORDS for each in words):
        return []
    if any(SHARD.fullmatch(name) for name in names) or not any(each & MODEL_WORDS for each in words):
        return []
    if not is_training(tree, folder):
        return []
    return [
        Candidate(folder, join(folder, members[0]), stem_of(members[0]), None, members)
        for members in joined(names)
    ]


def alone(tree: Tree) -> list[Candidate]:
    """Return the file that is named as the end or the best, if nothing else in the tree is a model.

    Such a name needs no word of a model and no other file beside it. Files with a number instead of the end
    belong to the same training. Other weights may be anything: if there are some, or if several folders have
    such a name, nothing is returned.
    """
    found: dict[str, list[str]] = {}
    for path in tree.files:
        folder, _, name = path.rpartition("/")
        if is_weights(name) and not is_in_data(folder):
            found.setdefault(folder, []).append(name)
            if len(found) > 1 or len(found[folder]) > _MAX_SERIES:
                return []
    ends: list[Candidate] = []
    best: list[Candidate] = []
    numbered: list[Candidate] = []
    for folder, names in found.items():
        for members in joined(names):
            stem = stem_of(members[0])
            is_best, end = is_kept_for_its_score(stem), end_of(stem)
            number = step_of(stem) if end < 0 and not is_best else None
            is_other = bool(words_of(stem) & DATA_WORDS - {"best"}) or (
                end < 0 and not is_best and number is None
            )
            if is_other or SHARD.fullmatch(members[0]):
                return []
            item = Candidate(
                folder,
                join(folder, members[0]),
                stem,
                number,
                members,
                temporary=TEMPORARY.search(stem.lower()) is not None,
                end=-1 if is_best else end,
                is_best=is_best,
            )
            (best if is_best else numbered if end < 0 else ends).append(item)
    if len(ends) + len(best) > _MAX_LONE:
        return []
    if numbered:
        return [*ends, *numbered] if ends and stand_for_numbers(ends, numbered) else []
    # If two were selected by scores, nobody knows by which score.
    return ends or [item for item in best if len(best) == 1 and not item.temporary]
