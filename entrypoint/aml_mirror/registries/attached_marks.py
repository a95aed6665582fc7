"""The tag of a run that lists its attached points, beside those of its training. Each is sent once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

ATTACHED = "mirror.attached"
# It can hold the last 58 marks in the 1,000 characters that Azure ML accepts.
MOST = 58


def mark_of(names: Iterable[str]) -> str:
    """Return the mark of an attachment, from the names of the tags that will name it."""
    return hashlib.sha256(",".join(sorted(names)).encode()).hexdigest()[:16]


def attached_marks(tags: Mapping[str, str]) -> list[str]:
    """Return the marks in a run's tags."""
    return [one for one in tags.get(ATTACHED, "").split(",") if one]


def marks_with(marks: list[str], mark: str) -> str:
    """Return the tag's value with one more mark."""
    return ",".join([*marks, mark][-MOST:])
