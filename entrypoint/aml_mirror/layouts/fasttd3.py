"""FastTD3: ``models/<env>__<experiment>__<seed>_<step>.pt``, with every run in one folder.

``train.py`` of younggyoseo/FastTD3 (main branch of 2025 and 2026; ``save_params`` in ``fast_td3_utils.py``)
saves into ``models/`` of the working directory: under the step every ``save_interval`` steps, and under
``final`` when training ends. ``training_notebook.ipynb`` puts ``notebook_experiment`` between environment and
step. Environment, experiment and seed distinguish trainings: the second stage of ``sim2real.md`` has its own
name. No checkpoint is selected by a score.

What inference loads: only this file (``load_policy`` in ``fast_td3_deploy.py``, the notebook). It contains
``actor_state_dict``, the state of the observation normalizer, and in ``args`` the kind and size of the
network, beside the critic's.
"""

from __future__ import annotations

from aml_mirror.layouts.kit.file_layout import FileLayout

_TRAINING = r"(?P<env>.+?)(?:__(?P<experiment>.+)__(?P<seed>\d{1,18})|_(?P<notebook>notebook_experiment))"

FAST_TD3 = FileLayout(
    name="fasttd3",
    folder="models",
    optional_folder=True,
    numbered=_TRAINING + r"_(?P<step>\d{1,18})\.pt",
    final=_TRAINING + r"_final\.pt",
    holds=("actor_state_dict", "global_step"),
    trust_names=True,
)
