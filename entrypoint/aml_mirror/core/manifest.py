"""The files of a checkpoint with sizes and digests, and the two keys that are made from them.

The *identity* says what was mirrored: run id, checkpoint path and the digest of every byte. It never contains
the mount or the URI, because the same run may be seen as a PVC and as a blob prefix. The *quick key*
(:func:`aml_mirror.sources.hashing.quick_key`) says whether anything can have changed since.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

SCHEMA = "aml-mirror/manifest/v1"
DIGEST_BYTES = 32
CRC_BYTES = 8


@dataclass(frozen=True, slots=True)
class BlockDigests:
    """The digests of each block of a file, computed while it was hashed.

    ``digests`` are the BLAKE3 digests of the blocks, ``DIGEST_BYTES`` each, one after the other. ``crcs`` are
    their CRC-64, ``CRC_BYTES`` each, the lowest byte first; empty if none were computed. Every block has
    ``block_bytes`` except the last, which may be shorter.
    """

    block_bytes: int
    digests: bytes
    crcs: bytes = b""

    def __len__(self) -> int:
        return len(self.digests) // DIGEST_BYTES

    def digest(self, number: int) -> bytes:
        """Return the digest of a block, counted from 0."""
        return self.digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]

    def crc64(self, number: int) -> bytes:
        """Return the CRC-64 of a block, counted from 0; empty if none was computed."""
        return self.crcs[number * CRC_BYTES : (number + 1) * CRC_BYTES]


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One file. ``source`` is its path in the run, ``path`` its path in the model version."""

    source: str
    path: str
    bytes: int
    sha256: str | None
    md5: str | None = None
    etag: str | None = None
    evidence: str = "hashed"
    blocks: BlockDigests | None = field(default=None, compare=False, repr=False)
    """For a file that was hashed and is larger than a single request."""

    def as_dict(self) -> dict[str, object]:
        """The manifest's entry for people and programs."""
        return {
            "path": self.path,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "md5": self.md5,
            "etag": self.etag,
            "evidence": self.evidence,
        }


@dataclass(frozen=True, slots=True)
class Manifest:
    """All files of one model version, by path."""

    items: tuple[ManifestEntry, ...]

    @property
    def bytes(self) -> int:
        """Sum of the sizes."""
        return sum(item.bytes for item in self.items)

    @property
    def sha256(self) -> str:
        """The digest over path, size and SHA-256 of each file (the ETag only if that is missing)."""
        rows = [[item.path, item.bytes, item.sha256 or item.etag] for item in self.items]
        return digest_of_json(rows)

    @property
    def integrity(self) -> str:
        """``sha256`` if every file was hashed, else ``copied``."""
        return "sha256" if all(item.sha256 for item in self.items) else "copied"

    def as_json(self) -> str:
        """The artifact ``manifest.json``."""
        document = {
            "schema": SCHEMA,
            "manifest_sha256": self.sha256,
            "integrity": self.integrity,
            "bytes": self.bytes,
            "files": [item.as_dict() for item in self.items],
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file as a store has it.

    ``etag``, without quotes, is the one of our own commit, or the one with which the bytes were read back and
    hashed. ``sha256`` is in hexadecimal; None if the store copied the file and nobody hashed it.
    """

    bytes: int
    etag: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class TransferResult:
    """The cost in bytes of bringing the files of a manifest somewhere, and warnings for the user."""

    sent: int = 0
    """Bytes that went through this program."""
    copied: int = 0
    """Bytes that the storage service copied itself."""
    reused: int = 0
    """Bytes that the storage service took from earlier versions."""
    warnings: tuple[str, ...] = ()
    stored: dict[str, StoredFile] = field(default_factory=dict, compare=False, repr=False)
    """Each file by its path in the version, if the store has ETags."""


def identity(run_id: str, checkpoint: str, manifest_sha256: str) -> str:
    """Return the key that two equal mirrors share, as 64 hexadecimal digits."""
    return digest_of_json([run_id, checkpoint, manifest_sha256])


def digest_of_json(value: object) -> str:
    """Return the SHA-256 of a value as compact JSON, in hexadecimal."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
