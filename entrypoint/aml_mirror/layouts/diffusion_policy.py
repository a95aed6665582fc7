"""Diffusion Policy: ``checkpoints/latest.ckpt`` and the best few by a metric in the name.

Source: ``BaseWorkspace.save_checkpoint`` and ``TopKCheckpointManager`` (real-stanford/diffusion_policy, main
branch of 2023 to 2024; forks such as UMI and DP3 kept both). Every ``checkpoint_every`` epochs, a thread
overwrites ``latest.ckpt``, then possibly writes ``epoch=0100-test_mean_score=0.900.ckpt``
(``checkpoint.topk.format_str``). The file is a torch archive pickled with dill. It contains ``cfg``,
``state_dicts`` (with the EMA model, the normalizer and the optimizer) and ``pickles``, where ``global_step``
and ``epoch`` are pickles of their own. The root contains Hydra's ``.hydra/config.yaml`` and
``logs.json.txt``. ``snapshots/latest.pkl`` is a pickle of the whole workspace.

The step is ``global_step``, as in ``logs.json.txt``. If the file cannot be read, it is the step that the log
gives for the epoch in the name.

What inference loads: only this file (``eval.py``, ``eval_real_robot.py``). It contains configuration,
normalizer and EMA weights. Flags set the rates and the robot's address.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass, replace
from typing import Any

from aml_mirror.core.errors import MirrorError
from aml_mirror.formats.pickle_values import pickled_pairs
from aml_mirror.layouts.base import Checkpoint, Role, RunDraft
from aml_mirror.layouts.config_files import read_mapping
from aml_mirror.layouts.kit.other_ends import ask_about_other_ends, other_ends
from aml_mirror.layouts.kit.roles import warn_of_scores
from aml_mirror.layouts.run_roots import topmost
from aml_mirror.layouts.scores import lower_is_better
from aml_mirror.layouts.torch_files import pickle_of, whole_number
from aml_mirror.metrics.log_files import LogFile
from aml_mirror.sources.tree import Tree, join, parent

_TOP = re.compile(
    r"epoch=(?P<epoch>\d{1,18})-(?P<metric>[^=]+)=(?P<value>[-+]?(?:\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|nan|inf))"
    r"(?P<more>-.*)?\.ckpt"
)
_LATEST = "latest.ckpt"
_LOG = "logs.json.txt"
_CONFIG = ".hydra/config.yaml"
_SNAPSHOT = "snapshots/latest.pkl"
_LOOK_INTO = 8


@dataclass(frozen=True, slots=True)
class _Saved:
    path: str
    epoch: int | None
    step: int | None
    metric: str = ""
    value: float = 0.0


class DiffusionPolicy:
    """Diffusion Policy's layout."""

    name = "diffusion_policy"

    def find(self, tree: Tree) -> list[str]:
        return topmost(
            parent(folder)
            for folder, names in tree.children.items()
            if folder.rpartition("/")[2] == "checkpoints" and _is_diffusion_policy(tree, folder, names)
        )

    def read(self, run: Tree) -> RunDraft:
        found = RunDraft([])
        if run.has(_CONFIG):
            found.params = read_mapping(run, _CONFIG, found.warnings)
        if run.has(_LOG):
            found.logs = [_LOG]
        steps = _steps_of_epochs(run)
        saved = [
            _examined(run, name, steps)
            for name in run.children["checkpoints"]
            if name == _LATEST or _TOP.fullmatch(name) or _is_other_end(run, name)
        ]
        saved.sort(key=_age, reverse=True)
        for index, item in enumerate(saved):
            role: Role = "final" if index == 0 else "periodic"
            left_out: tuple[tuple[str, str], ...] = ()
            if index == 0 and run.has(_SNAPSHOT):
                left_out = ((_SNAPSHOT, "a pickle of the whole workspace, needed only for further training"),)
            found.checkpoints.append(
                Checkpoint(item.path, item.step, role, (item.path,), (item.path,), left_out)
            )
        # Files with other names were saved at fixed times, not for a score.
        if saved and all(item.metric for item in saved):
            warn_of_scores(found)
        _warn_of_old_latest(saved, found)
        if best := _best(saved, found):
            found.best = Checkpoint(best.path, best.step, "best", (best.path,), (best.path,))
        ask_about_other_ends(run, found)
        return found


