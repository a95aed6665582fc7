"""Writes small files in the formats of frameworks, without using the frameworks."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any


def safetensors(path: Path, seed: int = 0, numbers: int = 16) -> Path:
    """Write a safetensors file with one float32 tensor. The same seed gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join(struct.pack("<f", seed + index) for index in range(numbers))
    header = json.dumps(
        {"weight": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, len(data)]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write a JSON file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_bytes(path: Path, data: bytes = b"x") -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
