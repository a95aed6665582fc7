"""Checks whether a msgpack file is one object that ends where the file ends, without unpacking it.

flax.serialization.to_bytes writes a model as one map of maps whose leaves are arrays (extension type 1, the
bytes after a short header). Only the lengths in front of strings, bytes and extensions are followed (the
format's specification, github.com/msgpack/msgpack, spec.md). Nothing is unpacked, and no byte of the arrays
is read.
"""

from __future__ import annotations

from aml_mirror.formats.archives import Read
from aml_mirror.formats.base import Format, FormatFile, Kind, Weights

# A model has some thousand objects (names, arrays, maps). Following more in Python would be too slow.
MAX_OBJECTS = 1 << 20
# There are only a few names between two large arrays.
_WINDOW_BYTES = 16 << 10
# First byte: how many bytes of length follow, and how many bytes after these (an extension's type) the length
# does not include.
_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)} | {
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
}
# First byte: how many bytes follow. nil, false, true; floats; integers; extensions of a fixed size.
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8} | {
    **{0xCC + power: 1 << power for power in range(4)},
    **{0xD0 + power: 1 << power for power in range(4)},
    **{0xD4 + power: 1 + (1 << power) for power in range(5)},
}
# msgpack-numpy writes this before an array of objects, which it pickles: as text or as bytes.
_KIND = (b"\xa4kind", b"\xc4\x04kind")
_OBJECTS = (b"\xa1O", b"\xc4\x01O")
# First byte: how many bytes of a count follow, and how many objects each entry has.
_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def msgpack_problem(read: Read, size: int, found: set[str] | None = None) -> str:
    """Return why a file is not one complete map or array of msgpack; empty: it is one.

    If msgpack-numpy would unpickle an array, ``objects`` is added to ``found``.
    """
    after_kind = False
    head = read(0, 1)
    if not head or not (0x80 <= head[0] <= 0x9F or head[0] in _CONTAINERS):
        return "it is not a map or an array of msgpack"
    at, left, start, window = 0, 1, 0, b""
    for _ in range(MAX_OBJECTS):
        if at >= size:
            return "its msgpack has no end: the file is truncated"
        if not start <= at <= start + len(window) - len(_KIND[1]):
            start, window = at, read(at, min(_WINDOW_BYTES, size - at))
        length, inside = _measure(window[at - start : at - start + 5])
        item = window[at - start : at - start + length] if length <= len(_KIND[1]) else b""
        if after_kind and item in _OBJECTS and found is not None:
            found.add("objects")
        after_kind = item in _KIND
        if not length:
            return "its msgpack is damaged"
        at += length
        left += inside - 1
        if left == 0:
            break
    else:
        return "it contains more objects than any model"
    if at > size:
        return "its msgpack has no end: the file is truncated"
    return "" if at == size else f"it has {size} bytes, but its msgpack ends after {at}"


def _measure(head: bytes) -> tuple[int, int]:
    """Return the size of an object in bytes without the objects inside, and how many those are.

    A truncated number is less than the original, but its bytes already extend beyond the end of the file.
    """
    first = head[0]
    if first < 0x80 or first >= 0xE0:
        return 1, 0
    if first < 0xA0:
        return 1, (first & 0x0F) * (2 if first < 0x90 else 1)
    if first < 0xC0:
        return 1 + (first & 0x1F), 0
    if first in _FIXED:
        return 1 + _FIXED[first], 0
    if first in _SIZED:
        count, more = _SIZED[first]
        return 1 + count + more + int.from_bytes(head[1 : 1 + count], "big"), 0
    if first in _CONTAINERS:
        count, each = _CONTAINERS[first]
        return 1 + count, each * int.from_bytes(head[1 : 1 + count], "big")
    return 0, 0


def _problem(file: FormatFile) -> str:
    return msgpack_problem(file.read, file.size)


MSGPACK = Format("msgpack", (".msgpack",), Kind.NO_CODE, Weights.ALWAYS, _problem)
