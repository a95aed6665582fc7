"""Finds runs inside the folder of another run: of another framework, ``stage2/``, ``student/``.

A layout claims a folder as one run and searches no further. A folder inside may be a run of its own, if it is
not one of the run's checkpoints. Then a person has to choose. So each layout is asked once more, about the
folder without the files whose names belong to the run.
"""

from __future__ import annotations

from collections.abc import Iterable

from aml_mirror.layouts.base import Layout
from aml_mirror.layouts.generic.layout import Generic
from aml_mirror.layouts.generic.name_words import (
    CONTAINERS,
    DATA_FOLDERS,
    MODEL_WORDS,
    TRAINING_FOLDERS,
    end_of,
    is_of_checkpoints,
    step_of,
    words_of,
)
from aml_mirror.layouts.generic.training_evidence import has_config, has_log
from aml_mirror.layouts.generic.weight_files import is_weights
from aml_mirror.layouts.run_roots import LOG_FOLDERS
from aml_mirror.layouts.step_folders import word_set
from aml_mirror.sources.base import Listing
from aml_mirror.sources.tree import Tree, join

# What people and frameworks derive from a run's own policy, beside its checkpoints.
_MADE_OF_IT = word_set(
    "best merged merge export exported exports onnx ema averaged adapter adapters lora tokenizer processor "
    "deploy converted"
)
_FOLDERS = DATA_FOLDERS | TRAINING_FOLDERS
# Words by which a folder's name says that it belongs to another training than the folder around it.
_OF_ANOTHER = word_set(
    "student teacher expert distill distilled distillation stage phase finetune finetuned finetuning "
    "pretrain pretraining seed run exp experiment trial version"
)
# Words in the names of folders that people use for one callback of a training.
_OF_A_CALLBACK = word_set(
    "periodic top k topk every n regular interval hourly epoch epochs step steps train trained training val "
    "valid validation metric score callback callbacks auto keep kept intermediate milestone milestones"
)


def nested_runs(tree: Tree, root: str, layout: Layout, layouts: Iterable[Layout]) -> dict[str, Layout]:
    """Return the roots of the runs inside the run at ``root``, each with its layout.

    Args:
        tree: where the run was found.
        root: the root of the run.
        layout: the layout of the run.
        layouts: the layouts to ask, the most special first.
    """
    rest = without_own_files(tree, root)
    if rest is None:
        return {}
    found: dict[str, Layout] = {}
    for other in layouts:
        for inside in other.find(rest):
            known = any(inside == name or _overlap(inside, name) for name in found)
            if inside and not known and _is_training(rest, inside, other):
                found[inside] = other
    if not found:
        return {}
    # A layout that searches every folder has already read the contents as its own.
    own = [item.path for item in layout.read(tree.below(root)).checkpoints]
    return {
        join(root, inside): other
        for inside, other in found.items()
        if _stands_alone(rest, inside)
        or not any(_is_in(path, inside) for path in own)
        or (other is layout and _is_of_another(layout, inside, own))
    }


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _is_of_another(layout: Layout, inside: str, own: list[str]) -> bool:
    """Tell whether checkpoints in a folder belong to another training than those of the run around it.

    Args:
        layout: the layout of both.
        inside: the folder.
        own: the paths of all checkpoints that the layout reads, including those in the folder.
    """
    here = [path for path in own if _is_in(path, inside)]
    around = [path for path in own if path not in here]
    words = words_of(inside.partition("/")[0])
    if not around:
        return False
    if words & _OF_ANOTHER:
        return True
    may_differ = getattr(layout, "are_apart", None)
    return not words <= _OF_A_CALLBACK | MODEL_WORDS and may_differ is not None and may_differ(around, here)


def _overlap(one: str, other: str) -> bool:
    return one.startswith(other + "/") or other.startswith(one + "/")


def _stands_alone(rest: Tree, folder: str) -> bool:
    """Tell whether a folder has its own log or configuration beside its folder of checkpoints."""
    below = (name[:-1] for name in rest.children.get(folder, ()) if name.endswith("/"))
    has_checkpoints = any(name.lower() in CONTAINERS for name in below)
    return has_checkpoints and (has_log(rest, folder) or has_config(rest, folder))


def without_own_files(tree: Tree, root: str) -> Tree | None:
    """Return a run's tree without the files whose names belong to it; None: no weights are left."""
    run = tree.below(root)
    files = {path: entry for path, entry in run.files.items() if not _is_own(path)}
    with_weights = {path.partition("/")[0] for path in files if is_weights(path)}
    if not with_weights:
        return None
    # The run's logs must not count as the logs of a run inside it.
    files = {
        path: entry
        for path, entry in files.items()
        for first in [path.partition("/")[0]]
        if first in with_weights or first.lower() not in LOG_FOLDERS
    }
    prefix = run.root + "/" if run.root else ""
    listed = {prefix + path: entry for path, entry in files.items()}
    return Tree(run.source, Listing(listed, {}, {}), run.root)


def _is_own(path: str) -> bool:
    *folders, _ = path.split("/")
    # Files in checkpoints/ and similar folders belong to the run. Other runs may be there too:
    # checkpoints/stage2/model_10.pt.
    while folders and folders[0].lower() in CONTAINERS:
        folders.pop(0)
    if not folders:
        return True
    first = folders[0]
    words = words_of(first)
    return (
        first.lower() in _FOLDERS
        or first.isdecimal()
        or is_of_checkpoints(first)
        or (end_of(first) >= 0 and not words & _OF_ANOTHER)
        or bool(words & _MADE_OF_IT)
        or (step_of(first) is not None and bool(words & MODEL_WORDS))
    )


def _is_training(rest: Tree, folder: str, layout: Layout) -> bool:
    """Tell whether a layout found a training. A transformers model alone is not one.

    A run recognised only by names and numbers needs its own log or configuration, or a name that says so.
    """
    if layout.name == Generic.name:
        says = words_of(folder.partition("/")[0]) & _OF_ANOTHER
        hidden = any(part.startswith(".") for part in folder.split("/"))
        return bool(_stands_alone(rest, folder) or says) and not hidden
    return layout.name != "huggingface" or any(
        name.startswith("checkpoint-") or name in ("trainer_state.json", "training_args.bin")
        for name in rest.children[folder]
    )
