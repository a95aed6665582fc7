"""Stable-Baselines3: one zip file per policy, wherever the training script put it.

SB3 itself (2.x; runs of 2.9.2 seen, and of sb3-contrib) writes only through callbacks and ``save``:

- ``CheckpointCallback``: ``PREFIX_N_steps.zip``, ``PREFIX_replay_buffer_N_steps.pkl``,
  ``PREFIX_vecnormalize_N_steps.pkl``, in this order;
- ``EvalCallback``: ``best_model.zip`` at each new best mean reward, and ``evaluations.npz``;
- the logger, if configured for "csv": ``progress.csv``;
- the script itself: a zip with any name when training ends (``model.zip`` and ``model_vecnormalize.pkl`` in
  Isaac Lab, ``ENV.zip`` and ``ENV/{vecnormalize.pkl,args.yml,config.yml}`` in RL Zoo).

So a zip is recognised by its contents: ``data`` (JSON, with ``num_timesteps`` and the hyperparameters) and
``_stable_baselines3_version`` (stable_baselines3/common/save_util.py). The step is ``num_timesteps``, the
count at the time of the save, also for the best one. A name or ``evaluations.npz`` counts only if the zip
cannot be read. The final checkpoint is the one with the highest step. At the same step, the script's own file
comes before the callback's. So a copy of the best one named ``final_model.zip`` is not taken as the end. If
the files belong to several trainings, no step tells which one is meant. Files that differ in algorithm,
spaces or seed must be selected by the person. Files of a training that may only have restarted cause a
warning.

SBX, the same in JAX, writes the same files, but its policy is in ``data`` itself.

A policy trained on normalized observations cannot act without the statistics. So the ``VecNormalize`` pickle
is a companion of every checkpoint. It is also recognised by its contents, or by its name.

What inference loads: the zip, the statistics, and the run's ``params/agent.yaml``, which says whether and how
observations are normalized if there are no statistics (Isaac Lab's
scripts/reinforcement_learning/sb3/play.py, 2.x). RL Zoo reads ``ENV/config.yml``, for normalization, stacked
frames and wrappers, and ``ENV/args.yml``, for the arguments of the environment (``get_saved_hyperparams`` and
``enjoy.py`` in rl_zoo3). All of them are kept.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aml_mirror.core.errors import MirrorError
from aml_mirror.layouts.base import Checkpoint, Role, RunDraft
from aml_mirror.layouts.config_files import read_yaml
from aml_mirror.layouts.isaac_lab import params_of
from aml_mirror.layouts.kit.companions import with_companions
from aml_mirror.layouts.kit.roles import leave_undecided
from aml_mirror.layouts.run_roots import topmost, with_logs
from aml_mirror.layouts.stable_baselines3.statistics import (
    BEST,
    REPLAY,
    STEPS,
    Statistics,
    nearest,
    of_best,
    of_end,
    of_periodic,
    statistics_of,
)
from aml_mirror.layouts.stable_baselines3.trainings import Training
from aml_mirror.layouts.torch_files import archive_of, whole_number
from aml_mirror.metrics.log_files import LogFile
from aml_mirror.sources.tree import Tree, parent

_ENDS = re.compile(r"(^|[^a-z])(final|last|model|end)([^a-z]|$)", re.IGNORECASE)
# Folders that scripts make inside a run for one kind of file. A run's root is above them.
_SUBFOLDERS = frozenset(
    {"best", "best_model", "best_models", "callbacks", "checkpoint", "checkpoints", "ckpt", "ckpts", "eval"}
    | {"evaluation", "evaluations", "final", "final_model", "log", "logs", "model", "models", "saved_models"}
    | {"weights", "zips"}
)
_NUMBERED = re.compile(r"\d[km]?$", re.IGNORECASE)
_BEST_FOLDERS = frozenset({"best", "best_model"})
_LOGS = ("progress.csv", "evaluations.npz")
_SETTINGS = ("*/args.yml", "*/config.yml", "params/agent.yaml")
# `data` contains the last observations too. Images of many environments take some MB.
_MAX_DATA = 64 << 20


@dataclass(frozen=True, slots=True)
class _Zip:
    path: str
    kind: str
    step: int | None
    readable: bool
    training: Training = field(default_factory=Training)
    # A digest of the parameters (of `data`, if they are in there): equal for copies.
    contents: tuple[tuple[str, int, int], ...] = ()

    @property
    def stem(self) -> str:
        return self.path.rpartition("/")[2][: -len(".zip")]


class StableBaselines3:
    """Stable-Baselines3's layout, also as Isaac Lab and RL Zoo use it."""

    name = "stable_baselines3"
    # At the same num_timesteps, a callback saves before the last update of the weights, a script after it.
    orders_equal_steps = True

    def find(self, tree: Tree) -> list[str]:
        kinds: dict[str, set[str]] = defaultdict(set)
        doubtful: list[str] = []
        for path in tree.files:
            if path.endswith(".zip"):
                if (known := _is_saved_model(tree, path)) is None:
                    doubtful.append(path)
                elif known:
                    kinds[_root_of(path)].add(_kind(path))
        # An empty file or one without a header counts only with a name that SB3 itself uses.
        for path in doubtful:
            if _kind(path) != "other" or path.rpartition("/")[2] in ("final_model.zip", "model.zip"):
                kinds[_root_of(path)].add(_kind(path))
        return with_logs(tree, _merged(kinds))

    def are_apart(self, around: Sequence[str], inside: Sequence[str]) -> bool:
        """Tell whether files in their own folder belong to another training: their kind exists twice.

        Scripts save the callbacks' files and the final model into folders with any name.
        """
        return not set(map(_kind, around)).isdisjoint(map(_kind, inside))

    def read(self, run: Tree) -> RunDraft:
        found = RunDraft([])
        zips = [_examined(run, path) for path in run.files if path.endswith(".zip") and _belongs(run, path)]
        statistics = statistics_of(run)
        ends = [item for item in zips if item.kind != "best"]
        ends.sort(key=_age, reverse=True)
        different, apart = _other_trainings(ends)
        for index, item in enumerate(ends):
            notes = found.warnings if index == 0 else []
            role: Role = "final" if index == 0 or item in different else "periodic"
            found.checkpoints.append(_checkpoint(run, item, role, statistics, notes))
        bests = sorted((item for item in zips if item.kind == "best"), key=_best_order)
        if bests:
            found.best = _best(run, bests[0], statistics, found.warnings)
        found.checkpoints = with_companions(run, found.checkpoints, _SETTINGS)
        if found.best:
            (found.best,) = with_companions(run, [found.best], _SETTINGS)
        rivals = [] if different else _rivals(ends)
        if rivals:
            leave_undecided(
                found,
                [item for item in found.checkpoints if item.path in rivals],
                "several files of one step are named as the end of training, but their policies differ",
            )
        if different:
            found.undecided = _several(different)
            found.choices = [item.path for item in different]
            found.warnings.append(f"{found.undecided}; logs and metrics come from all of them")
        elif apart:
            found.warnings.append(
                f"{_shown(apart[1:])} {'belongs' if len(apart) == 2 else 'belong'} to another training than "
                f"{_shown(apart[:1])}, which is taken as the final checkpoint: select another with "
                "--checkpoint PATH"
            )
        _explain([item for item in ends if item not in [*different[1:], *apart[1:]]], found)
        found.logs = [path for path in run.files if path.rpartition("/")[2] in _LOGS]
        found.params = _params(run, [] if different else [*ends, *bests], found.warnings)
        return found


