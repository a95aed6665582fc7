"""Folders and files that a save, or a copy, had not finished."""

from __future__ import annotations

import re

FOLDER_PROBLEM = "it is a temporary folder: the save had not ended"
FILE_PROBLEM = "it is a temporary file: the save had not ended"

# A name in front of or behind which a writer put a mark until it was done: tmp_200, .200.partial,
# 200.orbax-checkpoint-tmp-1700000000.
_BEFORE = re.compile(r"(?:\.|[._]?tmp[-_.]?)(?P<name>.+)")
_BEHIND = re.compile(
    r"\.?(?P<name>.+?)[-_.~](?:orbax-checkpoint-)?(?:tmp|temp|part|partial|incomplete)(?:[-_.].*)?"
)


def name_when_done(name: str) -> str:
    """Return the name that a temporary folder or file was to get; empty: it is not temporary by its name."""
    match = _BEHIND.fullmatch(name) or _BEFORE.fullmatch(name)
    return match["name"] if match else ""
