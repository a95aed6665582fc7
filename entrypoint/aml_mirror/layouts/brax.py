"""Brax, and MuJoCo Playground's ``train_jax_ppo.py``: Orbax folders named ``<step in twelve digits>/``.

``brax.training.checkpoint.save`` (google/brax, ``brax/training/checkpoint.py``, 0.12 to the main branch of
2026) saves the parameters with Orbax into ``f"{step:012d}"``, and then writes the network configuration into
the same folder: ``ppo_network_config.json``, ``sac_network_config.json`` or ``bc_network_config.json``.
Playground saves into ``<logdir>/<env>-<time>/checkpoints``, with the environment's ``config.json`` beside the
steps (``learning/train_jax_ppo.py``). The highest step is the final one. No checkpoint is selected by a
score.

What inference loads: the folder, with ``load_policy`` in ``brax/training/agents/*/checkpoint.py``, including
the network configuration. The observation statistics are the first entry of the parameters. Playground's
``--play_only`` gets the environment from flags, and takes the highest step of the folder.
``checkpoints/config.json`` says which environment it was trained in, with the overrides of the flags. No
script reads it back. It is kept because it shows which flags to use.
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
