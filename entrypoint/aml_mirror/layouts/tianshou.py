"""Tianshou: ``policy.pth`` is the best policy, ``checkpoint_<epoch>.pth`` was saved during training.

The examples of thu-ml/tianshou (0.4 to 2.0, ``examples/mujoco``, ``examples/atari``) log into
``<logdir>/<task>/<algorithm>/<seed>/<yymmdd-HHMMSS>``. At each new best mean reward of the test environments,
the trainer calls ``save_best_fn``, which overwrites ``policy.pth``. If a script passes
``save_checkpoint_fn``, that writes ``checkpoint_<epoch>.pth``, or overwrites ``checkpoint.pth``
(``atari_sac.py``). No script writes both. Nothing is saved when training ends.

Experiments of the high-level interface (``tianshou/highlevel/persistence.py``, 1.0 to 2.0) save ``policy.pt``
at each new best one, and since 2.0 also ``policy_epoch_<epoch>.pt`` during training. If only the weights are
saved, both names begin with ``policy_state_dict``. Experiments keep ``experiment.pkl`` beside them.

What inference loads: in the examples only this file (``--watch --resume-path``); the network is built from
their flags. The on-policy MuJoCo files contain ``model`` and ``obs_rms``, which is used to scale
observations. For an experiment it loads ``experiment.pkl``, the policy and, for MuJoCo, ``env_obs_rms.pkl``
(``Experiment.from_directory``, ``MujocoEnvObsRmsPersistence`` in ``examples/mujoco/mujoco_env.py``). Each
save of a policy overwrites the statistics, so older policies have none.
"""

from __future__ import annotations

import re

from aml_mirror.layouts.base import RunDraft
from aml_mirror.layouts.kit.file_layout import FileLayout
from aml_mirror.layouts.kit.roles import leave_undecided
from aml_mirror.layouts.torch_files import holds_string, pickle_of
from aml_mirror.sources.tree import Tree

_LAST = "checkpoint.pth"
_EXPERIMENT = "experiment.pkl"
# The class of what experiment.pkl holds, by its module, is the first that the pickle names.
_HEAD_BYTES = 4096
_STARTED = re.compile(r"\d{6}-\d{6}")


def _is_tianshou(run: Tree) -> bool:
    """Recognise it by the experiment, the folder, or the MuJoCo examples' files: names are common."""
    if run.has(_EXPERIMENT) and b"tianshou" in run.read(_EXPERIMENT, 0, _HEAD_BYTES):
        return True
    if _STARTED.fullmatch((run.root or run.source.name).rpartition("/")[2]):
        return True
    data = pickle_of(run, "policy.pth") if run.has("policy.pth") else b""
    return holds_string(data, "model") and holds_string(data, "obs_rms")


def _of_one_script(run: Tree, result: RunDraft) -> RunDraft:
    names = {item.path: item for item in result.checkpoints}
    last = names.pop(_LAST, None)
    if last and names and not result.undecided:
        choices = [last, *names.values()][:2]
        leave_undecided(result, choices, "no script of Tianshou writes both of these")
    return result


TIANSHOU = FileLayout(
    name="tianshou",
    numbered=r"(?:checkpoint_(?=\d+\.pth)|policy(?:_state_dict)?_epoch_(?=\d+\.pt$))(?P<step>\d{1,18})\.pth?",
    final=re.escape(_LAST),
    best=r"policy(?:\.pth|(?:_state_dict)?\.pt)",
    beside=("*.tfevents.*", _EXPERIMENT),
    accepts=_is_tianshou,
    companions=(_EXPERIMENT, "env_obs_rms.pkl"),
    refine=_of_one_script,
)