def _is_saved_model(tree: Tree, path: str) -> bool | None:
    """Tell whether a zip is an SB3 file; None if it is too damaged to tell."""
    archive = archive_of(tree, path)
    if archive is not None:
        return "data" in archive.members and "_stable_baselines3_version" in archive.members
    try:
        head = tree.read(path, 0, 34)
    except MirrorError:
        return None
    # `data` is the first member that SB3 writes. A truncated file still begins with it.
    if head.startswith(b"PK\x03\x04") and len(head) == 34:
        return head[26:34] == b"\x04\x00\x00\x00data"
    return None


def _belongs(run: Tree, path: str) -> bool:
    known = _is_saved_model(run, path)
    if known is None:
        return run.size(path) == 0 or _kind(path) != "other" or bool(_ENDS.search(path.rpartition("/")[2]))
    return known


def _kind(path: str) -> str:
    stem = path.rpartition("/")[2][: -len(".zip")]
    if STEPS.fullmatch(stem):
        return "periodic"
    # best/model.zip: scripts use the folder's name instead.
    alone = parent(path).rpartition("/")[2].lower() in _BEST_FOLDERS and not _NUMBERED.search(stem)
    return "best" if BEST.search(stem) or alone else "other"


def _root_of(path: str) -> str:
    folder = parent(path)
    while folder and folder.rpartition("/")[2].lower() in _SUBFOLDERS:
        folder = parent(folder)
    return folder


