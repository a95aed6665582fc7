"""Tianshou: ``policy.pth`` is the best policy, ``checkpoint_<epoch>.pth`` was saved during training.

The examples of thu-ml/tianshou (0.4 to 1.2, ``examples/mujoco``, ``examples/atari``) log into
``<logdir>/<task>/<algorithm>/<seed>/<yymmdd-HHMMSS>``. At each new best mean reward of the test environments,
the trainer calls ``save_best_fn``, which overwrites ``policy.pth``. If a script passes
``save_checkpoint_fn``, that writes ``checkpoint_<epoch>.pth``, or overwrites ``checkpoint.pth``
(``atari_sac.py``). No script writes both. Nothing is saved when training ends.

What inference loads: only this file (``--watch --resume-path``). The MuJoCo files contain ``model`` and
``obs_rms``, which is used to scale observations.
"""

from __future__ import annotations

import re

from aml_mirror.layouts.base import RunDraft
from aml_mirror.layouts.kit.file_layout import FileLayout, holds_string
from aml_mirror.layouts.kit.roles import leave_undecided
from aml_mirror.layouts.torch_files import pickle_of
from aml_mirror.sources.tree import Tree

_LAST = "checkpoint.pth"
_STARTED = re.compile(r"\d{6}-\d{6}")


def _is_tianshou(run: Tree) -> bool:
    """Recognise it by the folder's name, or by what the MuJoCo examples save, not by the file's name."""
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
    numbered=r"checkpoint_(?P<step>\d{1,18})\.pth",
    final=re.escape(_LAST),
    best=r"policy\.pth",
    beside=("*.tfevents.*",),
    accepts=_is_tianshou,
    refine=_of_one_script,
)
