"""What a run holds that cannot be read, and may be newer than the checkpoint that was chosen.

A layout goes by what it sees. A newest checkpoint in the archive tier, behind a link out of the run or under
a key that nobody has here looks to it like none, and an older one would become what training ended with.
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

_HINT = "or name the checkpoint that is meant with --checkpoint"


def require_none(tree: Tree, run: Run, chosen: Checkpoint | None, passed: list[str]) -> None:
    """Check that no checkpoint that cannot be read is newer than the one that was chosen.

    Args:
        tree: the run.
        run: what its layout says.
        chosen: the checkpoint to mirror; None: there is none.
        passed: paths of those that were passed over as incomplete.

    Raises:
        MirrorError: one is, or may be. It is the reason why it cannot be read, with its exit code.
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
    """Raise where a link names a newer checkpoint than the chosen one, and that checkpoint is gone.

    A link that a copy broke is none: what it names is beside it, or is older.
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
                f"{path!r} is a link to {named!r}, which is gone and is newer than {chosen.path!r}",
                f"bring {named!r} back; {_HINT}",
            )


def _is_newer(path: str, than: str) -> bool:
    return bool(_numbers(than)) and _family(path) == _family(than) and _numbers(path) > _numbers(than)


def _failure(path: str, unreadable: dict[str, MirrorError], left: dict[str, str]) -> MirrorError:
    if path in unreadable:
        return unreadable[path]
    do = "put what it leads to into the run" if left[path] == LEAVES else "rename it"
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
        # The folders around it too: checkpoints/005000 of checkpoints/005000/pretrained_model.
        for own in (whole, *folders_around(whole)):
            if _numbers(own) and _family(own) == _family(path):
                return _numbers(path) > _numbers(own)
    if is_link:
        # What says that it is the last one is most often a copy of a numbered one.
        return end_of(name) == ENDS.index("final") and parent(path) == parent(chosen.path)
    around = {_family(parent(own)) for own in (chosen.path, *chosen.weights)}
    return holds_weights and _family(parent(path)) in around


def _family(path: str) -> str:
    return re.sub("[0-9]+", "0", path)


def _numbers(path: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall("[0-9]{1,18}", path))
