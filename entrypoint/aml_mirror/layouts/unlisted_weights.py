"""Warns of weights that belong to no checkpoint: ``critic_training/critic_300.pt`` beside a policy.

Either the robot does not run them, or the layout does not know them. Without a warning, nobody would notice
that they were left out. Nothing is said about what people make of a checkpoint (an export, a merged model,
averaged weights), or about files that the framework itself writes beside the checkpoints.
"""

from __future__ import annotations

from aml_mirror.formats.registry import suffixes_of
from aml_mirror.layouts.base import RunDraft
from aml_mirror.layouts.explicit_path import as_option
from aml_mirror.layouts.generic.name_words import (
    ASIDE,
    SHARD,
    TRAINING_FOLDERS,
    end_of,
    is_in_data,
    stem_of,
    step_of,
    words_of,
)
from aml_mirror.layouts.generic.policy_parts import kind_of
from aml_mirror.layouts.generic.weight_files import is_weights
from aml_mirror.layouts.run_roots import LOG_FOLDERS, folders_around
from aml_mirror.layouts.step_folders import word_set
from aml_mirror.sources.tree import Tree, parent

_MADE_OF_IT = ASIDE | word_set(
    "merge merged export exports exported onnx jit traced torchscript adapter adapters lora deploy deployed "
    "converted pretrained base backup backups old"
)
_ASIDE = LOG_FOLDERS | TRAINING_FOLDERS
# The names that save_pretrained gives to a whole model.
_SAVED = ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors")
# Exports that scripts make of a checkpoint: mjlab's <run>.onnx.
_EXPORTS = suffixes_of("ONNX", "exported program of torch", "program of ExecuTorch", "TensorFlow Lite")
_MAX_SHOWN = 3


def warn_of_unlisted_weights(run: Tree, result: RunDraft) -> None:
    """Warn of weights that belong to no checkpoint, and say how to select them."""
    if not result.checkpoints or result.undecided:
        return
    listed = [*result.checkpoints, *([result.best] if result.best else [])]
    files = {path for item in listed for path in (*item.files, *(left for left, _ in item.left_out))}
    places = {parent(path) for item in listed for path in item.weights}
    wholes = {item.path for item in listed if item.path not in item.weights}
    if "." in wholes:
        return
    found = [
        path
        for path in run.files
        if is_weights(path)
        and path not in files
        and wholes.isdisjoint(folders_around(path))
        and _speaks(path, parent(path) in places)
    ]
    if found:
        more = f" and {len(found) - _MAX_SHOWN} more" if len(found) > _MAX_SHOWN else ""
        is_or_are, it = ("is", "it") if len(found) == 1 else ("are", "the first")
        result.warnings.append(
            f"{', '.join(found[:_MAX_SHOWN])}{more} {is_or_are} in no checkpoint of this run. "
            f"To mirror {it}, pass {as_option(found[0])}"
        )


def warn_of_later_best(result: RunDraft) -> None:
    """Warn if the best checkpoint has a later step than all others, because newer ones were not kept."""
    best = result.best
    steps = [item.step for item in result.checkpoints if item.step is not None]
    if best is None or best.step is None or result.undecided or not steps:
        return
    if best.step > max(steps) and all(item.step is not None for item in result.checkpoints):
        result.warnings.append(
            f"the best checkpoint {best.path} is of step {best.step}, after {result.checkpoints[0].path}: "
            "the training continued, and newer checkpoints may be missing"
        )


def _speaks(path: str, is_beside: bool) -> bool:
    """Tell whether a path deserves a warning. ``is_beside``: a checkpoint is in the same folder."""
    *folders, name = path.split("/")
    if is_in_data(path) or any(part.lower() in _ASIDE or words_of(part) & _MADE_OF_IT for part in folders):
        return False
    stem = stem_of(name)
    if name.lower().endswith(_EXPORTS):
        return False
    if words_of(stem) & _MADE_OF_IT or SHARD.fullmatch(name):
        return False
    if kind_of(stem) == "part" or step_of(stem) is not None:
        return True
    # A model in the root, and a copy beside the numbered ones, are left to the layout.
    return not is_beside and (end_of(stem) >= 0 or kind_of(stem) != "" or (name in _SAVED and bool(folders)))
