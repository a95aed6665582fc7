"""Names by which forks of a framework say that training ended with a file: ``model_final.pt``."""

from __future__ import annotations

from collections.abc import Iterable

from aml_mirror.layouts.base import Checkpoint, RunDraft
from aml_mirror.layouts.generic.name_words import ENDS, MODEL_WORDS, end_of, stem_of, step_of, words_of
from aml_mirror.layouts.kit.roles import leave_undecided
from aml_mirror.layouts.same_weights import same_weights
from aml_mirror.layouts.step_folders import names_in
from aml_mirror.sources.tree import Tree, join, parent


def other_ends(names: Iterable[str], numbered: Iterable[str]) -> list[str]:
    """Return the names that say ``final`` or ``last``, and nothing else that numbered ones do not say.

    ``optimizer_last.pt`` beside ``model_100.pt`` is none: it is of something else.

    Args:
        names: of the files in the folder.
        numbered: those of them that are numbered checkpoints.
    """
    numbered = list(numbered)
    suffixes = {name.rpartition(".")[2] for name in numbered}
    known = MODEL_WORDS.union(ENDS, *(words_of(name) for name in numbered))
    return [
        name
        for name in names
        if end_of(name) >= 0 and name.rpartition(".")[2] in suffixes and words_of(name) <= known
    ]


def ask_about_other_ends(run: Tree, result: RunDraft) -> None:
    """Leave a run undecided that holds an end which its framework does not write, beside its checkpoints.

    Whether such a file is newer than the newest numbered one is not known. A copy of a checkpoint is none.

    Args:
        run: the run.
        result: what the layout says of it; its checkpoints are files.
    """
    if not result.checkpoints or result.undecided:
        return
    listed = [*result.checkpoints, *([result.best] if result.best else [])]
    known = {path for item in listed for path in (*item.files, *(left for left, _ in item.left_out))}
    paths = [path for item in result.checkpoints for path in item.weights]
    ends = []
    for folder in sorted({parent(path) for path in paths}):
        unlisted = [name for name in sorted(names_in(run, folder)) if join(folder, name) not in known]
        numbered = [path.rpartition("/")[2] for path in paths if parent(path) == folder]
        for name in other_ends(unlisted, numbered):
            path = join(folder, name)
            end = Checkpoint(path, None, "periodic", (path,), (path,))
            # A number of its own orders it, by the rules of the framework.
            if step_of(stem_of(name)) is None and not any(same_weights(run, end, item) for item in listed):
                ends.append(end)
    if ends:
        leave_undecided(
            result,
            [*ends, result.checkpoints[0]],
            "the framework writes no file of such a name, which says that it is the end",
        )


def ask_about_other_folders(run: Tree, result: RunDraft) -> None:
    """As :func:`ask_about_other_ends`, of a run whose checkpoints are folders: ``checkpoints/final/``.

    A folder is an end if it holds a weight file where the newest checkpoint has one.
    """
    if not result.checkpoints or result.undecided:
        return
    newest = result.checkpoints[0]
    listed = [*result.checkpoints, *([result.best] if result.best else [])]
    if newest.path == ".":
        return
    numbered = [item.path.rpartition("/")[2] for item in listed]
    known = MODEL_WORDS.union(ENDS, *map(words_of, numbered))
    inside = [path[len(newest.path) + 1 :] for path in newest.weights if path.startswith(newest.path + "/")]
    ends = []
    for name in sorted(item[:-1] for item in run.children[parent(newest.path)] if item.endswith("/")):
        path = join(parent(newest.path), name)
        weights = tuple(join(path, file) for file in inside if run.has(join(path, file)))
        if name in numbered or end_of(name) < 0 or step_of(name) is not None or not words_of(name) <= known:
            continue
        end = Checkpoint(path, None, "periodic", weights, weights)
        if weights and not any(same_weights(run, end, item) for item in listed):
            ends.append(end)
    if ends:
        leave_undecided(
            result,
            [*ends, newest],
            "the framework writes no folder of such a name, which says that it is the end",
        )
