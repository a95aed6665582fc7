"""A registered version as a reader sees it: its tags, properties, manifest and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from aml_mirror.core.manifest import BlockDigests, Manifest
from aml_mirror.pull.files import Files
from aml_mirror.pull.reference import Reference
from aml_mirror.registries import keys
from aml_mirror.registries.pinned_manifest import pinned_manifest
from aml_mirror.registries.records import Version, model_uri


class Places(Protocol):
    """The locations of one version's files. Nothing is requested before it is used."""

    @property
    def files(self) -> Files:
        """The files for a consumer.

        Raises:
            SourceNotFound: the version points to nothing that can be read.
        """

    @property
    def is_ours(self) -> bool:
        """Whether the files are where this program stores those of such a version."""

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        """Yield the version's own file with this name (``manifest.json``, ``model.sig``, …), if it exists.

        Args:
            limit: the most bytes to read.
        """

    def own_digests(self) -> dict[str, str]:
        """Return the SHA-256 of the version's own files by name, as far as the registry pins them."""

    def blocks(self) -> dict[str, tuple[int, BlockDigests]]:
        """Return the block digests of the version's large files, by path, each with the file's size in bytes.

        Empty if the registry has none.
        """


@dataclass(frozen=True, slots=True)
class ResolvedVersion:
    """A registered version, whichever program made it."""

    version: Version
    """Its ``tags`` are tags and properties together. A property wins, because it cannot be changed."""
    tags: Mapping[str, str]
    """Only the current tags."""
    properties: Mapping[str, str]
    """Azure ML's properties, which cannot be changed; empty on MLflow."""
    registry: str
    """The registry in words, without secrets."""
    pinned_by: str
    """Where the digest of the manifest is stored, in words."""
    places: Places

    @property
    def uri(self) -> str:
        """``models:/NAME/VERSION``."""
        return model_uri(self.version)

    @property
    def files(self) -> Files:
        """The files for a consumer. Raises the errors of :attr:`Places.files`."""
        return self.places.files

    @property
    def made_by_us(self) -> bool:
        """Whether the version says that this program made it."""
        return bool(self.version.tags.get(keys.MANIFEST_SHA256) and self.version.tags.get(keys.IDENTITY))

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        """See :meth:`Places.artifacts`."""
        return self.places.artifacts(name, limit)

    def manifest(self) -> Manifest:
        """Return the manifest, checked against the digest of the registration.

        Raises:
            DataError: this program did not make the version, it is incomplete, or its manifest was changed or
                is missing.
        """
        return pinned_manifest(self.version, self)


class Catalog(Protocol):
    """The versions of one registry, read-only."""

    description: str
    """The registry in words, without secrets."""

    def find(self, reference: Reference) -> list[ResolvedVersion]:
        """Return the versions that match a reference, in any order."""
