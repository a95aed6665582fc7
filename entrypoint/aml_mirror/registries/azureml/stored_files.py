"""The list of what a version's commits made: size, ETag and digest of each blob.

The list is a blob ``mirror/<model>.stored-<digest>.json``, beside the version's own files. Its digest is a
property of the version, and before the version is registered a tag of the run. So whoever can write to the
storage alone cannot change a blob and the list together. A list without its digest, or with another, counts
as none: then every blob is unknown, and is read back or sent again.

After a repair the ETags are others, and a property cannot change: the tag of the version wins over it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from aml_mirror.core.manifest import StoredFile
from aml_mirror.registries.azureml.version_folder import VersionFolder
from aml_mirror.registries.azureml.version_tags import STORED, STORED_SHA256

SCHEMA = "aml-mirror/stored/v1"
# 1,500 files with 300 bytes each, and some room.
MAX_BYTES = 4 << 20


def digest_in(tags: Mapping[str, str]) -> str:
    """Return the digest of the list that the tags of a run or version name; empty: none."""
    return tags.get(STORED) or tags.get(STORED_SHA256, "")


def name_of(folder: VersionFolder, digest: str) -> str:
    """The list's name in the container."""
    return f"{folder.own}.stored-{digest}.json"


def as_json(files: Mapping[str, StoredFile], own: Mapping[str, str]) -> str:
    """Return the list as text.

    Args:
        files: the blobs of the manifest, by path.
        own: SHA-256 of the version's own files, by name.
    """
    rows = {
        path: {"bytes": one.bytes, "etag": one.etag, "sha256": one.sha256}
        for path, one in sorted(files.items())
    }
    return json.dumps({"schema": SCHEMA, "files": rows, "own": dict(sorted(own.items()))}, indent=2) + "\n"


def parse(data: bytes | None, digest: str) -> tuple[dict[str, StoredFile], dict[str, str]]:
    """Read a list; nothing where it is not the one with this digest."""
    if not data or not digest or hashlib.sha256(data).hexdigest() != digest:
        return {}, {}
    found: dict[str, Any] = json.loads(data)
    if found.get("schema") != SCHEMA:
        return {}, {}
    files = {
        path: StoredFile(int(one["bytes"]), str(one["etag"]), one["sha256"])
        for path, one in found["files"].items()
    }
    return files, {name: str(text) for name, text in found["own"].items()}
