"""RSL-RL, as Isaac Lab, mjlab, Legged Gym and others use it: ``model_<iteration>.pt`` in the run's root.

``OnPolicyRunner`` writes ``model_{it}.pt`` every ``save_interval`` iterations and once more when ``learn``
ends (rsl_rl/runners/on_policy_runner.py, 1.0 to 5.5; runs of 5.5.1 seen). So the highest number is the final
checkpoint: N - 1 for N iterations. No checkpoint is selected by a score. ``exported/policy.{pt,onnx}`` and
mjlab's ``<run>.onnx`` are exported from a checkpoint, and ``git/*.diff`` records the code. These are not
checkpoints.

What inference loads: only this file. It contains ``*_state_dict`` entries, ``iter`` and ``infos``, including
observation normalizers. ``play.py`` of Isaac Lab and mjlab build the environment and the network from the
task's name (scripts/reinforcement_learning/rsl_rl/play.py, mjlab/scripts/play.py).
"""

from __future__ import annotations

from aml_mirror.layouts.isaac_lab import params_of
from aml_mirror.layouts.kit.file_layout import FileLayout

RSL_RL = FileLayout(
    name="rsl_rl",
    numbered=r"model_(?P<step>\d{1,18})\.pt",
    holds=("iter", "infos"),
    step_key="iter",
    trust_names=True,
    params=params_of,
)
