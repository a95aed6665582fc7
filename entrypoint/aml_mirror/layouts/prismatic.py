"""Prismatic's training loop, of OpenVLA and CogACT: ``checkpoints/step-<step>-epoch-<epoch>-loss=<loss>.pt``.

``save_checkpoint`` in ``prismatic/training/strategies/`` (openvla/openvla, microsoft/CogACT; main branch)
saves each checkpoint under its step, and links or copies the newest as ``latest-checkpoint.pt``. No
checkpoint is selected by a score. Forks put the stage of the training before the name. CogACT makes no link
to the newest, and saves the state of the optimizer under the checkpoint's name with the suffix ``.optimizer``
(``fsdp.py`` there). It is needed only for further training.

What inference loads: the checkpoint and, from the run's root, ``config.json`` and
``dataset_statistics.json``, which is used to scale actions (``load_vla`` in ``prismatic/models/load.py`` and
``vla/load.py``).
"""

from __future__ import annotations

from aml_mirror.layouts.kit.file_layout import FileLayout

PRISMATIC = FileLayout(
    name="prismatic",
    folder="checkpoints",
    numbered=r"(?P<stage>(?:.+-)?)step-(?P<step>\d{1,18})-epoch-\d{1,18}-loss=(?:\d+(?:\.\d+)?|nan|inf)\.pt",
    final=r"latest-checkpoint\.pt",
    beside=("config.json", "dataset_statistics.json"),
    companions=("config.json", "config.yaml", "dataset_statistics.json"),
    left_out=(
        ("checkpoints/*.optimizer", "optimizer state"),
        ("checkpoints/*optimizer*.pt", "optimizer state"),
    ),
)
