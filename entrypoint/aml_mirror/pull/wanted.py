"""The request for a download, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PART_BYTES = 2 << 20
"""The number of bytes fetched, or reused from an older version, at once."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to download. ``bytes`` is None if the store does not say; digests in hexadecimal, or None."""

    path: str
    bytes: int | None
    sha256: str | None = None
    md5: str | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True)
class LocalPart:
    """Bytes that a file on this disk may already have. The digest of the whole file decides."""

    file: str
    start: int


Reuse = Mapping[str, Mapping[int, LocalPart]]
"""By path in the version, then by offset of a part: where its bytes are on this disk."""


@dataclass(slots=True)
class Fetched:
    """The result of a download."""

    sha256: dict[str, str] = field(default_factory=dict)
    """By path, in hexadecimal."""
    read: int = 0
    """Bytes from the store."""
    reused: int = 0
    """Bytes from an older version on this disk."""
    kept: int = 0
    """Bytes that an earlier attempt had downloaded."""
    wrong: list[tuple[str, str]] = field(default_factory=list)
    """(path, what is wrong) for the wrong files, which are removed."""
