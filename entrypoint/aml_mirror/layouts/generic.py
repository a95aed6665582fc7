"""Any other run: directories, or files, that hold weights and have a number in their name.

This layout is asked last and must not mistake a dataset for a run, so a number alone is never enough:

- a directory counts where it holds a file of a weight format and one of three names speaks of a model: the
  directory's own (``step_1000``, ``epoch-3``), that of the folder around it (``checkpoints/1000``), or the
  file's (``1000/policy.pt``);
- a file counts (``model_1000.pt``) where its own name or the folder's does;
- names of recordings (``episode_000001``, ``chunk-000``) never count, nor of runs (``version_0``, ``seed_1``,
  a date), nor does anything inside ``data/`` or ``trajectories/``; nor a folder that has a number only and
  is a run itself: a job of a sweep, with ``.hydra``, event files or several numbered files of its own;
- without a number counts what says that training ended with it: ``policy_last.ckpt``, ``models/final.pt``,
  ``latest.pt``, ``checkpoints/final/``.

The final one is the one that says so, unless it is a copy of a numbered one or the step in it says that a
numbered one is newer; else the highest number, compared as a number (``100k`` and ``1.5M`` are numbers).
There is no best one: a name that says "best" says nothing about when it was saved, so such a checkpoint is
not taken at all.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from aml_mirror.errors import MirrorError
from aml_mirror.layouts.base import Checkpoint, Run
from aml_mirror.layouts.config_files import read_mapping
from aml_mirror.layouts.folders import names_in, same_file, same_files, subfolders, word_set
from aml_mirror.layouts.generic_files import Candidate, described, is_weights, with_companions
from aml_mirror.layouts.generic_names import (
    CONTAINERS,
    DATA_FOLDERS,
    DATA_WORDS,
    DATE,
    ENDS,
    MODEL_WORDS,
    RUN_WORDS,
    TEMPORARY,
    end_of,
    step_of,
    words_of,
)
from aml_mirror.layouts.roots import topmost, with_logs
from aml_mirror.layouts.torch_files import same_contents, values_of, whole_number
from aml_mirror.sources.tree import Tree, join

# Names of a run's own configuration, in the run's root or in a folder for it.
_CONFIGS = re.compile(
    r"(?:\.hydra/|params/|config/|configs/|checkpoints/)?"
    r"(?:config|args|hparams|hyperparameters|cfg|params|agent|env|train_config)\.(?:json|ya?ml)"
)
# cleanrl's --save-model writes NAME.cleanrl_model once, when training has ended.
_CLEANRL = ".cleanrl_model"
# Where training scripts keep a step in what they save.
_STEP_KEYS = word_set("global_step global_steps step steps iteration iter it epoch num_timesteps")
# So many of the newest numbered ones are held against one that says it is the end.
_COMPARED = 3
# How deep inside a folder its weights may lie; deeper where the name says what it is (RLlib: five).
_MAX_DEPTH = {False: 3, True: 6}
# No training keeps more numbered files in one folder; a folder with more holds data.
_MAX_FILES = 2000


class Generic:
    """See the module."""

    name = "generic"

    def find(self, tree: Tree) -> list[str]:
        roots = topmost(_root_of(candidate.folder) for candidate in _candidates(tree))
        return with_logs(tree, roots, in_named=True)

    def read(self, run: Tree) -> Run:
        result = Run([])
        found = _candidates(run)
        # Deeper down they are the run's only where it has none above: where its logs lie beside them.
        found = [item for item in found if _root_of(item.folder) == ""] or found
        ordered = sorted(found, key=lambda item: (-(item.step or 0), item.temporary, item.path))
        numbered = [described(run, item) for item in ordered if item.step is not None]
        ends = [item for item in ordered if item.step is None]
        ends.sort(key=lambda item: (not item.temporary, item.end, -item.path.count("/")))
        result.checkpoints = _compared(numbered)
        for candidate in ends:
            _add_end(run, result, described(run, candidate), numbered[:_COMPARED])
        if result.checkpoints:
            result.checkpoints[0] = replace(result.checkpoints[0], role="final")
            result.warnings.append(
                "no known framework wrote this run: its checkpoints were told by the numbers in their names"
            )
            result.checkpoints = with_companions(run, result.checkpoints)
        for path in run.files:
            if path.count("/") <= 1 and _CONFIGS.fullmatch(path):
                result.params[path.rpartition(".")[0]] = read_mapping(run, path, result.warnings)
        return result


def _root_of(folder: str) -> str:
    """Return the run's root for the folder that holds the checkpoints: the one around ``checkpoints/``."""
    parent, _, name = folder.rpartition("/")
    return parent if name.lower() in CONTAINERS else folder


