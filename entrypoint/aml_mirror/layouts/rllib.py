"""RLlib: ``checkpoint_<number>`` folders of a trial of Ray Tune.

``Algorithm.save_to_path`` of ray-project/ray (``rllib/algorithms/algorithm.py``, 2.7 to 2.5x; Isaac Lab
starts it through Ray) writes ``rllib_checkpoint.json`` and ``algorithm_state.pkl``. With the new API stack it
also writes ``learner_group/learner/rl_module/<module>/module_state.pkl``, with the old one
``policies/<policy>/policy_state.pkl``. The number in the name counts the saves of the trial. So the highest
number is the newest, but it is not a step. Tune's own state, a pickle, says which one is best by a metric.
Each trial is a run.

What inference loads: the whole folder, with ``Algorithm.from_checkpoint``. The filters of observations are in
``env_runner/``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aml_mirror.layouts.base import RunDraft
from aml_mirror.layouts.config_files import read_mapping
from aml_mirror.layouts.kit.folder_layout import FolderLayout
from aml_mirror.sources.tree import Tree


def _without_steps(run: Tree, result: RunDraft) -> RunDraft:
    result.checkpoints = [replace(item, step=None) for item in result.checkpoints]
    return result


def _params(run: Tree, warnings: list[str]) -> dict[str, Any]:
    return read_mapping(run, "params.json", warnings) if run.has("params.json") else {}


RLLIB = FolderLayout(
    name="rllib",
    numbered=r"checkpoint_(?P<step>\d{1,18})",
    inside=("rllib_checkpoint.json", "algorithm_state.pkl"),
    weights=("*module_state.*", "*policy_state.*"),
    params=_params,
    refine=_without_steps,
)