def _merged(kinds: dict[str, set[str]]) -> list[str]:
    """Return the roots. A folder of best policies beside one of periodic ones makes one run.

    Scripts name their folders freely. Two folders of the same kind are two runs.
    """
    beside: dict[str, list[str]] = defaultdict(list)
    for root, found in kinds.items():
        if root and "other" not in found:
            beside[parent(root)].append(root)
    roots = set(kinds)
    for above, inside in beside.items():
        if len(inside) == 2 and not kinds[inside[0]] & kinds[inside[1]]:
            roots.add(above)
    return topmost(roots)


def _examined(run: Tree, path: str) -> _Zip:
    match = STEPS.fullmatch(path.rpartition("/")[2][: -len(".zip")])
    data = _data(run, path)
    step = whole_number(data.get("num_timesteps")) if data else None
    if step is None and match:
        step = int(match["step"])
    archive = archive_of(run, path)
    if archive is None:
        return _Zip(path, _kind(path), step, readable=False)
    members = [member for member in archive.contents() if member[0].endswith("policy.pth")]
    members = members or [member for member in archive.contents() if member[0] == "data"]
    return _Zip(path, _kind(path), step, True, Training.of(data), tuple(members))


def _data(run: Tree, path: str) -> dict[str, Any]:
    archive = archive_of(run, path)
    if archive is None:
        return {}
    try:
        data = json.loads(archive.read("data", _MAX_DATA))
    except (ValueError, RecursionError, MirrorError):
        return {}
    return data if isinstance(data, dict) else {}


def _age(item: _Zip) -> tuple[bool, int, bool, bool, float, int, str]:
    # A script's own file that cannot be read comes first: it was meant to be the end of the training.
    unknown = item.step is None
    return (
        unknown and not item.readable,
        item.step if item.step is not None else -1,
        item.kind == "other",
        bool(_ENDS.search(item.stem)),
        item.training.called or 0,
        -item.path.count("/"),
        item.path,
    )


def _best_order(item: _Zip) -> tuple[bool, int, int, str]:
    # Of best_model_1000, best_model_2000, … each was better than the one before.
    return (item.stem != "best_model", item.path.count("/"), -(item.step or 0), item.path)


def _other_trainings(ends: list[_Zip]) -> tuple[list[_Zip], list[_Zip]]:
    """Return the newest, those that clearly belong to other trainings, and those that seem to.

    Each list is empty if there are none. Of the files with one prefix of CheckpointCallback, only the newest
    is examined: a training that continues leaves the older ones behind.
    """
    seen: dict[tuple[str, str], _Zip] = {}
    for item in filter(lambda item: item.readable, ends):
        match = STEPS.fullmatch(item.stem)
        seen.setdefault((parent(item.path), match["prefix"]) if match else (item.path, ""), item)
    if not seen:
        return [], []
    newest, *others = seen.values()
    different = [item for item in others if newest.training.differences(item.training)]
    apart = [item for item in others if _is_apart(newest, item)]
    return [newest, *different] if different else [], [newest, *apart] if apart else []


def _is_apart(newest: _Zip, item: _Zip) -> bool:
    if newest.contents == item.contents:
        return False
    one, other = newest.training, item.training
    if one.is_apart(other):
        return True
    if item.step is None or item.step != newest.step:
        return False
    # The callback's and the script's files of the same step come from one call of learn.
    return one.is_other_call(other) or (None in (one.called, other.called) and item.kind == "other")


def _rivals(ends: list[_Zip]) -> list[str]:
    """Return the paths of the script's own files of the newest step, if their policies differ."""
    newest = [
        item
        for item in ends
        if item.readable and item.step is not None and (item.step, item.kind) == (ends[0].step, "other")
    ]
    return [item.path for item in newest] if len({item.contents for item in newest}) > 1 else []


def _several(different: list[_Zip]) -> str:
    newest, *others = different
    reasons = [reason for item in others for reason in newest.training.differences(item.training)]
    return (
        f"the run contains several models, which differ in {', '.join(dict.fromkeys(reasons))}: "
        f"{_shown(different)}"
    )


