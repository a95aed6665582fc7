"""Computes the digests of data that arrive in parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from aml_mirror.registries.records import FileDigest


def hashed(parts: Iterable[bytes]) -> FileDigest:
    """Return size and digests of a file, while holding one part at a time in memory."""
    sha256 = hashlib.sha256()
    # Azure Blob storage stores an MD5. It detects an accidental change, but not an attack.
    md5 = hashlib.md5(usedforsecurity=False)
    count = 0
    for part in parts:
        sha256.update(part)
        md5.update(part)
        count += len(part)
    return FileDigest(count, sha256.hexdigest(), md5.hexdigest())
