"""rl_games: ``nn/*.pth`` below the run's root, with the best one under the plain name.

``A2CBase.train`` and ``SACAgent.train`` write these names (rl_games/common/a2c_common.py and
rl_games/algos_torch/sac_agent.py, 1.6; runs of 1.6.5 seen). NAME is ``config.name``:

- ``last_NAME_ep_E_rew_R.pth`` every ``save_frequency`` epochs;
- ``last_NAME_ep_E_rew__R_.pth`` at ``max_epochs`` (the reward is an array there; its brackets become ``_``),
  ``last_NAME_frame_F_rew__R_.pth`` at ``max_frames``, ``last_NAME_custom_stop_ep_E.pth``;
- ``NAME_ep_E_rew_R.pth`` if ``score_to_win`` ended the training;
- ``NAME.pth``, overwritten at every new best mean reward.

Older releases wrote ``last_NAMEep=Erew=R.pth``. The file also contains epoch and frame, optimizer and
normalizers.

ASE, AMP and their successors have their own training loop (``CommonAgent.train``,
ase/learning/common_agent.py of nv-tlabs/ASE; no run of it seen). It keeps no best one. It overwrites
``NAME.pth`` every ``save_frequency`` epochs and when training ends, and with ``save_intermediate`` it also
writes ``NAME_EEEEEEEE.pth``, with the epoch in eight digits. If there is no such file beside ``NAME.pth``, it
looks like rl_games' best one, and is taken as that.

Files with two different names in one folder belong to two trainings. The person has to say which one is
meant.

What inference loads: only this file (``torch_runner.py``, ``player.restore``; Isaac Lab's
scripts/reinforcement_learning/rl_games/play.py). It builds the network from the configuration of the task.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from aml_mirror.layouts.base import Checkpoint, Role, RunDraft
from aml_mirror.layouts.config_files import read_mapping
from aml_mirror.layouts.generic.name_words import end_of
from aml_mirror.layouts.isaac_lab import params_of
from aml_mirror.layouts.kit.other_ends import ask_about_other_ends
from aml_mirror.layouts.kit.roles import leave_undecided
from aml_mirror.layouts.run_roots import topmost
from aml_mirror.layouts.torch_files import pickle_of, values_of, whole_number
from aml_mirror.sources.tree import Tree, join, parent

_NUMBERED = re.compile(
    r"(?P<last>last_)?(?P<name>.+?)(?:_(?P<unit>ep|frame)_|ep=)(?P<step>\d{1,18})(?P<reward>_?rew[_=].*)?\.pth"
)
# ASE's: str(epoch_num).zfill(8).
_ASE_NUMBERED = re.compile(r"(?P<name>.+)_(?P<step>[0-9]{8})\.pth")
_LOOK_INTO = 8


@dataclass(frozen=True, slots=True)
class _Saved:
    file: str
    unit: str
    step: int
    # The order within one epoch: the same state is written once more at the end of a run.
    at_end: bool
    epoch: int | None
    frame: int | None


class RlGames:
    """rl_games' layout."""

    name = "rl_games"

    def find(self, tree: Tree) -> list[str]:
        return topmost(
            parent(folder)
            for folder, names in tree.children.items()
            if folder.rpartition("/")[2] == "nn" and _is_rl_games(tree, folder, names)
        )

    def read(self, run: Tree) -> RunDraft:
        found = RunDraft([])
        found.params = _params(run, found.warnings)
        saved, plain = [], []
        for name in run.children["nn"]:
            if (match := _NUMBERED.fullmatch(name)) and (match["last"] or match["reward"]):
                inside = values_of(run, f"nn/{name}", ("epoch", "frame"))
                saved.append(
                    _Saved(
                        name,
                        match["unit"] or "ep",
                        int(match["step"]),
                        match["last"] is None or _at_end(match["reward"] or ""),
                        whole_number(inside.get("epoch")),
                        whole_number(inside.get("frame")),
                    )
                )
            elif name.endswith(".pth"):
                plain.append(name)
        saved = _by_age(saved)
        for index, item in enumerate(saved):
            path = f"nn/{item.file}"
            role: Any = "final" if index == 0 else "periodic"
            found.checkpoints.append(Checkpoint(path, item.step, role, (path,), (path,)))
        if not saved and (of_ase := _of_ase(run, plain)):
            found.checkpoints = of_ase
            _tell_trainings_apart(found)
            ask_about_other_ends(run, found)
            return found
        _tell_trainings_apart(found)
        if best := _best_name(found.params, saved, plain):
            path = f"nn/{best}"
            unit = "frame" if saved and saved[0].unit == "frame" else "epoch"
            step = whole_number(values_of(run, path, (unit,)).get(unit))
            found.best = Checkpoint(path, step, "best", (path,), (path,))
        if not found.checkpoints and found.best:
            found.warnings.append("only the best checkpoint was kept; --checkpoint best takes it")
        if saved and plain and found.best is None:
            found.warnings.append(
                f"nn/{plain[0]} does not have the name of the run's checkpoints and was not used: it may "
                "belong to another training"
            )
        ask_about_other_ends(run, found)
        return found