def _warn_of_old_latest(saved: list[_Saved], found: RunDraft) -> None:
    """Warn if ``latest.ckpt``, which every save overwrites, is older than a checkpoint kept for its score."""
    latest = next((item for item in saved if item.path.endswith(_LATEST)), None)
    if latest is None or not saved[0].metric or _age(latest)[1] >= _age(saved[0])[1]:
        return
    newest = found.checkpoints[0]
    found.checkpoints[0] = replace(newest, role="unknown")
    found.warnings.append(
        f"{latest.path} is of epoch {latest.epoch}, before {newest.path}, so it is outdated. The "
        "training may have continued"
    )


def _is_other_end(run: Tree, name: str) -> bool:
    """Tell whether a file is an end that only forks save (final.ckpt), with the contents that are saved here.

    The step inside it tells.
    """
    return bool(other_ends([name], [_LATEST])) and _is_workspace(pickle_of(run, f"checkpoints/{name}"))


def _is_workspace(data: bytes) -> bool:
    return b"state_dicts" in data and b"pickles" in data and b"pytorch-lightning_version" not in data


def _is_diffusion_policy(tree: Tree, folder: str, names: tuple[str, ...]) -> bool:
    files = [name for name in names if name == _LATEST or _TOP.fullmatch(name)]
    for name in files[:_LOOK_INTO]:
        if data := pickle_of(tree, join(folder, name)):
            return _is_workspace(data)
    # None of them can be read, so names and neighbours have to decide. Lightning writes "last" and "step=".
    root = parent(folder)
    beside = tree.has(join(root, _LOG)) or tree.has(join(root, _CONFIG))
    return bool(files) and (beside or _LATEST in files) and not any("step=" in name for name in files)


def _examined(run: Tree, name: str, steps: dict[int, int]) -> _Saved:
    path = f"checkpoints/{name}"
    match = _TOP.fullmatch(name)
    # The configuration may use the same keys. Those of `pickles` are followed by bytes, and come last.
    pairs = pickled_pairs(pickle_of(run, path), frozenset({"global_step", "epoch"}))
    inside = {key: _number_in(value) for key, value in pairs if isinstance(value, bytes)}
    step, epoch = inside.get("global_step"), inside.get("epoch")
    if epoch is None and match:
        epoch = int(match["epoch"])
    if step is None and epoch is not None:
        step = steps.get(epoch)
    return _Saved(
        path, epoch, step, match["metric"] if match else "", float(match["value"]) if match else 0.0
    )


def _number_in(value: bytes) -> int | None:
    """Return the integer that a pickle contains, read from its opcodes."""
    try:
        numbers = [argument for opcode, argument, _ in pickletools.genops(value) if "INT" in opcode.name]
    except (ValueError, IndexError, UnicodeError, OverflowError):
        return None
    return whole_number(numbers[0]) if len(numbers) == 1 else None


def _age(item: _Saved) -> tuple[bool, int, int, bool, str]:
    # A latest.ckpt that cannot be read was being written when the training stopped, so nothing is newer.
    return (
        item.epoch is None and item.step is None,
        item.epoch if item.epoch is not None else -1,
        item.step if item.step is not None else -1,
        item.path.endswith(_LATEST),
        item.path,
    )


def _steps_of_epochs(run: Tree) -> dict[int, int]:
    """Return the last ``global_step`` of each epoch in the log: the step at which checkpoints are written."""
    steps: dict[int, int] = {}
    if not run.has(_LOG):
        return steps
    try:
        for tag, step, _, value in LogFile(run, _LOG):
            if tag == "epoch" and (epoch := whole_number(value)) is not None:
                steps[epoch] = max(step, steps.get(epoch, step))
    except MirrorError:
        pass
    return steps


def _best(saved: list[_Saved], found: RunDraft) -> _Saved | None:
    top = _dictionary(_dictionary(found.params.get("checkpoint")).get("topk"))
    monitored = top.get("monitor_key")
    scored = [item for item in saved if item.metric and item.value == item.value]
    if any(item.metric == monitored for item in scored):
        scored = [item for item in scored if item.metric == monitored]
    if not scored:
        return None
    metric = scored[0].metric
    scored = [item for item in scored if item.metric == metric]
    mode = top.get("mode") if metric == monitored else None
    sign = -1 if mode == "min" or (mode != "max" and lower_is_better(metric)) else 1
    # Of equal ones the first is the best: a later one replaces it only if it is better.
    return max(scored, key=lambda item: (sign * item.value, -(item.epoch or 0)))


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
