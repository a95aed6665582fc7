"""numpy's array files: whether one may contain objects, which are a pickle after its header."""

from __future__ import annotations

import ast
import re
from typing import Any

MAX_HEADER_BYTES = 64 << 10
_MAX_FIELDS = 10_000
# numpy's names of types that are not objects: a letter for the kind and a size, or one letter; not "O".
_PLAIN = re.compile(
    r"[<>|=]?(?:[?bBhHiIlLqQnNpPefdgFDGSUVaM]|[biufcmMSUVa][0-9]+|bool|(?:u?int|float|complex)[0-9]+)"
    r"(?:\[[0-9A-Za-z/]+\])?"
)


def holds_objects(header: bytes) -> bool:
    """Tell by its header whether an array may contain objects; True if the header cannot be read."""
    try:
        # As numpy reads it: two adjacent strings are one, "'ob' 'ject'".
        return _may_hold(ast.literal_eval(header.decode("latin-1").strip())["descr"], 0)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        return True


def _may_hold(descr: Any, depth: int) -> bool:
    if depth > 20:
        return True
    if isinstance(descr, str):
        return not _PLAIN.fullmatch(descr)
    if isinstance(descr, tuple) and len(descr) == 2:  # a type and the shape of one element
        return _may_hold(descr[0], depth + 1)
    if not isinstance(descr, list) or len(descr) > _MAX_FIELDS:
        return True
    # Fields: (name, type) or (name, type, shape); a name may be a pair of title and name.
    return any(
        not isinstance(field, tuple) or len(field) not in (2, 3) or _may_hold(field[1], depth + 1)
        for field in descr
    )
