"""Lightning: ``.ckpt`` files of ModelCheckpoint, which contain everything.

``lightning.pytorch.callbacks.ModelCheckpoint`` (1.x to 2.6; runs of 2.6.6 seen) writes into ``<logger's
folder>/version_N/checkpoints/``, or into its ``dirpath``: files named by a template
(``epoch=3-step=100.ckpt``; a metric with ``/`` in its name makes a folder) and ``last.ckpt``. It appends
``-v1`` to a name that exists already. ``hparams.yaml`` is in the logger's folder, and so is ``metrics.csv``
of a CSVLogger.

The name ``last.ckpt`` does not prove that it is the end. It is written, or linked, only together with another
file. The one of a stopped run stays. 2.1 could link it to the best. So each file's own ``global_step``
decides, and of equal ones ``last.ckpt`` is taken. The best one is the ``best_model_path`` that the newest
file stores for a callback with a ``monitor``. That path belongs to the training machine, so only its end is
looked up among the files. Files saved with ``save_weights_only`` have no callbacks; then the metric in the
names decides. At the same step, the name with the higher ``-v`` was written later.

What inference loads: only this file, with ``LightningModule.load_from_checkpoint``, including hyperparameters
if the module saved them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aml_mirror.formats.pickle_values import pickled_pairs
from aml_mirror.layouts.base import Checkpoint, Role, RunDraft
from aml_mirror.layouts.config_files import read_mapping
from aml_mirror.layouts.kit.other_ends import ask_about_other_ends
from aml_mirror.layouts.kit.roles import warn_of_scores
from aml_mirror.layouts.run_roots import topmost, with_logs
from aml_mirror.layouts.scores import lower_is_better
from aml_mirror.layouts.torch_files import pickle_of, whole_number
from aml_mirror.sources.tree import Tree, parent

_SUFFIX = ".ckpt"
_LAST = re.compile(r"(?:.*[-_])?last(?:-v\d{1,9})?\.ckpt")
_VERSION = re.compile(r"-v(?P<number>\d{1,9})\.ckpt$")
_NAMED = re.compile(r"(?:^|[-_/])(?:s|global_)?step=(?P<step>\d{1,18})")
_EPOCH = re.compile(r"(?:^|[-_/])epoch=(?P<epoch>\d{1,18})")
_METRIC = re.compile(
    r"(?P<name>[A-Za-z][\w/.@ ]*)=(?P<value>[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?=[-_/]|\.ckpt$|$)"
)
_FINAL = re.compile(r"(^|[^a-z])(final|end)([^a-z]|$)", re.IGNORECASE)
# The key of a callback's state (Callback._generate_state_key) contains the mode; its state does not.
_STATE_KEY = re.compile(rb"ModelCheckpoint\{'monitor': '([^'\x00-\x1f]{1,200})', 'mode': '(min|max)'")
_MARK = b"pytorch-lightning_version"
# Names of folders that people use as `dirpath`. The run is the folder around them.
_FOLDERS = frozenset(
    {"best", "checkpoint", "ckpt", "ckpts", "last", "model", "models", "periodic", "saved_models"}
    | {"snapshots", "top", "top_k", "weights"}
)
_LOGS = frozenset(("csv_logs/", "lightning_logs/", "logs/", "tb_logs/", "tensorboard/", "wandb/", ".hydra/"))
_HYDRA = ".hydra/config.yaml"
_CSV = "metrics.csv"
_KEYS = frozenset({"epoch", "global_step", "monitor", "best_model_path"})


@dataclass(frozen=True, slots=True)
class _Saved:
    path: str
    readable: bool
    step: int | None
    epoch: int | None
    # Whether the file contains callbacks: save_weights_only leaves them out.
    has_callbacks: bool
    # (monitor, best_model_path) of each callback with a `monitor`.
    best: tuple[tuple[str, str], ...]
    # monitor -> "min" or "max".
    modes: dict[str, str]
    # Whether a callback without a `monitor` also saves, by time.
    saves_by_time: bool = False

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics in the file's name."""
        inside = self.path[len(_folder(self.path)) :].lstrip("/")
        found = {match["name"]: float(match["value"]) for match in _METRIC.finditer(inside)}
        return {name: value for name, value in found.items() if name not in ("epoch", "step", "global_step")}


