"""The part of TensorBoard's Event message with the scalars, described at run time.

The field numbers are those of tensorflow/core/util/event.proto, core/framework/summary.proto, tensor.proto
and tensor_shape.proto. Fields that are not described here (graphs, images, histograms) are unknown to the
parser and skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Protocol

from aml_mirror.formats.protobuf import Messages, message_class

SESSION_START = 1
SCALARS_PLUGIN = "scalars"

# The size in bytes of the submessages that are kept if a message is too large to be parsed as a whole. A
# scalar with a long tag and a long description has a few kB.
MAX_SMALL = 64 << 10
# The most bytes that are kept of one message; more than 10^5 scalars.
MAX_REDUCED = 16 << 20

_SUMMARY, _VALUE = 5, 1

# An enum has the wire format of an int32. The oneof "value" distinguishes a scalar of 0.0 from a missing
# value.
_MESSAGES: Messages = {
    "Event": {
        "wall_time": (1, "double", ""),
        "step": (2, "int64", ""),
        "summary": (_SUMMARY, "Summary", ""),
        "session_log": (7, "SessionLog", ""),
    },
    "SessionLog": {"status": (1, "int32", "")},
    "Summary": {"value": (_VALUE, "Value", "repeated")},
    "Value": {
        "tag": (1, "string", ""),
        "simple_value": (2, "float", "value"),
        "tensor": (8, "Tensor", "value"),
        "metadata": (9, "Metadata", ""),
    },
    "Metadata": {"plugin_data": (1, "PluginData", "")},
    "PluginData": {"plugin_name": (1, "string", "")},
    "Tensor": {
        "dtype": (1, "int32", ""),
        "tensor_shape": (2, "Shape", ""),
        "tensor_content": (4, "bytes", ""),
        "float_val": (5, "float", "repeated"),
        "double_val": (6, "double", "repeated"),
        "int_val": (7, "int32", "repeated"),
        "int64_val": (10, "int64", "repeated"),
        "bool_val": (11, "bool", "repeated"),
        "half_val": (13, "int32", "repeated"),
        "uint32_val": (16, "uint32", "repeated"),
        "uint64_val": (17, "uint64", "repeated"),
    },
    "Shape": {"dim": (2, "Dim", "repeated"), "unknown_rank": (3, "bool", "")},
    "Dim": {"size": (1, "int64", "")},
}


Event = message_class("event", _MESSAGES, "Event")


def between_step_and_value(tag: str) -> bytes:
    """Return the bytes between step and value of an event with wall time, step and one simple value.

    Writers put fields in the order of their numbers, so these bytes are the same in every event of a tag: the
    keys and lengths of summary and value, the tag with its key, and the key of the value, of which 4 bytes
    follow. An event with these bytes in this place has this meaning, whoever wrote it.
    """
    text = tag.encode()
    inner = b"\x0a" + _varint(len(text)) + text + b"\x15"
    value = bytes([_VALUE << 3 | 2]) + _varint(len(inner) + 4) + inner
    return bytes([_SUMMARY << 3 | 2]) + _varint(len(value) + 4) + value


def _bfloat16(data: bytes) -> float:
    # A bfloat16 is the upper half of a float32.
    (value,) = struct.unpack("<f", b"\0\0" + data)
    return float(value)


def _unpack(form: str) -> Callable[[bytes], float]:
    unpack = struct.Struct(form).unpack
    return lambda data: float(unpack(data)[0])


# tensorflow/core/framework/types.proto: dtype -> (size in bytes, field with the value, little-endian decoder
# of tensor_content). Complex numbers, strings, quantized and 8-bit floats do not count as scalars.
_DTYPES: dict[int, tuple[int, str, Callable[[bytes], float]]] = {
    1: (4, "float_val", _unpack("<f")),
    2: (8, "double_val", _unpack("<d")),
    3: (4, "int_val", _unpack("<i")),
    4: (1, "int_val", _unpack("<B")),
    5: (2, "int_val", _unpack("<h")),
    6: (1, "int_val", _unpack("<b")),
    9: (8, "int64_val", _unpack("<q")),
    10: (1, "bool_val", _unpack("<?")),
    14: (2, "half_val", _bfloat16),
    17: (2, "int_val", _unpack("<H")),
    19: (2, "half_val", _unpack("<e")),
    22: (4, "uint32_val", _unpack("<I")),
    23: (8, "uint64_val", _unpack("<Q")),
}


def tensor_value(tensor: Any) -> float | None:
    """Return the only number in a tensor; None: it has none, or several, or no numbers."""
    shape = tensor.tensor_shape
    known = _DTYPES.get(tensor.dtype)
    if known is None or shape.unknown_rank or any(dim.size != 1 for dim in shape.dim):
        return None
    size, field, decode = known
    if tensor.tensor_content:
        return decode(tensor.tensor_content) if len(tensor.tensor_content) == size else None
    values = getattr(tensor, field)
    if len(values) != 1:
        return None
    if field == "half_val":
        # Half floats are stored as the bits of an unsigned 16-bit integer.
        return decode((values[0] & 0xFFFF).to_bytes(2, "little"))
    return float(values[0])


class Body(Protocol):
    """The bytes of one message, taken from the front. ``left`` is the number of remaining bytes."""

    left: int

    def take(self, count: int) -> bytes: ...
    def skip(self, count: int) -> None: ...


def reduced(body: Body) -> bytes:
    """Take a serialised Event of any size and return it without its large parts.

    The omitted parts (images, graphs, audio, meshes) are skipped without being held in memory.

    Raises:
        ValueError: it is not a protobuf message, or more than ``MAX_REDUCED`` bytes would remain.
    """
    kept = bytearray()
    while body.left:
        number, wire, key = _key(body)
        if number == _SUMMARY and wire == 2:
            _reduce_summary(body, _length(body, body.left), kept)
        else:
            _copy_field(body, wire, key, kept, body.left)
    return bytes(kept)


def _reduce_summary(body: Body, length: int, kept: bytearray) -> None:
    # Each value stays in a separate Summary: parsers merge repeated ones.
    end = body.left - length
    while body.left > end:
        number, wire, key = _key(body)
        part = bytearray()
        _copy_field(body, wire, key, part, body.left - end)
        if number == _VALUE and part:
            kept += _varint(_SUMMARY << 3 | 2) + _varint(len(part)) + part
        if len(kept) > MAX_REDUCED:
            raise ValueError("more small values in one message than any writer makes")
    if body.left != end:
        raise ValueError("a field reaches beyond its message")


def _copy_field(body: Body, wire: int, key: bytes, kept: bytearray, room: int) -> None:
    if wire == 0:
        kept += key + _varint(_read_varint(body))
    elif wire in (1, 5):
        kept += key + body.take(8 if wire == 1 else 4)
    elif wire == 2:
        length = _length(body, room)
        if length > MAX_SMALL:
            body.skip(length)
        else:
            kept += key + _varint(length) + body.take(length)
    else:
        raise ValueError(f"wire type {wire} does not exist")
    if len(kept) > MAX_REDUCED:
        raise ValueError("more small fields in one message than any writer makes")


def _key(body: Body) -> tuple[int, int, bytes]:
    key = _read_varint(body)
    return key >> 3, key & 7, _varint(key)


def _length(body: Body, room: int) -> int:
    length = _read_varint(body)
    if length > min(room, body.left):
        raise ValueError("a field reaches beyond its message")
    return length


def _read_varint(body: Body) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = body.take(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise ValueError("a number has more than ten bytes")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
