"""robomimic: ``models/model_epoch_N*.pth``, and since 0.4 ``last.pth`` beside that folder.

``robomimic/scripts/train.py`` and ``should_save_from_rollout_logs`` in ``utils/train_utils.py`` (0.2 to 0.5;
a run of 0.5.0 seen). A file's name lists every reason for writing it, in this order: ``_best_validation_V``,
then for each environment ``_ENV_return_V`` and ``_ENV_success_V``. After every epoch, ``last.pth`` is written
in place and then copied to ``last_bak.pth``. robomimic itself resumes from the copy if ``last.pth`` is
malformed. Each file contains configuration, shapes and normalization statistics. ``config.json`` is in the
root.

Other scripts write ``models/model_epoch_N.pth`` too. The first readable file tells whether robomimic wrote
it: then it contains ``algo_name``. If none is readable (all are truncated), ``config.json`` tells, or a name
that includes a reason.

What inference loads: only this file (``robomimic/scripts/run_trained_agent.py``). With
``--normalize_training_actions``, Isaac Lab trains on actions scaled to [-1, 1], and writes the scale into
``logs/normalization_params.txt``. Its ``play.py`` takes the two values as ``--norm_factor_min`` and
``--norm_factor_max`` (scripts/imitation_learning/robomimic/{train,play}.py). Without them nothing fails, but
the robot moves wrongly. So that file belongs to every checkpoint.

The best one has the highest success rate, else the highest return, else the lowest validation loss. Success
is how manipulation policies are judged and how robomimic's papers select them. Its authors found that
validation loss predicts it poorly (Mandlekar et al., "What Matters in Learning from Offline Human
Demonstrations").
"""

from __future__ import annotations

import math
import re

from aml_mirror.layouts.base import Checkpoint, NamedStep, Role, RunDraft, numbered
from aml_mirror.layouts.config_files import read_mapping
from aml_mirror.layouts.kit.companions import with_companions
from aml_mirror.layouts.kit.other_ends import ask_about_other_ends
from aml_mirror.layouts.kit.roles import warn_of_scores
from aml_mirror.layouts.run_roots import topmost
from aml_mirror.layouts.torch_files import pickle_of, values_of, whole_number
from aml_mirror.sources.tree import Tree, join, parent

_MODEL = re.compile(r"model_epoch_(?P<step>\d{1,18})(_.*)?\.pth")
_NUMBER = r"(?P<value>[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?=_|\.pth$)"
_SUCCESS = re.compile(r"_success_" + _NUMBER)
_RETURN = re.compile(r"_return_" + _NUMBER)
_VALIDATION = re.compile(r"_best_validation_" + _NUMBER)
_LAST = "last.pth"
_BACKUP = "last_bak.pth"
_NORMALIZATION = "logs/normalization_params.txt"
_LOOK_INTO = 8


class Robomimic:
    """robomimic's layout."""

    name = "robomimic"

    def find(self, tree: Tree) -> list[str]:
        roots = []
        for folder, names in tree.children.items():
            if folder.rpartition("/")[2] == "models" and _are_models(tree, folder, names):
                roots.append(parent(folder))
            elif _LAST in names and (_BACKUP in names or _is_robomimic(tree, join(folder, _LAST))):
                roots.append(folder)
        return topmost(roots)

    def read(self, run: Tree) -> RunDraft:
        models = numbered(run.children.get("models", ()), _MODEL)
        found = RunDraft(_newest_first(run, models))
        if best := _best(models):
            path = f"models/{best.name}"
            found.best = Checkpoint(path, best.step, "best", (path,), (path,))
            (found.best,) = with_companions(run, [found.best], (_NORMALIZATION,))
        found.checkpoints = with_companions(run, found.checkpoints, (_NORMALIZATION,))
        if run.has("config.json"):
            found.params = read_mapping(run, "config.json", found.warnings)
        _warn(found)
        ask_about_other_ends(run, found, lambda path: _described(run, path))
        return found


def _warn(found: RunDraft) -> None:
    """Warn if the newest checkpoint is not what robomimic writes at the end."""
    last = next((item for item in found.checkpoints if item.path == _LAST), None)
    newest = found.checkpoints[0] if found.checkpoints else None
    if newest is None or newest is last:
        return
    if last is not None and last.step is not None:
        found.warnings.append(
            f"{_LAST} contains epoch {last.step}, but {newest.path} is newer: {_LAST} is outdated and was "
            "not used"
        )
    elif all(_has_reason(item) for item in found.checkpoints):
        warn_of_scores(found)


def _has_reason(checkpoint: Checkpoint) -> bool:
    return any(pattern.search(checkpoint.path) for pattern in (_SUCCESS, _RETURN, _VALIDATION))


def _described(run: Tree, path: str) -> Checkpoint:
    (found,) = with_companions(run, [Checkpoint(path, None, "periodic", (path,), (path,))], (_NORMALIZATION,))
    return found


def _are_models(tree: Tree, folder: str, names: tuple[str, ...]) -> bool:
    models = [name for name in names if _MODEL.fullmatch(name)]
    if not models:
        return False
    root = parent(folder)
    beside = [join(root, name) for name in (_LAST, _BACKUP) if tree.has(join(root, name))]
    for path in [join(folder, name) for name in models[:_LOOK_INTO]] + beside:
        if data := pickle_of(tree, path):
            return b"algo_name" in data
    config = join(root, "config.json")
    if tree.has(config) and "algo_name" in read_mapping(tree, config, []):
        return True
    return any(pattern.search(name) for name in models for pattern in (_SUCCESS, _RETURN, _VALIDATION))


def _is_robomimic(tree: Tree, path: str) -> bool:
    data = pickle_of(tree, path)
    return b"algo_name" in data and b"env_metadata" in data


def _newest_first(run: Tree, models: list[NamedStep]) -> list[Checkpoint]:
    # (epoch, rank, path): at the same epoch, last.pth comes before the copies and the numbered file.
    order: list[tuple[float, int, str]] = [(item.step, 0, f"models/{item.name}") for item in models]
    epochs = {path: _epoch(run, path) for path in (_LAST, _BACKUP) if run.has(path)}
    last = epochs.get(_LAST)
    if _LAST in epochs:
        order.append((math.inf if last is None else last, 2, _LAST))
    if _BACKUP in epochs and last is None:
        backup = epochs[_BACKUP]
        # Only if last.pth cannot be read. Otherwise it would be listed twice.
        order.append((-1 if backup is None else backup, 1, _BACKUP))
    order.sort(reverse=True)
    checkpoints = []
    for index, (step, _, path) in enumerate(order):
        role: Role = "final" if index == 0 else "periodic"
        left_out = ((_BACKUP, "a copy of last.pth"),) if path == _LAST and _BACKUP in epochs else ()
        known = int(step) if 0 <= step < math.inf else None
        checkpoints.append(Checkpoint(path, known, role, (path,), (path,), left_out))
    return checkpoints


def _epoch(run: Tree, path: str) -> int | None:
    return whole_number(values_of(run, path, ("epoch",)).get("epoch"))


def _best(models: list[NamedStep]) -> NamedStep | None:
    for pattern, sign in ((_SUCCESS, 1), (_RETURN, 1), (_VALIDATION, -1)):
        scored = []
        for item in models:
            values = [sign * float(match["value"]) for match in pattern.finditer(item.name)]
            if values:
                # A later file was written only because it was better, or equally good (validation loss).
                scored.append((max(values), item.step, item.name))
        if scored:
            _, step, name = max(scored)
            return NamedStep(name, step)
    return None
