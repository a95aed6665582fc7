"""Distinguishes a run of no known framework from one of its checkpoints, by the contents of the folder."""

from __future__ import annotations

import re
from collections.abc import Iterable

from aml_mirror.layouts.generic.name_words import (
    CONTAINERS,
    DATA_FOLDERS,
    DATE,
    MODEL_WORDS,
    TRAINING_FOLDERS,
)
from aml_mirror.layouts.generic.weight_files import is_statistics, is_weights
from aml_mirror.layouts.run_roots import LOG_FOLDERS
from aml_mirror.layouts.step_folders import names_in
from aml_mirror.sources.tree import Tree, join, parent

# Names of a run's own configuration, in the run's root or in a folder for it.
CONFIGS = re.compile(
    r"(?:\.hydra/|params/|config/|configs/|checkpoints/)?"
    r"(?:config|args|hparams|hyperparameters|cfg|params|agent|env|train_config)\.(?:json|ya?ml)"
)
# save_pretrained writes one beside the weights of each checkpoint, so it does not indicate a training.
_OF_A_MODEL = "config.json"
# Tables of a training, with one line per step.
_TABLES = re.compile(r"(?:metrics|progress|logs?|train|training|results|scores|loss)\.(?:csv|jsonl)")

# Files in these folders, beside a folder of weights, are not another run.
_ASIDE = DATA_FOLDERS | TRAINING_FOLDERS


def has_config(tree: Tree, folder: str) -> bool:
    """Tell whether the configuration of a training is directly in a folder, or in Hydra's folder in it."""
    if tree.has_folder(join(folder, ".hydra")):
        return True
    return bool(training_configs(tree, folder))


def training_configs(tree: Tree, folder: str) -> list[str]:
    """Return the training configurations that are directly in a folder."""
    return [
        join(folder, name)
        for name in sorted(names_in(tree, folder))
        if CONFIGS.fullmatch(name) and name != _OF_A_MODEL
    ]


def has_events(tree: Tree, folder: str) -> bool:
    """Tell whether event files are directly in a folder."""
    return any(".tfevents." in name for name in names_in(tree, folder))


def has_log(tree: Tree, folder: str) -> bool:
    """Tell whether a training logged to a folder: directly, or to a subfolder named for logs."""
    if has_events(tree, folder) or any(_TABLES.fullmatch(name) for name in names_in(tree, folder)):
        return True
    below = [name[:-1] for name in tree.children.get(folder, ()) if name.endswith("/")]
    return any(name.lower() in LOG_FOLDERS and has_events(tree, join(folder, name)) for name in below)


def with_the_rest(tree: Tree, roots: Iterable[str]) -> dict[str, str]:
    """Map each root to the folder around it, if that belongs to the training and has no other folder of
    weights.

    ``{config.yaml, events…, nerfstudio_models/step-100.ckpt}``: people choose any name for such a folder, so
    its surroundings decide.
    """
    known = set(roots)
    weights = _holders({parent(path) for path in tree.files if is_weights(path)} | known, _ASIDE)
    logs = _holders({parent(path) for path in tree.files if ".tfevents." in path}, LOG_FOLDERS)
    return {root: _around(tree, root, weights, logs) for root in sorted(known)}


def _holders(folders: Iterable[str], aside: frozenset[str]) -> dict[str, set[str]]:
    """Map each folder to the names of its subfolders that are, or contain, one of the given folders."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        while folder:
            folder, _, name = folder.rpartition("/")
            if name.lower() in aside or name in found.setdefault(folder, set()):
                break
            found[folder].add(name)
    return found


def _around(tree: Tree, root: str, weights: dict[str, set[str]], logs: dict[str, set[str]]) -> str:
    if not root or has_log(tree, root):
        return root
    around, _, own = root.rpartition("/")
    others = weights.get(around, set()) - {own}
    # checkpoints/model/iter_100.pt, beside the same steps of its optimizer.
    if around.rpartition("/")[2].lower() in CONTAINERS and own.lower() in MODEL_WORDS:
        around, _, own = around.rpartition("/")
        others |= weights.get(around, set()) - {own}
    if others:
        return root
    if has_events(tree, around):
        return around
    # A run that kept no checkpoint must not lend its log to this one.
    if logs.get(around, set()) - {own} or has_config(tree, root):
        return root
    tells = any(CONFIGS.fullmatch(name) or is_statistics(name) for name in names_in(tree, around))
    return around if tells else root


def is_training(tree: Tree, folder: str) -> bool:
    """Tell whether a folder is a training's: it has configuration and log, or events and a start time."""
    if has_config(tree, folder):
        return has_log(tree, folder)
    name = (join(tree.root, folder) or tree.source.name).rpartition("/")[2]
    return bool(DATE.search(name)) and has_events(tree, folder)


def is_run(tree: Tree, folder: str) -> bool:
    """Tell whether a folder whose name is only a number is a run: a job of a sweep, a seed.

    It is a run if a training logged somewhere below it, or if its folders are named by their start time. The
    contents of its files are not examined here.
    """
    if tree.has_folder(join(folder, ".hydra")):
        return True
    if any(name.endswith("/") and DATE.search(name) for name in tree.children.get(folder, ())):
        return True
    return any(".tfevents." in path.rpartition("/")[2] for path in tree.walk(folder))


def are_runs(tree: Tree, around: str, numbered: Iterable[tuple[str, str]]) -> bool:
    """Tell whether folders (name, location) whose names are only numbers are one run each.

    They are runs if they are counted from 0 or 1, each contains the configuration of a training, and the
    folder around them has neither a configuration nor a log. A training that saves by epochs has its own
    there.
    """
    folders = [(int(name), real) for name, real in numbered if name.isdecimal()]
    numbers = sorted(number for number, _ in folders)
    if len(numbers) < 2 or numbers[0] > 1 or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return False
    if has_config(tree, around) or has_log(tree, around):
        return False
    return all(has_config(tree, real) for _, real in folders)
