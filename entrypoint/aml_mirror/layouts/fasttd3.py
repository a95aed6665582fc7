"""FastTD3: ``models/<env>__<experiment>__<seed>_<step>.pt``, with every run in one folder.

``train.py`` of younggyoseo/FastTD3 (main branch of 2025; ``save_params`` in ``fast_td3_utils.py``) saves into
``models/`` of the working directory: under the step every ``save_interval`` steps, and under ``final`` when
training ends. Environment, experiment and seed distinguish trainings. No checkpoint is selected by a score.

What inference loads: only this file (``training_notebook.ipynb``, ``fast_td3_deploy.py``). It contains
``actor_state_dict`` and the state of the observation normalizer, beside the critic's.
"""

from __future__ import annotations

from aml_mirror.layouts.kit.file_layout import FileLayout

_TRAINING = r"(?P<env>.+?)__(?P<experiment>.+)__(?P<seed>\d{1,18})"

FAST_TD3 = FileLayout(
    name="fasttd3",
    folder="models",
    optional_folder=True,
    numbered=_TRAINING + r"_(?P<step>\d{1,18})\.pt",
    final=_TRAINING + r"_final\.pt",
    holds=("actor_state_dict", "global_step"),
    trust_names=True,
)