def _is_data(path: str) -> bool:
    return any(part.lower() in DATA_FOLDERS for part in path.split("/"))


def _candidates(tree: Tree) -> list[Candidate]:
    below = subfolders(tree)
    found: list[Candidate] = []
    for folder in sorted(below.keys() | tree.children.keys()):
        if _is_data(folder):
            continue
        above, _, own = join(tree.root, folder).rpartition("/")
        speaks = bool(words_of(own) & MODEL_WORDS) and not words_of(own) & DATA_WORDS
        # checkpoints/TASK/300.ckpt
        inside = above.rpartition("/")[2].lower() in CONTAINERS and bool(words_of(own) - DATA_WORDS)
        folders = _folders_in(tree, folder, below.get(folder, {}), speaks)
        found += folders
        if all(item.step is None for item in folders):
            found += _files_in(tree, folder, speaks, speaks or inside)
    whole = {item.path for item in found if not item.members}
    return [
        item
        for item in found
        if not any(item.folder == path or item.folder.startswith(path + "/") for path in whole)
    ]


def _folders_in(tree: Tree, folder: str, below: dict[str, str], speaks: bool) -> list[Candidate]:
    numbered = []
    ends = []
    families: dict[str, bool] = {}
    for name, real in below.items():
        step, words, end = step_of(name), words_of(name), end_of(name)
        if (step is None and end < 0) or words & (DATA_WORDS | RUN_WORDS) or name.lower() in DATA_FOLDERS:
            continue
        if DATE.search(name) and not words & MODEL_WORDS:
            continue
        if step is not None:
            numbered.append((name, real, step))
        weights = [path[len(real) + 1 :] for path in tree.walk(real) if is_weights(path)]
        named = speaks or bool(words & MODEL_WORDS)
        weights = [path for path in weights if path.count("/") < _MAX_DEPTH[named]]
        if not named and _is_run(tree, real):
            continue
        # checkpoints/ inside a folder that is not named as one itself: the folder is a run.
        if not named and any(part.lower() in CONTAINERS for path in weights for part in path.split("/")[:-1]):
            continue
        stems = {word for path in weights for word in words_of(path.rpartition("/")[2].rpartition(".")[0])}
        # Nothing but a training writes these two.
        if any(path.endswith(("manifest.ocdbt", ".distcp")) for path in weights):
            stems = {"checkpoint"}
        if not weights or stems & DATA_WORDS:
            continue
        if step is None:
            if named or stems & MODEL_WORDS:
                temporary = bool(TEMPORARY.search(name.lower()))
                ends.append((named, Candidate(folder, real, None, (), temporary, end)))
            continue
        family = _family(name)
        # Only the file speaks of a model: then the number must be the name, or there must be several.
        if named or (stems & MODEL_WORDS and (name.isdecimal() or family in families)):
            families[family] = True
        elif stems & MODEL_WORDS:
            families[family] = False
    # A folder of the same family without weights is a checkpoint that lost them, and that is to be said.
    return [
        Candidate(folder, real, step, temporary=bool(TEMPORARY.search(name.lower())))
        for name, real, step in numbered
        if families.get(_family(name)) or (TEMPORARY.search(name.lower()) and any(families.values()))
    ] + [item for named, item in ends if named or any(families.values())]


def _is_run(tree: Tree, folder: str) -> bool:
    """Tell whether a folder that has nothing but a number is a run: a job of a sweep."""
    if tree.has_folder(join(folder, ".hydra")) or any(
        ".tfevents." in name for name in names_in(tree, folder)
    ):
        return True
    return len({item.step for item in _files_in(tree, folder, False)}) > 1


