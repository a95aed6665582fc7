"""A registered version as a reader sees it: its tags, its properties, its manifest, its files."""

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
    """Where the files of one version are; nothing is asked before it is used."""

    @property
    def files(self) -> Files:
        """The files that a consumer gets.

        Raises:
            SourceNotFound: the version points nowhere that can be read.
        """

    @property
    def is_ours(self) -> bool:
        """Whether the files are where this program puts those of such a version."""

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        """Yield the version's own file of this name (``manifest.json``, ``model.sig``, …), if it is there.

        Args:
            limit: nothing longer is read, in bytes.
        """

    def own_digests(self) -> dict[str, str]:
        """Return the SHA-256 of the version's own files by name, as far as the registry pins them."""

    def blocks(self) -> dict[str, tuple[int, BlockDigests]]:
        """Return the block digests of the version's large files, by path, each with the file's size in bytes.

        Empty where the registry keeps none.
        """


@dataclass(frozen=True, slots=True)
class ResolvedVersion:
    """A registered version, whoever made it."""

    version: Version
    """Its ``tags`` are tags and properties together; a property wins, since it cannot be changed."""
    tags: Mapping[str, str]
    """As they are now, alone."""
    properties: Mapping[str, str]
    """Azure ML's, which cannot be changed; empty on MLflow."""
    registry: str
    """The registry in words, without a secret."""
    pinned_by: str
    """What keeps the digest of the manifest, in words."""
    places: Places

    @property
    def uri(self) -> str:
        """``models:/NAME/VERSION``."""
        return model_uri(self.version)

    @property
    def files(self) -> Files:
        """The files that a consumer gets. Raises as :attr:`Places.files`."""
        return self.places.files

    @property
    def made_by_us(self) -> bool:
        """Whether the version says that this program made it."""
        return bool(self.version.tags.get(keys.MANIFEST_SHA256) and self.version.tags.get(keys.IDENTITY))

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        """See :meth:`Places.artifacts`."""
        return self.places.artifacts(name, limit)

    def manifest(self) -> Manifest:
        """Return the manifest with the digest that the version was registered with.

        Raises:
            DataError: this program did not make the version, it is not complete, or its manifest was changed
                or is missing.
        """
        return pinned_manifest(self.version, self)


class Catalog(Protocol):
    """The versions of one registry, to read only."""

    description: str
    """The registry in words, without a secret."""

    def find(self, reference: Reference) -> list[ResolvedVersion]:
        """Return the versions that a reference names, in any order."""
