"""A version of a model whose files and their digests are dictionaries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from aml_mirror.core.manifest import Manifest, ManifestEntry, identity
from aml_mirror.registries import keys
from aml_mirror.registries.file_digests import hashed
from aml_mirror.registries.records import FileDigest, Version


def entry(path: str, data: bytes, sha256: str | None = None, **known: Any) -> ManifestEntry:
    """Return the manifest's entry of a file."""
    return ManifestEntry("", path, len(data), sha256, **known)


def sha256(data: bytes) -> str:
    """Return the digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class StoredVersion:
    """A :class:`aml_mirror.registries.base.VersionReader`, and the version that it reads."""

    manifest: Manifest
    there: dict[str, bytes]
    stored: dict[str, str] = field(default_factory=dict)
    wrong: list[tuple[str, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    pinned_by = "a test"

    @property
    def version(self) -> Version:
        """The version, complete."""
        digest = self.manifest.sha256
        tags = {
            keys.RUN_ID: "run-1",
            keys.CHECKPOINT: "c",
            keys.MANIFEST_SHA256: digest,
            keys.IDENTITY: identity("run-1", "c", digest),
            keys.STATE: keys.COMPLETE,
        }
        return Version("m", "1", tags)

    @property
    def registry(self) -> Any:
        """Return a registry with only this version."""
        return SimpleNamespace(version_reader=lambda version: self, uri=lambda version: "x:/m/1")

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        yield self.manifest.as_json().encode()

    def files(self) -> dict[str, int | None]:
        return {path: len(data) for path, data in self.there.items()}

    def hashed(self, path: str) -> FileDigest:
        return hashed([self.there[path]])

    def stored_sha256(self, path: str) -> str | None:
        return self.stored.get(path)

    def own_problems(self) -> tuple[list[tuple[str, str]], list[str]]:
        return list(self.wrong), list(self.lost)

    def changed(self, manifest: Manifest) -> list[str]:
        return []
