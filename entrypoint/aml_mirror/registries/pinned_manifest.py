"""Reads the manifest of a registered version and checks it against the digest of the registration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Protocol

from aml_mirror.core.errors import DataError
from aml_mirror.core.manifest import SCHEMA, Manifest, ManifestEntry, identity
from aml_mirror.registries import keys
from aml_mirror.registries.records import Version

# 10^5 files with 300 bytes each. A checkpoint has some dozen, and Azure ML accepts 1,500.
MAX_MANIFEST_BYTES = 32 << 20


class ArtifactReader(Protocol):
    """What is needed to read a version's own files."""

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        """See :meth:`aml_mirror.registries.base.VersionReader.artifacts`."""


class ManifestLost(DataError):
    """At least one copy of a version's manifest was changed, or there is none."""


def require_complete(version: Version) -> str:
    """Return the digest of a version's manifest.

    Raises:
        DataError: this program did not make the version, it is not complete, or its tags were changed.
    """
    pinned = version.tags.get(keys.MANIFEST_SHA256)
    if not pinned or not version.tags.get(keys.IDENTITY):
        raise DataError(
            f"version {version.number} of {version.model} was not made by aml-mirror: it has no manifest",
            "mirror its run, or check the name",
        )
    if not version.complete:
        raise DataError(
            f"version {version.number} of {version.model} is not complete: a mirror of "
            f"{version.tags.get(keys.RUN_ID)} was started but not finished",
            "run that mirror again: it continues from there",
        )
    tags = version.tags
    if identity(tags.get(keys.RUN_ID, ""), tags.get(keys.CHECKPOINT, ""), pinned) != tags[keys.IDENTITY]:
        raise DataError(
            f"the tags of version {version.number} of {version.model} contradict each other: its identity "
            "does not match its run, checkpoint and manifest",
            "somebody changed its tags: do not use it, and mirror the run again",
        )
    return pinned


def pinned_manifest(version: Version, reader: ArtifactReader) -> Manifest:
    """Return the version's manifest.

    Raises:
        ManifestLost: a copy of it was changed, or there is none.
        DataError: see :func:`require_complete`.
    """
    pinned = require_complete(version)
    # Twice: a truncated answer is not a change.
    for _ in range(2):
        copies = [parsed(data) for data in reader.artifacts("manifest.json", MAX_MANIFEST_BYTES)]
        right = [manifest for manifest in copies if manifest is not None and manifest.sha256 == pinned]
        # Each copy counts: people read the run's, this program the version's.
        if copies and len(right) == len(copies):
            return right[0]
        if not copies:
            break
    raise ManifestLost(
        f"the manifest of version {version.number} of {version.model} "
        + (f"was changed: it is not the one with the digest {pinned}" if copies else "is missing"),
        f"restore it with: aml-mirror repair {version.model}:{version.number}",
    )


def parsed(data: bytes) -> Manifest | None:
    """Parse a manifest; None if it is damaged."""
    try:
        found = json.loads(data)
        if found["schema"] != SCHEMA:
            return None
        items = tuple(_item(entry) for entry in found["files"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Manifest(items)


def _item(entry: dict[str, Any]) -> ManifestEntry:
    path, size = entry["path"], entry["bytes"]
    texts = {name: entry.get(name) for name in ("sha256", "md5", "etag")}
    if not isinstance(path, str) or type(size) is not int:
        raise TypeError
    if any(text is not None and not isinstance(text, str) for text in texts.values()):
        raise TypeError
    # The manifest's digest covers one text per file: its SHA-256, or else its ETag. If a SHA-256 was moved to
    # the ETag's place, that digest would stay the same, but the file would only be compared by size.
    if not texts["sha256"] and re.fullmatch("[0-9a-f]{64}", texts["etag"] or ""):
        raise TypeError
    return ManifestEntry(
        "", path, size, texts["sha256"], texts["md5"], texts["etag"], str(entry.get("evidence"))
    )
