"""TD-MPC2: ``models/final.pt``, and ``models/<step>.pt`` of a multi-task training.

``Logger.save_agent`` of nicklashansen/tdmpc2 (``tdmpc2/common/logger.py``, main branch) saves ``final.pt``
when training ends. ``trainer/offline_trainer.py`` also saves under the step. No checkpoint is selected by a
score. ``eval.csv`` and ``train.csv`` are in the run's root.

What inference loads: only this file, with ``evaluate.py checkpoint=…``. It contains ``model``. Flags set the
task and the size of the model (``task=``, ``model_size=``).
"""

from __future__ import annotations

from aml_mirror.layouts.kit.file_layout import FileLayout

TD_MPC2 = FileLayout(
    name="tdmpc2",
    folder="models",
    numbered=r"(?P<step>\d{1,18})\.pt",
    final=r"final\.pt",
    holds=("model",),
    beside=("eval.csv", "train.csv"),
)