class Lightning:
    """Lightning's layout."""

    name = "lightning"

    def find(self, tree: Tree) -> list[str]:
        roots = set()
        known: dict[str, bool] = {}
        for path in tree.files:
            if path.endswith(_SUFFIX):
                folder = _folder(path)
                if not known.get(folder):
                    known[folder] = _is_lightning(tree, path)
                    if known[folder]:
                        roots.add(_root_of(tree, folder))
        return with_logs(tree, topmost(roots))

    def are_apart(self, around: Sequence[str], inside: Sequence[str]) -> bool:
        """Tell whether files in their own folder belong to another training: nothing contradicts it."""
        return True

    def read(self, run: Tree) -> RunDraft:
        found = RunDraft([])
        examined = [item for path in run.files if path.endswith(_SUFFIX) and (item := _examined(run, path))]
        saved = sorted(examined, key=lambda item: _age(item, examined), reverse=True)
        for index, item in enumerate(saved):
            role: Role = "final" if index == 0 else "periodic"
            found.checkpoints.append(Checkpoint(item.path, item.step, role, (item.path,), (item.path,)))
        if saved and all(_is_kept_for_score(item) for item in saved):
            warn_of_scores(found)
        if best := _best(saved, found.warnings):
            found.best = Checkpoint(best.path, best.step, "best", (best.path,), (best.path,))
        for path in sorted(run.files, key=lambda item: (item.count("/"), item)):
            if path.rpartition("/")[2] == "hparams.yaml":
                found.params = read_mapping(run, path, found.warnings)
                break
        found.logs = [path for path in run.files if path.rpartition("/")[2] == _CSV]
        if not found.params and run.has(_HYDRA):
            found.params = read_mapping(run, _HYDRA, found.warnings)
        ask_about_other_ends(run, found)
        return found


def _is_kept_for_score(item: _Saved) -> bool:
    """Tell whether a file was written because a metric improved: by its callbacks, else by its name."""
    if _LAST.fullmatch(item.name) or (_FINAL.search(item.name) and "=" not in item.name):
        return False
    return bool(item.best) and not item.saves_by_time if item.has_callbacks else bool(item.metrics)


def _is_lightning(tree: Tree, path: str) -> bool:
    if data := pickle_of(tree, path):
        return _MARK in data
    # It cannot be read. Diffusion Policy names its files latest.ckpt and epoch=0100-metric=0.9.ckpt.
    name = path.rpartition("/")[2]
    return _LAST.fullmatch(name) is not None or _NAMED.search(name) is not None


def _folder(path: str) -> str:
    """Return the ``dirpath`` of a file, without the folders made by a ``/`` in a metric's name."""
    folder = parent(path)
    while "=" in folder.rpartition("/")[2]:
        folder = parent(folder)
    return folder


def _root_of(tree: Tree, folder: str) -> str:
    parts = folder.split("/")
    if "checkpoints" in parts:
        return "/".join(parts[: len(parts) - 1 - parts[::-1].index("checkpoints")])
    above = parent(folder)
    if not folder or _has_logs(tree, folder):
        return folder
    return above if parts[-1].lower() in _FOLDERS or _has_logs(tree, above) else folder


def _has_logs(tree: Tree, folder: str) -> bool:
    return any(
        name in _LOGS or name in ("hparams.yaml", _CSV) or name.startswith("events.out.tfevents.")
        for name in tree.children.get(folder, ())
    )


