"""Writes logs of W&B: LevelDB's framing around messages with wandb's field numbers."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BLOCK = 32 << 10


def framed(*records: bytes) -> bytes:
    """Return a log with these records."""
    out = bytearray(b":W&B\xe1\xbe\x00")
    for record in records:
        begun = False
        while True:
            room = BLOCK - len(out) % BLOCK
            if room < 7:
                out += bytes(room)
                continue
            part, record = record[: room - 7], record[room - 7 :]
            kind = (3 if record else 4) if begun else (2 if record else 1)
            out += struct.pack("<IHB", zlib.crc32(part, zlib.crc32(bytes([kind]))), len(part), kind) + part
            begun = True
            if not record:
                break
    return bytes(out)


def field(number: int, value: bytes | int) -> bytes:
    """Return a field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value & (1 << 64) - 1)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """Return a number in protobuf's encoding."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def row(step: int, values: dict[str | tuple[str, ...], Any], time: float | None = None) -> bytes:
    """Return a record of history. A key that is a tuple is nested; a value that is already text is JSON."""
    items: dict[str | tuple[str, ...], Any] = {**values, "_step": step}
    if time is not None:
        items["_timestamp"] = time
    inner = bytearray()
    for key, value in items.items():
        names = key if isinstance(key, tuple) else (key,)
        text = value if isinstance(value, str) else json.dumps(value)
        inner += field(1, b"".join(field(2, name.encode()) for name in names) + field(16, text.encode()))
    return field(1, 7) + field(2, bytes(inner) + field(2, field(1, step)))


def defined(step_key: str, *, name: str = "", glob: str = "") -> bytes:
    """Return the record that ``define_metric`` writes."""
    inner = (field(1, name.encode()) if name else b"") + (field(2, glob.encode()) if glob else b"")
    return field(12, inner + field(4, step_key.encode()))


def wandb_log(folder: Path, identifier: str, second: str, records: Iterable[bytes], cut: int = 0) -> Path:
    """Write a log below ``folder`` where W&B writes it. The last ``cut`` bytes are missing."""
    path = folder / "wandb" / f"offline-run-{second}-{identifier}" / f"run-{identifier}.wandb"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = framed(*records)
    path.write_bytes(data[: len(data) - cut])
    return path
