"""Finds plain values in pickles without unpickling them.

The opcodes of a checkpoint's pickle show the few numbers and strings that a layout needs. Nothing is ever
unpickled, imported or called.
"""

from __future__ import annotations

import io
import pickletools
from itertools import islice
from typing import Any

# A value that a person wrote, or a path. A layout does not need longer strings.
MAX_VALUE = 4096
# A tensor takes about 25 opcodes. Python reads a million per second, and a hostile pickle has 64 million.
MAX_OPCODES = 5_000_000


def pickled_values(data: bytes, keys: frozenset[str]) -> dict[str, Any]:
    """Find plain values that follow a key in a pickle, using only its opcodes.

    For each of ``keys``, the first value of :func:`pickled_pairs` is returned.
    """
    found: dict[str, Any] = {}
    for key, value in pickled_pairs(data, keys):
        found.setdefault(key, value)
    return found


def pickled_pairs(data: bytes, keys: frozenset[str], limit: int = 10_000) -> list[tuple[str, Any]]:
    """List every one of ``keys`` in a pickle that is directly followed by a plain value, in the file's order.

    In a pickled dictionary, a key is followed by its value. A string, integer, float, boolean, None or bytes
    counts, anything else does not. Strings and bytes are cut at ``MAX_VALUE``. Protocols below 3, which torch
    writes, store bytes as a call of ``_codecs.encode`` on a latin-1 string. It is recognised, not executed. A
    damaged pickle yields the values before the damage. ``limit`` bounds the number of pairs.
    """
    found: list[tuple[str, Any]] = []
    memo: dict[int, Any] = {}
    key: str | None = None
    encoded = False
    last: Any = None
    try:
        for opcode, argument, _ in islice(pickletools.genops(io.BytesIO(data)), MAX_OPCODES):
            name = opcode.name
            if name in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
                memo[len(memo) if name == "MEMOIZE" else int(argument or 0)] = last
                continue
            if name in ("FRAME", "PROTO") or (encoded and name == "MARK"):
                continue
            if name in ("BINGET", "LONG_BINGET", "GET"):
                value = memo.get(int(argument or 0), _NOTHING)
            elif name == "GLOBAL" and argument == "_codecs encode":
                value = _ENCODE
            else:
                value = _plain(name, argument)
            last = value
            if key is not None and value is _ENCODE and not encoded:
                encoded = True
                continue
            if encoded and isinstance(value, str):
                value = value.encode("latin-1", "replace")
            if key is not None and value is not _NOTHING and value is not _ENCODE:
                found.append((key, value))
                key = None
            else:
                key = value if isinstance(value, str) and value in keys else None
            encoded = False
            if len(memo) > 1_000_000 or len(found) > limit:
                break
    except (ValueError, IndexError, EOFError, UnicodeError, OverflowError):
        pass
    return found


_NOTHING = object()
_ENCODE = object()


def _plain(opcode: str, argument: Any) -> Any:
    if opcode in ("NEWTRUE", "NEWFALSE"):
        return opcode == "NEWTRUE"
    if opcode == "NONE":
        return None
    if isinstance(argument, (str, bytes)) and opcode not in ("GLOBAL", "INST", "PERSID"):
        return argument[:MAX_VALUE]
    # Python refuses to print an integer with more than 4300 digits, so such values are not returned.
    if isinstance(argument, int) and argument.bit_length() > 64:
        return _NOTHING
    if isinstance(argument, (int, float)) and opcode.startswith(
        ("BININT", "INT", "LONG", "BINFLOAT", "FLOAT")
    ):
        return argument
    return _NOTHING
