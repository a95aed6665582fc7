"""The tag of a run that tells whose points it has, beside those of its training: each is sent once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

ATTACHED = "mirror.attached"
# It has room for the last 58 in the 1,000 characters that Azure ML takes.
MOST = 58


def mark_of(names: Iterable[str]) -> str:
    """Return the mark of what is attached, from the names of the tags that will name it."""
    return hashlib.sha256(",".join(sorted(names)).encode()).hexdigest()[:16]


def attached_marks(tags: Mapping[str, str]) -> list[str]:
    """Return the marks that a run's tags have."""
    return [one for one in tags.get(ATTACHED, "").split(",") if one]


def marks_with(marks: list[str], mark: str) -> str:
    """Return the tag's value with one more."""
    return ",".join([*marks, mark][-MOST:])
