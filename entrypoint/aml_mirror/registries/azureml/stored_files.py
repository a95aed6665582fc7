"""The list of what a version's commits stored: size, ETag and digest of each blob.

The list is a blob ``mirror/<model>.stored-<digest>.json``, beside the version's own files. Its digest is a
property of the version, and a tag of the run before the version is registered. So someone who can write only
to the storage cannot change a blob and the list together. A list without its digest, or with another one, is
ignored. Then every blob is unknown, and is read back or sent again.

After a repair the ETags are different, and a property cannot change. So the tag of the version takes
precedence.

``mirror/<model>.copies.json`` has a second copy of the list and of the version's own small files. A repair
restores them from it. Its contents count only if the digests match.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aml_mirror.core.manifest import StoredFile
from aml_mirror.registries.azureml.version_folder import VersionFolder
from aml_mirror.registries.azureml.version_tags import STORED, STORED_SHA256

SCHEMA = "aml-mirror/stored/v1"
COPIES_SCHEMA = "aml-mirror/copies/v1"
# 1,500 files with 300 bytes each, and some room.
MAX_BYTES = 4 << 20
MAX_COPIES_BYTES = 64 << 20


def digest_in(tags: Mapping[str, str]) -> str:
    """Return the digest of the list from the tags of a run or version; empty: none."""
    return tags.get(STORED) or tags.get(STORED_SHA256, "")


def name_of(folder: VersionFolder, digest: str) -> str:
    """Return the list's name in the container."""
    return f"{folder.own}.stored-{digest}.json"


def copies_of(folder: VersionFolder) -> str:
    """Return the name of the second copies in the container."""
    return f"{folder.own}.copies.json"


@dataclass(frozen=True, slots=True)
class LogFile:
    """A log that is stored with the version: the bytes that were read, and its path in the run."""

    bytes: int
    sha256: str
    source: str


@dataclass(slots=True)
class StoredList:
    """The contents of the list."""

    files: dict[str, StoredFile] = field(default_factory=dict)
    """What our own commits stored for the files of the manifest, by path in the version."""
    own: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the version's own files, by name."""
    logs: dict[str, LogFile] = field(default_factory=dict)
    """The logs among the own files, by name."""

    def as_json(self) -> str:
        """Return the list as text."""
        files = {
            path: {"bytes": one.bytes, "etag": one.etag, "sha256": one.sha256}
            for path, one in sorted(self.files.items())
        }
        logs = {
            name: {"bytes": one.bytes, "sha256": one.sha256, "source": one.source}
            for name, one in sorted(self.logs.items())
        }
        found = {"schema": SCHEMA, "files": files, "own": dict(sorted(self.own.items())), "logs": logs}
        return json.dumps(found, indent=2) + "\n"


def parse(data: bytes | None, digest: str) -> StoredList | None:
    """Parse a list; None if it does not have this digest."""
    if not data or not digest or hashlib.sha256(data).hexdigest() != digest:
        return None
    found: dict[str, Any] = json.loads(data)
    if found.get("schema") != SCHEMA:
        return None
    return StoredList(
        {
            path: StoredFile(int(one["bytes"]), str(one["etag"]), one["sha256"])
            for path, one in found["files"].items()
        },
        {name: str(text) for name, text in found["own"].items()},
        {name: LogFile(**one) for name, one in (found.get("logs") or {}).items()},
    )


@dataclass(slots=True)
class Copies:
    """Second copies of the list, and of the own files by name."""

    stored: str = ""
    texts: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
        """Return them as text."""
        found = {"schema": COPIES_SCHEMA, "stored": self.stored, "texts": dict(sorted(self.texts.items()))}
        return json.dumps(found) + "\n"


def parse_copies(data: bytes | None) -> Copies:
    """Parse the copies; empty if the file is not valid. Its contents are not proven by that."""
    try:
        found = json.loads(data or b"{}")
        if found.get("schema") == COPIES_SCHEMA:
            texts = {str(name): str(text) for name, text in found["texts"].items()}
            return Copies(str(found["stored"]), texts)
    except (ValueError, KeyError, AttributeError, RecursionError):
        pass
    return Copies()
