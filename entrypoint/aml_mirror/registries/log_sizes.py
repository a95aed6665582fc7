"""How long the logs of a version were when a mirror or an update of it began.

Both are small files beside the version. An attempt that continues another one reads no further than it did,
so that both send the same points.
"""

from __future__ import annotations

import json
from collections.abc import Callable

# The sizes when the first attempt of the mirror saw them.
LOG_SIZES = "log-sizes.json"
# The sizes when the current update began.
BEGUN = "logs-begun.json"
MAX_SIZES_BYTES = 16 << 20

Read = Callable[[str, int], bytes | None]
"""Returns a file of the version by its name; None where there is none, or it is longer than the limit."""


def begun(
    read: Read, put: Callable[[str, str], None], stamp: str | None, sizes: dict[str, int]
) -> dict[str, int]:
    """Return the sizes that this update began with, and store them if it begins now.

    Args:
        read, put: read and write a file of the version.
        stamp: the state of the logs to update. Sizes with another stamp belong to an older update.
        sizes: the current sizes of the logs in bytes, by path.
    """
    if data := read(BEGUN, MAX_SIZES_BYTES):
        stored = json.loads(data)
        if stored.get("from") == stamp:
            return {str(path): int(size) for path, size in stored["sizes"].items()}
    put(BEGUN, json.dumps({"from": stamp, "sizes": sizes}))
    return sizes


def seen_sizes(read: Read) -> list[dict[str, int]]:
    """Return all sizes that earlier attempts stored, except unreadable ones."""
    seen = []
    for name in (BEGUN, LOG_SIZES):
        try:
            stored = json.loads(read(name, MAX_SIZES_BYTES) or b"{}")
            sizes = stored["sizes"] if name == BEGUN else stored
            seen.append({str(path): int(size) for path, size in sizes.items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return seen
