"""Brax, and MuJoCo Playground's ``train_jax_ppo.py``: Orbax folders named ``<step in twelve digits>/``.

``brax.training.checkpoint.save`` (google/brax, ``brax/training/checkpoint.py``, 0.12 to 0.14) saves the
parameters with Orbax into ``f"{step:012d}"``, and then writes the network configuration into the same folder:
``ppo_network_config.json`` or ``sac_network_config.json``. Playground saves into
``<logdir>/<env>-<time>/checkpoints``, with the environment's ``config.json`` beside the steps
(``learning/train_jax_ppo.py``). The highest step is the final one. No checkpoint is selected by a score.

What inference loads: the folder, with ``ppo.checkpoint.load_policy``, including the network configuration.
The observation statistics are the first entry of the parameters. Playground also reads
``checkpoints/config.json``.
"""

from __future__ import annotations

from aml_mirror.layouts.base import RunDraft
from aml_mirror.layouts.config_files import read_mapping
from aml_mirror.layouts.kit.folder_layout import FolderLayout
from aml_mirror.sources.tree import Tree

_CONFIG = "config.json"


def _with_environment(run: Tree, result: RunDraft) -> RunDraft:
    for path in (f"checkpoints/{_CONFIG}", _CONFIG):
        if run.has(path) and not result.params:
            result.params = {"env": read_mapping(run, path, result.warnings)}
    return result


BRAX = FolderLayout(
    name="brax",
    folder="checkpoints",
    optional_folder=True,
    numbered=r"(?P<step>\d{12})",
    inside=("*_network_config.json",),
    companions=(_CONFIG, f"checkpoints/{_CONFIG}"),
    refine=_with_environment,
)
