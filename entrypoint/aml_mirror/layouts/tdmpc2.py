"""TD-MPC2: ``models/final.pt``, and ``models/<step>.pt`` of a training of many tasks.

``Logger.save_agent`` of nicklashansen/tdmpc2 (``tdmpc2/common/logger.py``, main) saves ``final.pt`` when
training ends; ``trainer/offline_trainer.py`` also saves under the step. Nothing is kept for its score.
``eval.csv`` and ``train.csv`` are in the run's root.

What its player opens: the file alone, ``evaluate.py checkpoint=…``. It holds ``model``. Task and size of the
model are told by flags (``task=``, ``model_size=``).
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
