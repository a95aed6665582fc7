"""Folders and files that a save or a copy did not finish."""

from __future__ import annotations

import re

FOLDER_PROBLEM = "it is a temporary folder: the save was not finished"
FILE_PROBLEM = "it is a temporary file: the save was not finished"

# A writer marks the name in front or behind until it has finished: tmp_200, .200.partial,
# 200.orbax-checkpoint-tmp-1700000000.
_BEFORE = re.compile(r"(?:\.|[._]?tmp[-_.]?)(?P<name>.+)")
_BEHIND = re.compile(
    r"\.?(?P<name>.+?)[-_.~](?:orbax-checkpoint-)?(?:tmp|temp|part|partial|incomplete)(?:[-_.].*)?"
)


def name_when_done(name: str) -> str:
    """Return the intended name of a temporary folder or file; empty: its name is not temporary."""
    match = _BEHIND.fullmatch(name) or _BEFORE.fullmatch(name)
    return match["name"] if match else ""
