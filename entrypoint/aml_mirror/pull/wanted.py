"""What a download is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PART_BYTES = 2 << 20
"""What is fetched, and taken from an older version, at once."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to bring. ``bytes`` is None where the store does not say; digests in hexadecimal, or None."""

    path: str
    bytes: int | None
    sha256: str | None = None
    md5: str | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True)
class LocalPart:
    """Bytes that a file on this disk has already, perhaps: the digest of the whole decides."""

    file: str
    start: int


Reuse = Mapping[str, Mapping[int, LocalPart]]
"""By path in the version, then by offset of a part: where on this disk its bytes are."""


@dataclass(slots=True)
class Fetched:
    """What came of a download."""

    sha256: dict[str, str] = field(default_factory=dict)
    """By path, in hexadecimal."""
    read: int = 0
    """Bytes that came from the store."""
    reused: int = 0
    """Bytes that came from an older version on this disk."""
    kept: int = 0
    """Bytes that an earlier attempt had brought."""
    wrong: list[tuple[str, str]] = field(default_factory=list)
    """(path, what is wrong) of the files that are not what they should be; they are removed."""