def _family(name: str) -> str:
    return re.sub(r"[0-9]+", "0", name)


def _files_in(tree: Tree, folder: str, speaks: bool, numbers: bool = False) -> list[Candidate]:
    """Find files. ``numbers``: of what has nothing but a number for a name, the place says what it is."""
    # (step, whether it is temporary, place in ENDS) -> names.
    steps: dict[tuple[int | None, bool, int], list[str]] = {}
    for name in names_in(tree, folder):
        stem = name.rpartition(".")[0]
        words = words_of(stem)
        step, end = step_of(stem), -1
        if step is None:
            end = len(ENDS) - 1 if name.endswith(_CLEANRL) else end_of(stem)
        if (step is None and end < 0) or not is_weights(name) or words & DATA_WORDS:
            continue
        if re.search(r"-of-[0-9]+", stem):
            continue
        is_named = words & MODEL_WORDS or stem.lower() in ENDS or name.endswith(_CLEANRL)
        if speaks or is_named or (numbers and stem.isdecimal()):
            steps.setdefault((step, bool(TEMPORARY.search(stem.lower())), end), []).append(name)
    if len(steps) > _MAX_FILES:
        return []
    found = []
    for (step, temporary, end), names in steps.items():
        # Several files of one step are parts of one policy; the one that names it stands for all.
        names.sort(
            key=lambda name: (not words_of(name) & {"model", "policy", "agent", "checkpoint", "ckpt"}, name)
        )
        found.append(Candidate(folder, join(folder, names[0]), step, tuple(names), temporary, end))
    return found


def _add_end(run: Tree, result: Run, end: Checkpoint, numbered: list[Checkpoint]) -> None:
    """Place one that says it is the end: first, or where the step inside it belongs; a copy nowhere."""
    if any(_same_weights(run, end, other) for other in numbered):
        return
    step = _step_inside(run, end, numbered)
    place = sum(1 for item in result.checkpoints if step is not None and (item.step or 0) > step)
    result.checkpoints.insert(place, replace(end, step=step))
    if place == 0 and numbered:
        result.warnings.append(f"by its name {end.path} is what training ended with, before any number")


def _same_weights(run: Tree, one: Checkpoint, other: Checkpoint) -> bool:
    if len(one.weights) != len(other.weights) or (one.path in one.weights) != (other.path in other.weights):
        return False
    try:
        if one.path not in one.weights:
            return same_files(run, one.weights, other.weights)
        pairs = zip(one.weights, other.weights, strict=True)
        return all(same_file(run, a, b) or same_contents(run, a, b) for a, b in pairs)
    except MirrorError:
        # One that may not be read; whether it is taken all the same is judged later.
        return False


def _step_inside(run: Tree, end: Checkpoint, numbered: list[Checkpoint]) -> int | None:
    """Return the step in a file, under a key that gives a numbered one the number of its name."""
    if not end.weights:
        return None
    inside = values_of(run, end.weights[0], _STEP_KEYS)
    for other in numbered:
        known = values_of(run, other.weights[0], _STEP_KEYS) if inside and other.weights else {}
        for key in sorted(inside.keys() & known.keys()):
            if whole_number(known[key]) == other.step is not None:
                return whole_number(inside[key])
    return None


def _compared(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Mark folders that lack weights which every other folder of the run has."""

    def inside(checkpoint: Checkpoint) -> set[str]:
        return {path[len(checkpoint.path) + 1 :] for path in checkpoint.weights}

    whole = [item for item in checkpoints if not item.problem]
    if len(whole) < 3 or any(item.path in item.weights for item in whole):
        return checkpoints
    marked: list[Checkpoint] = []
    for checkpoint in checkpoints:
        others: list[Any] = [inside(item) for item in whole if item is not checkpoint]
        missing = sorted(set.intersection(*others) - inside(checkpoint)) if others else []
        if missing and not checkpoint.problem:
            checkpoint = replace(
                checkpoint, problem=f"{missing[0]}, which the run's other checkpoints have, is missing"
            )
        marked.append(checkpoint)
    return marked
