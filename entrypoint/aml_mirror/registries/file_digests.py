"""The digests of what comes in parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from aml_mirror.registries.records import FileDigest


def hashed(parts: Iterable[bytes]) -> FileDigest:
    """Return size and digests of a file, holding one part of it at a time."""
    sha256 = hashlib.sha256()
    # What Azure Blob storage keeps; it tells a changed file from a whole one, and defends against nobody.
    md5 = hashlib.md5(usedforsecurity=False)
    count = 0
    for part in parts:
        sha256.update(part)
        md5.update(part)
        count += len(part)
    return FileDigest(count, sha256.hexdigest(), md5.hexdigest())
