"""Finds unreadable parts of a run that may be newer than the selected checkpoint.

A layout only sees what it can read. It does not see a newest checkpoint in the archive tier, behind a link
out of the run, or under a key that nobody has here. Then an older one would be taken as the final checkpoint.
"""

from __future__ import annotations

import re

from aml_mirror.core.errors import MirrorError, Unreadable
from aml_mirror.core.run import Checkpoint, Run
from aml_mirror.formats.registry import weight_suffixes
from aml_mirror.layouts.generic.name_words import DATA_FOLDERS, ENDS, end_of, stem_of, words_of
from aml_mirror.layouts.run_roots import folders_around
from aml_mirror.sources.base import LEAVES, LOST, NO_PATH, NO_TEXT
from aml_mirror.sources.tree import Tree, join, parent

_HINT = "or select the right checkpoint with --checkpoint"


def require_none(tree: Tree, run: Run, chosen: Checkpoint | None, passed: list[str]) -> None:
    """Check that no unreadable checkpoint is newer than the selected one.

    Args:
        tree: the run.
        run: the layout's description of it.
        chosen: the checkpoint to mirror; None: there is none.
        passed: the paths of incomplete checkpoints that were skipped.

    Raises:
        MirrorError: one is newer, or may be. The error says why it cannot be read, with the matching exit
            code.
    """
    unreadable = tree.unreadable()
    left = {path: why for path, why in tree.refused.items() if why in (LEAVES, NO_PATH, NO_TEXT)}
    _require_no_lost_one(tree, chosen)
    if not unreadable and not left:
        return
    for path, why in left.items():
        if chosen and why != LEAVES and path.startswith(chosen.path.rstrip("/") + "/"):
            raise _failure(path, unreadable, left)
    for path in passed:
        for inside in (*unreadable, *left):
            if inside == path or inside.startswith(path + "/"):
                raise _failure(inside, unreadable, left)
    listed = {
        path
        for item in [*run.checkpoints, *([run.best] if run.best else [])]
        for path in (*item.files, *(other for other, _ in item.left_out))
    }
    for path in (*unreadable, *left):
        if path not in listed and _may_be_newer(re.sub("/{2,}", "/", path), chosen, left.get(path) == LEAVES):
            raise _failure(path, unreadable, left)


def _require_no_lost_one(tree: Tree, chosen: Checkpoint | None) -> None:
    """Raise if a link names a newer checkpoint than the selected one, and that checkpoint no longer exists.

    A link that broke when it was copied does not count: its target is beside it, or is older.
    """
    if chosen is None:
        return
    for path, why in tree.refused.items():
        if not why.startswith(LOST):
            continue
        named = join(parent(path), why.removeprefix(LOST))
        wholes = (chosen.path, *chosen.weights)
        if any(_is_newer(named, own) for whole in wholes for own in (whole, *folders_around(whole))):
            raise Unreadable(
                f"{path!r} is a link to {named!r}, which no longer exists and is newer than {chosen.path!r}",
                f"restore {named!r}; {_HINT}",
            )


def _is_newer(path: str, than: str) -> bool:
    return bool(_numbers(than)) and _family(path) == _family(than) and _numbers(path) > _numbers(than)


def _failure(path: str, unreadable: dict[str, MirrorError], left: dict[str, str]) -> MirrorError:
    if path in unreadable:
        return unreadable[path]
    do = "copy its target into the run" if left[path] == LEAVES else "rename it"
    return Unreadable(f"{path!r} cannot be read: {left[path]}", f"{do}; {_HINT}")


def _may_be_newer(path: str, chosen: Checkpoint | None, is_link: bool) -> bool:
    *folders, name = path.split("/")
    words = words_of(stem_of(path))
    if "best" in words or any(folder.lower() in DATA_FOLDERS for folder in folders):
        return False
    holds_weights = path.endswith(weight_suffixes())
    if chosen is None:
        return holds_weights
    for whole in (chosen.path, *chosen.weights):
        # This includes the folders around it: checkpoints/005000 for checkpoints/005000/pretrained_model.
        for own in (whole, *folders_around(whole)):
            if _numbers(own) and _family(own) == _family(path):
                return _numbers(path) > _numbers(own)
    if is_link:
        # A checkpoint that is named as the last one is usually a copy of a numbered one.
        return end_of(name) == ENDS.index("final") and parent(path) == parent(chosen.path)
    around = {_family(parent(own)) for own in (chosen.path, *chosen.weights)}
    return holds_weights and _family(parent(path)) in around


def _family(path: str) -> str:
    return re.sub("[0-9]+", "0", path)


def _numbers(path: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall("[0-9]{1,18}", path))