def _shown(items: list[_Zip]) -> str:
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return ", ".join(f"{item.path} (step {item.step})" for item in items[:5]) + more


def _explain(ends: list[_Zip], found: RunDraft) -> None:
    if not ends:
        if found.best:
            found.warnings.append("only the best checkpoint was kept; --checkpoint best takes it")
        return
    newest = ends[0]
    for item in ends[1:]:
        earlier = item.step is not None and newest.step is not None and item.step < newest.step
        # The number of model_64000.zip says that it is not the end.
        if item.kind == "other" and earlier and _ENDS.search(item.stem) and not _NUMBERED.search(item.stem):
            found.warnings.append(
                f"{item.path} contains step {item.step}, but {newest.path} the later step {newest.step}: the "
                "later one is taken as the final checkpoint"
            )


def _checkpoint(
    run: Tree, item: _Zip, role: Role, statistics: list[Statistics], warnings: list[str]
) -> Checkpoint:
    companion, problem = None, ""
    if item.kind == "periodic":
        companion, problem = of_periodic(item.path, statistics)
    else:
        companion = of_end(item.path, statistics)
    if companion is None and not problem and statistics:
        companion = nearest(item.step, statistics)
        if companion is not None:
            warnings.append(
                f"{item.path} has no VecNormalize statistics of its own: {companion.path} is used"
            )
    files = [item.path] + ([companion.path] if companion else [])
    return Checkpoint(
        path=item.path,
        step=item.step,
        role=role,
        files=tuple(sorted(files)),
        weights=(item.path,),
        left_out=tuple(
            (path, "a replay buffer, needed only for further training") for path in _replay_buffers(run, item)
        ),
        problem=problem,
    )


def _best(run: Tree, item: _Zip, statistics: list[Statistics], warnings: list[str]) -> Checkpoint:
    step = item.step if item.step is not None else _best_evaluation(run)
    companion, is_own = of_best(item.path, step, statistics)
    if companion is not None and not is_own:
        warnings.append(
            f"{item.path} has no VecNormalize statistics of its own step: {companion.path} is used"
        )
    files = [item.path] + ([companion.path] if companion else [])
    return Checkpoint(item.path, step, "best", tuple(sorted(files)), (item.path,))


def _best_evaluation(run: Tree) -> int | None:
    """Return the step of the first highest mean reward, as EvalCallback computes it."""
    best: tuple[float, int] | None = None
    for path in run.files:
        if path.rpartition("/")[2] != "evaluations.npz":
            continue
        try:
            for tag, step, _, value in LogFile(run, path):
                if tag == "eval/mean_reward" and (best is None or value > best[0]):
                    best = (value, step)
        except MirrorError:
            continue
    return best[1] if best else None


def _replay_buffers(run: Tree, item: _Zip) -> list[str]:
    folder = parent(item.path)
    match = STEPS.fullmatch(item.stem)
    found = []
    for path in run.files:
        name = path.rpartition("/")[2]
        if parent(path) == folder and name.endswith(".pkl") and REPLAY.search(name):
            step = re.search(r"_(?P<step>\d{1,18})_steps\.pkl$", name)
            if (step["step"] if step else None) == (match["step"] if match else None):
                found.append(path)
    return found


def _params(run: Tree, zips: list[_Zip], warnings: list[str]) -> dict[str, Any]:
    params = params_of(run, warnings)
    for path in sorted(run.files, key=lambda item: (item.count("/"), item)):
        name = path.rpartition("/")[2]
        # RL Zoo: lists of pairs under the tag of OrderedDict.
        if name in ("args.yml", "config.yml") and name.removesuffix(".yml") not in params:
            value = _pairs(read_yaml(run, path, warnings))
            if isinstance(value, dict):
                params[name.removesuffix(".yml")] = value
    for item in zips:
        if data := _data(run, item.path):
            # Values that are not plain are in `data` as dictionaries with a pickle.
            plain = {
                key: value
                for key, value in data.items()
                if not key.startswith("_") and isinstance(value, (str, int, float, bool))
            }
            params["algorithm"] = plain
            break
    return params


def _pairs(value: Any) -> Any:
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if isinstance(value, list) and all(
        isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) for item in value
    ):
        return {item[0]: item[1] for item in value}
    return value
