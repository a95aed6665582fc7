"""RLlib: ``checkpoint_<number>`` folders of a trial of Ray Tune.

``Algorithm.save_to_path`` of ray-project/ray (``rllib/algorithms/algorithm.py``, 2.7 to 2.5x; Isaac Lab
starts it through Ray) writes ``rllib_checkpoint.json``, ``algorithm_state.pkl`` and, with the new API
stack, ``learner_group/learner/rl_module/<module>/module_state.pkl``, with the old one
``policies/<policy>/policy_state.pkl``. The number in the name counts the saves of the trial, so that the
highest is the newest, but it is no step. Which one is best by a metric is in Tune's own state, a
pickle. A trial is a run of its own.

What its player opens: the whole folder, by ``Algorithm.from_checkpoint``; the filters of observations are in
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