def _tell_trainings_apart(run: RunDraft) -> None:
    """Mark the run as undecided if the names belong to several trainings: ``config.name`` differs."""
    newest: dict[str, Checkpoint] = {}
    for item in run.checkpoints:
        name = item.path.rpartition("/")[2]
        if match := _NUMBERED.fullmatch(name) or _ASE_NUMBERED.fullmatch(name):
            newest.setdefault(match["name"], item)
    if len(newest) > 1:
        leave_undecided(run, list(newest.values()), f"the run contains files of {len(newest)} trainings")


def _is_rl_games(tree: Tree, folder: str, names: tuple[str, ...]) -> bool:
    files = [name for name in names if name.endswith(".pth")]
    if any(match["last"] for name in files if (match := _NUMBERED.fullmatch(name))):
        return True
    for name in files[:_LOOK_INTO]:
        if data := pickle_of(tree, join(folder, name)):
            return b"last_mean_rewards" in data and b"epoch" in data
    return bool(files) and tree.has_folder(join(parent(folder), "summaries"))


def _of_ase(run: Tree, names: list[str]) -> list[Checkpoint]:
    """Return what ASE's training loop wrote, newest first; empty: no name is typical of it."""
    numbered = {name: match for name in names if (match := _ASE_NUMBERED.fullmatch(name))}
    latest = {f"{match['name']}.pth" for match in numbered.values()}.intersection(names)
    # Even if the latest cannot be read, it was still written last.
    steps: dict[str, int | None] = {name: int(match["step"]) for name, match in numbered.items()}
    for name in latest:
        steps[name] = whole_number(values_of(run, f"nn/{name}", ("epoch",)).get("epoch"))

    def age(name: str) -> tuple[float, bool, str]:
        step = steps[name]
        return (math.inf if step is None else step, name in latest, name)

    checkpoints = []
    for index, name in enumerate(sorted(steps, key=age, reverse=True)):
        path = f"nn/{name}"
        role: Role = "final" if index == 0 else "periodic"
        checkpoints.append(Checkpoint(path, steps[name], role, (path,), (path,)))
    return checkpoints


def _at_end(reward: str) -> bool:
    """Tell whether a name was given when training ended: it has an array's brackets, or no reward."""
    return not reward or reward.startswith("_rew__") or reward.endswith("-inf")


def _by_age(saved: list[_Saved]) -> list[_Saved]:
    """Sort newest first. If some names count frames and some epochs, the contents are compared."""
    epochs: list[tuple[int, int]] = []
    for item in saved:
        if item.frame is not None and item.epoch is not None:
            epochs.append((item.frame, item.epoch))
    newest = max((item.epoch or 0 for item in saved), default=0)

    def age(item: _Saved) -> tuple[int, bool, int, str]:
        epoch = item.epoch if item.epoch is not None else item.step if item.unit == "ep" else None
        if epoch is None:
            # A truncated file named by its frame is placed behind the last complete one before it.
            before = [known for frame, known in epochs if frame <= item.step]
            epoch = max(before, default=newest) + 1
        return (epoch, item.at_end, item.step, item.file)

    return sorted(saved, key=age, reverse=True)


def _best_name(params: dict[str, Any], saved: list[_Saved], plain: list[str]) -> str | None:
    """Return the file that is overwritten at each new best: the one named like the configuration."""
    if not plain:
        return None
    config = params.get("agent", {}).get("params", {})
    config = config.get("config", {}) if isinstance(config, dict) else {}
    names = [config.get("name")] if isinstance(config, dict) else []
    names += [match["name"] for item in saved if (match := _NUMBERED.fullmatch(item.file))]
    for name in names:
        if f"{name}.pth" in plain:
            return f"{name}.pth"
    # Beside numbered ones, a file with another name belongs to another training, or was derived from one of
    # them.
    if len(plain) == 1 and not saved:
        # A name that says "the end" also says that it is not the best one.
        return plain[0] if end_of(plain[0]) < 0 else None
    return None


def _params(run: Tree, warnings: list[str]) -> dict[str, Any]:
    params = params_of(run, warnings)
    # IsaacGymEnvs writes its Hydra configuration into the root instead.
    if not params and run.has("config.yaml"):
        params = {"agent": read_mapping(run, "config.yaml", warnings)}
    return params
