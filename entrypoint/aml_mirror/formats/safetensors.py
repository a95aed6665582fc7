"""safetensors: 8 bytes of header length, the header in JSON, then the tensors without gaps.

Source: the format's description in the README of github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from aml_mirror.formats.archives import Read
from aml_mirror.formats.base import Format, FormatFile, Kind, Weights

# The format allows a header of 100 MB (safetensors README). 10^5 tensors need a tenth of that. Parsing takes
# about ten times its size in memory, so this limits what a hostile file can cost.
MAX_HEADER_BYTES = 32 << 20


def read_header(read: Read, size: int) -> tuple[dict[str, Any], int]:
    """Return the header of a complete safetensors file and where its tensors begin.

    Raises:
        ValueError: the file is truncated or damaged; the message says how.
    """
    if size < 8:
        raise ValueError("it is too short for a safetensors file")
    (length,) = struct.unpack("<Q", read(0, 8))
    if length > MAX_HEADER_BYTES:
        raise ValueError("it is not a safetensors file")
    if 8 + length > size:
        raise ValueError("its header is truncated")
    try:
        header = json.loads(read(8, length))
        end = 0
        for start, stop in sorted(
            entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"
        ):
            # The format allows no gaps and no overlaps. True is an integer in Python, and 10^5000 is no valid
            # end.
            if type(start) is not int or type(stop) is not int or start != end or not end <= stop < 1 << 63:
                raise ValueError
            end = stop
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise ValueError("its safetensors header is damaged") from None
    if 8 + length + end != size:
        raise ValueError(f"it has {size} bytes, but its header says {8 + length + end}")
    return header, 8 + length


def _problem(file: FormatFile) -> str:
    try:
        read_header(file.read, file.size)
    except ValueError as error:
        return str(error)
    return ""


SAFETENSORS = Format(
    "safetensors", (".safetensors",), Kind.NO_CODE, Weights.ALWAYS, _problem, never_empty=True
)
