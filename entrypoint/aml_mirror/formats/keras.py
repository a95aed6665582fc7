"""Keras 3: a zip archive with ``config.json``, ``metadata.json`` and the weights.

Source: keras/src/saving/saving_lib.py.
"""

from __future__ import annotations

from aml_mirror.formats.archives import Archive
from aml_mirror.formats.base import Format, FormatFile, Kind, Weights


def _problem(file: FormatFile) -> str:
    try:
        archive = Archive(file.read, file.size)
    except ValueError as error:
        return str(error)
    if "config.json" not in archive.members:
        return "it is a zip archive, but not from Keras: config.json is missing"
    if not any(name.startswith("model.weights.") for name in archive.members):
        return "it is a zip archive from Keras, but without model.weights.h5"
    return ""


KERAS = Format("Keras", (".keras",), Kind.CODE, Weights.ALWAYS, _problem, run_by="Keras")