def _examined(run: Tree, path: str) -> _Saved | None:
    data = pickle_of(run, path)
    if data and _MARK not in data:
        return None
    step = epoch = None
    monitor: Any = None
    has_callbacks = by_time = False
    best = []
    for key, value in pickled_pairs(data, _KEYS):
        # The dictionary begins with epoch and global_step. Later ones belong to loops and schedulers.
        if key == "epoch" and epoch is None:
            epoch = whole_number(value)
        elif key == "global_step" and step is None:
            step = whole_number(value)
        elif key == "monitor":
            monitor = value
        elif key == "best_model_path":
            has_callbacks = True
            if isinstance(monitor, str) and isinstance(value, str) and value:
                best.append((monitor, value))
            by_time = by_time or not isinstance(monitor, str)
            monitor = None
    if step is None and (named := _NAMED.search(path)):
        step = int(named["step"])
    if epoch is None and (named := _EPOCH.search(path)):
        epoch = int(named["epoch"])
    modes = {match[1].decode("utf-8", "replace"): match[2].decode() for match in _STATE_KEY.finditer(data)}
    return _Saved(path, bool(data), step, epoch, has_callbacks, tuple(best), modes, by_time)


def _age(item: _Saved, saved: list[_Saved]) -> tuple[bool, float, int, int, int, str]:
    last = _LAST.fullmatch(item.name)
    final = _FINAL.search(item.name) is not None and "=" not in item.name
    step: float = -1 if item.step is None else item.step
    if item.step is None and item.epoch is not None:
        # A file that cannot be read and has only its epoch in the name is placed right behind that epoch's
        # steps.
        step = 0.5 + max(
            (o.step for o in saved if o.step is not None and (o.epoch or 0) <= item.epoch), default=-1
        )
    unknown = item.step is None and item.epoch is None
    return (
        # A file that cannot be read was being written when the training stopped, so nothing is newer.
        unknown and (last is not None or final),
        step,
        item.epoch if item.epoch is not None else -1,
        3 if last else 2 if final else 0 if item.name.startswith((".pl_auto_save", "hpc_ckpt")) else 1,
        # "-v1" is appended to a name that exists already, so it is later.
        int(version["number"]) if (version := _VERSION.search(item.name)) else 0,
        item.path,
    )


def _best(saved: list[_Saved], warnings: list[str]) -> _Saved | None:
    for index, item in enumerate(saved):
        if not item.has_callbacks:
            continue
        if not item.best:
            return None
        monitor, path = item.best[0]
        if len(item.best) > 1:
            others = ", ".join(sorted({name for name, _ in item.best[1:]}))
            warnings.append(
                f"several callbacks keep a best checkpoint: the one for {monitor} is used, not the one for "
                f"{others}"
            )
        found = _by_end(saved, path)
        if found is None:
            warnings.append(f"the best checkpoint {path.rpartition('/')[2]} no longer exists")
            return None
        # Newer files without callbacks: a better one was saved after this state.
        newer = [other for other in saved[:index] if not other.has_callbacks and monitor in other.metrics]
        return _by_name([*newer, found], monitor, item.modes) if monitor in found.metrics else found
    names = [name for item in saved for name in item.metrics]
    return _by_name(saved, max(names, key=names.count), {}) if names else None


def _by_end(saved: list[_Saved], path: str) -> _Saved | None:
    """Return the file whose path shares the longest end with a path on another machine."""
    wanted = path.replace("\\", "/").split("/")

    def common(item: _Saved) -> int:
        count = 0
        for one, other in zip(reversed(item.path.split("/")), reversed(wanted), strict=False):
            if one != other:
                break
            count += 1
        return count

    found = max(saved, key=common, default=None)
    return found if found is not None and common(found) else None


def _by_name(saved: list[_Saved], metric: str, modes: dict[str, str]) -> _Saved | None:
    mode = modes.get(metric) or ("min" if lower_is_better(metric) else "max")
    sign = -1 if mode == "min" else 1
    scored = [item for item in saved if metric in item.metrics]
    # Of equal ones the first is the best: a later one replaces it only if it is better.
    return max(scored, key=lambda item: (sign * item.metrics[metric], -(item.step or 0)), default=None)
