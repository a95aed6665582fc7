"""Names by which forks of a framework mark a file or folder as the end of training: ``model_final.pt``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from aml_mirror.formats.registry import suffixes_of
from aml_mirror.layouts.base import Checkpoint, RunDraft
from aml_mirror.layouts.generic.name_words import (
    DATA_FOLDERS,
    ENDS,
    MODEL_WORDS,
    TRAINING_FOLDERS,
    end_of,
    stem_of,
    step_of,
    suffix_of,
    words_of,
)
from aml_mirror.layouts.generic.weight_files import is_weights
from aml_mirror.layouts.kit.roles import leave_undecided
from aml_mirror.layouts.same_weights import is_copy
from aml_mirror.layouts.step_folders import names_in
from aml_mirror.sources.tree import Tree, join, parent

Describe = Callable[[str], Checkpoint]
"""Describes a file or folder at a path in the same way as a numbered checkpoint."""

WHY_FOREIGN = "its name says that it is the end, but the framework never writes such a name"
# torch.save writes the same under any of these names.
TORCH_SUFFIXES = suffixes_of("torch.save")
_TORCH = frozenset(TORCH_SUFFIXES)


def other_ends(names: Iterable[str], listed: Iterable[str]) -> list[str]:
    """Return the names that add ``final`` or ``last``, and nothing else, to the words of the listed ones.

    ``optimizer_last.pt`` beside ``model_100.pt`` does not count: it belongs to something else.

    Args:
        names: the files in the folder.
        listed: the files that are known to be checkpoints.
    """
    listed = list(listed)
    suffixes = {suffix_of(name) for name in listed}
    if suffixes & _TORCH:
        suffixes |= _TORCH
    known = _words(listed)
    return [
        name
        for name in names
        if end_of(name) >= 0 and suffix_of(name) in suffixes and words_of(stem_of(name)) <= known
    ]


def plain_names(names: Iterable[str]) -> list[str]:
    """Return the names that only say "model", such as ``model.pt``. A step may be stored in the file."""
    return [name for name in names if words_of(stem_of(name)) <= MODEL_WORDS and not re.search("[0-9]", name)]


def _words(names: Iterable[str]) -> frozenset[str]:
    return MODEL_WORDS.union(ENDS, *(words_of(stem_of(name)) for name in names))


def ask_about_other_ends(run: Tree, result: RunDraft, describe: Describe | None = None) -> None:
    """Mark a run as undecided if it contains an end that its framework does not write, beside its
    checkpoints.

    It is unknown whether such a file or folder is newer than the newest numbered one, unless it is a copy of
    a checkpoint. Each of them is listed, so that it can be selected, and is one of ``all``.

    Args:
        run: the run.
        result: what the layout says about it.
        describe: see :data:`Describe`; None: the file is the whole checkpoint.
    """
    if not result.checkpoints or result.undecided:
        return
    ends = unlisted_ends(run, result, describe or file_checkpoint)
    if not ends:
        return
    newest = result.checkpoints[0]
    result.checkpoints = [*ends, *result.checkpoints]
    is_file = newest.path in newest.weights
    leave_undecided(
        result, [*ends, newest], WHY_FOREIGN if is_file else WHY_FOREIGN.replace("file", "folder")
    )


def unlisted_ends(run: Tree, result: RunDraft, describe: Describe) -> list[Checkpoint]:
    """Return the ends that a layout does not list: beside its checkpoints, and in the run's root."""
    listed = [*result.checkpoints, *([result.best] if result.best else [])]
    newest = listed[0]
    known = {path for item in listed for path in (*item.files, *(left for left, _ in item.left_out))}
    places = dict.fromkeys(parent(item.path) for item in listed if item.path != ".")
    is_file = newest.path in newest.weights
    names = [item.path.rpartition("/")[2] for item in listed]
    paths: list[str] = []
    for place in (*places, "") if places else ():
        if is_file:
            unlisted = [name for name in sorted(names_in(run, place)) if join(place, name) not in known]
            paths += [join(place, name) for name in other_ends(unlisted, names)]
        paths += _folders(run, place, listed, names, known)
    found: list[Checkpoint] = []
    for path in dict.fromkeys(paths):
        end = replace(describe(path), step=None, role="periodic")
        if end.weights and not any(is_copy(run, end, item) for item in (*listed, *found)):
            found.append(end)
    return found


def _folders(
    run: Tree, place: str, listed: Sequence[Checkpoint], names: Sequence[str], known: set[str]
) -> list[str]:
    """Return the folders that are named as the end: ``final/``, ``checkpoint_last/``.

    A folder is an end if it holds weights in the same place as the newest checkpoint. If checkpoints are
    files, those in the folder are returned.
    """
    newest = listed[0]
    is_file = newest.path in newest.weights
    words = _words(names)
    suffixes = {suffix_of(path) for path in newest.weights}
    found = []
    for name in sorted(item[:-1] for item in run.children.get(place, ()) if item.endswith("/")):
        path = join(place, name)
        if end_of(name) < 0 or step_of(name) is not None or not words_of(name) <= words:
            continue
        if name.lower() in DATA_FOLDERS | TRAINING_FOLDERS:
            continue
        inside = [file for file in run.walk(path) if file not in known]
        if is_file:
            files = [
                file
                for file in inside
                if suffix_of(file) in suffixes and is_weights(file) and words_of(stem_of(file)) <= words
            ]
            if files and len(files) == len([file for file in run.walk(path) if is_weights(file)]):
                found += files
        elif any(
            run.has(join(path, file[len(newest.path) + 1 :]))
            and join(path, file[len(newest.path) + 1 :]) in inside
            for file in newest.weights
        ):
            found.append(path)
    return found


def file_checkpoint(path: str) -> Checkpoint:
    """Describe a checkpoint that is a single file."""
    return Checkpoint(path, None, "periodic", (path,), (path,))
