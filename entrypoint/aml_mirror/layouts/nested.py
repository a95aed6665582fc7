"""Runs inside the folder of another run: of another framework, ``stage2/``, ``student/``.

A layout takes a folder for one run and looks no further. What is inside and is none of the run's checkpoints
may be a run of its own, and then a person has to say which is meant. So each layout is asked once more,
about the folder without what belongs to the run by its name.
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

# What people and frameworks make of a run's own policy, beside its checkpoints.
_MADE_OF_IT = word_set(
    "best merged merge export exported exports onnx ema averaged adapter adapters lora tokenizer processor "
    "deploy converted"
)
_FOLDERS = DATA_FOLDERS | TRAINING_FOLDERS
# Words by which a folder says that it is of another training than the one around it.
_OF_ANOTHER = word_set(
    "student teacher expert distill distilled distillation stage phase finetune finetuned finetuning "
    "pretrain pretraining seed run exp experiment trial version"
)
# Words of folders that people give to one callback of a training.
_OF_A_CALLBACK = word_set(
    "periodic top k topk every n regular interval hourly epoch epochs step steps train trained training val "
    "valid validation metric score callback callbacks auto keep kept intermediate milestone milestones"
)


def nested_runs(tree: Tree, root: str, layout: Layout, layouts: Iterable[Layout]) -> dict[str, Layout]:
    """Return the roots of the runs inside the run at ``root``, each with its layout.

    Args:
        tree: where the run was found.
        root: of the run.
        layout: of the run.
        layouts: those to ask, the most special first.
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
    # A layout that looks into every folder has read what is there as its own.
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
    """Tell whether checkpoints in a folder are of another training than those of the run around it.

    Args:
        layout: of both.
        inside: the folder.
        own: the paths of all checkpoints that the layout reads, those in the folder too.
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
    """Tell whether a folder has a log or a configuration of its own beside its folder of checkpoints."""
    below = (name[:-1] for name in rest.children.get(folder, ()) if name.endswith("/"))
    has_checkpoints = any(name.lower() in CONTAINERS for name in below)
    return has_checkpoints and (has_log(rest, folder) or has_config(rest, folder))


def without_own_files(tree: Tree, root: str) -> Tree | None:
    """Return a run's tree without what belongs to the run by its name; None: no weights are left."""
    run = tree.below(root)
    files = {path: entry for path, entry in run.files.items() if not _is_own(path)}
    with_weights = {path.partition("/")[0] for path in files if is_weights(path)}
    if not with_weights:
        return None
    # The run's logs are no reason to take it for what is inside it.
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
    # In checkpoints/ and its like are the run's own. Others may be there too: checkpoints/stage2/model_10.pt.
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
    """Tell whether what a layout found is of a training: a model of transformers alone is none.

    What only names and numbers tell has to have a log or a configuration of its own, or a name that says so.
    """
    if layout.name == Generic.name:
        says = words_of(folder.partition("/")[0]) & _OF_ANOTHER
        hidden = any(part.startswith(".") for part in folder.split("/"))
        return bool(_stands_alone(rest, folder) or says) and not hidden
    return layout.name != "huggingface" or any(
        name.startswith("checkpoint-") or name in ("trainer_state.json", "training_args.bin")
        for name in rest.children[folder]
    )
