"""Octo: ``<step>/`` of Orbax, beside the configuration of the model.

``SaveCallback`` of octo-models/octo (``octo/utils/train_callbacks.py``, main branch) saves the parameters
with an Orbax manager into ``<step>/default/``, and the state of the training into ``state/<step>``. The
highest step is the final one. No checkpoint is selected by a score.

What inference loads: the step's folder and, from the run's root, ``config.json``, ``example_batch.msgpack``
and ``dataset_statistics.json`` (``OctoModel.load_pretrained`` in ``octo/model/octo_model.py``).
"""

from __future__ import annotations

from aml_mirror.layouts.kit.folder_layout import FolderLayout

OCTO = FolderLayout(
    name="octo",
    numbered=r"(?P<step>\d{1,18})",
    inside=("default/*", "_METADATA", "*manifest.ocdbt"),
    beside=("example_batch.msgpack",),
    companions=("config.json", "example_batch.msgpack", "dataset_statistics.json"),
)
