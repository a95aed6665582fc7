"""RSL-RL, as Isaac Lab, mjlab, Legged Gym and others use it: ``model_<iteration>.pt`` in the run's root.

``OnPolicyRunner`` writes ``model_{it}.pt`` every ``save_interval`` iterations and once more when ``learn``
ends (rsl_rl/runners/on_policy_runner.py, 1.0 to 5.5; runs of 5.5.1 seen), so that the highest number is what
training ended with: N - 1 for N iterations. Nothing is kept for its score. ``exported/policy.{pt,onnx}``,
and mjlab's ``<run>.onnx``, is what a script makes of a checkpoint, and ``git/*.diff`` notes of the code:
neither is a checkpoint.

What its player opens: the file alone. It holds ``*_state_dict`` entries, ``iter`` and ``infos``;
observation normalizers are inside. Isaac Lab's ``play.py`` and mjlab's make the environment and the network
from the task's name (scripts/reinforcement_learning/rsl_rl/play.py, mjlab/scripts/play.py).
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
