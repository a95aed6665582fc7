"""Writes files in the format of torch.save without torch: a zip with the pickle and the tensors' bytes."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def save(path: Path, value: Mapping[str, Any], tensor: bytes = b"\x00" * 64) -> Path:
    """Write ``value`` (plain data) and one tensor's bytes, uncompressed like in torch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # torch names the first folder after the file, and pickles with protocol 2.
    folder = path.stem
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{folder}/data.pkl", pickle.dumps(dict(value), protocol=2))
        archive.writestr(f"{folder}/data/0", tensor)
        archive.writestr(f"{folder}/version", "3\n")
    return path


def cut(path: Path, keep: float = 0.5) -> None:
    """Keep only the first part of a file, like an interrupted copy."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
