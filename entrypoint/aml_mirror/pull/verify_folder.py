"""Checks whether a pulled folder still contains what was pulled: every byte, without a network.

``mirror/manifest.json`` says what the files should be. Its digest is in ``mirror/pulled.json``. Anyone who
can write to the folder can change all of them. Only a signature protects against that: with ``--public-key``,
the signed statement in ``mirror/`` must match these files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import Any

from aml_mirror.core.errors import DataError, SourceNotFound
from aml_mirror.core.manifest import Manifest
from aml_mirror.pipeline.provenance import signing
from aml_mirror.pipeline.provenance.signed_statement import require_signed
from aml_mirror.pull.pulled_folder import MODEL, OWN, Record, files_in, read_record
from aml_mirror.registries.pinned_manifest import MAX_MANIFEST_BYTES, parsed
from aml_mirror.registries.records import Version
from aml_mirror.support.progress import Console, amount, one_line

SCHEMA = "aml-mirror/folder-verification/v1"
MAX_LISTED = 100
_READ_BYTES = 1 << 20


@dataclass(slots=True)
class FolderVerification:
    """The result of checking a folder."""

    folder: Path
    record: Record
    verified: bool
    """Whether there is a manifest; False: the files are only compared with what was pulled."""
    wrong: list[tuple[str, str]] = field(default_factory=list)
    bytes: int = 0
    signed_by: str | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return not self.wrong

    def as_dict(self) -> dict[str, Any]:
        """The object that ``verify DIR --json`` prints."""
        found: dict[str, Any] = {
            "schema": SCHEMA,
            "outcome": "verified" if self.holds else "differs",
            "exit_code": 0 if self.holds else DataError.exit_code,
            "folder": str(self.folder),
            "model_name": self.record.model_name,
            "model_version": self.record.model_version,
            "manifest_sha256": self.record.manifest_sha256 or None,
            "against": "manifest" if self.verified else "what was pulled",
            "signed_by": self.signed_by,
            "files": len(self.record.files),
            "bytes": self.bytes,
            "wrong": [{"path": path, "reason": why} for path, why in self.wrong[:MAX_LISTED]],
        }
        if len(self.wrong) > MAX_LISTED:
            found["wrong_count"] = len(self.wrong)
        return found

    def text(self) -> str:
        """Return the result as text."""
        name = f"{self.record.model_name} version {self.record.model_version}"
        lines = [
            f"verified: {self.folder} is {name}, {len(self.record.files)} file(s), {amount(self.bytes)}"
            if self.holds
            else f"differs: {self.folder} is not {name} any more"
        ]
        if self.verified:
            lines.append(f"  against  manifest {self.record.manifest_sha256}")
        else:
            lines.append("  against  what was pulled: aml-mirror did not make this version")
        lines.append(
            f"  signed   by the key {self.signed_by}"
            if self.signed_by
            else "  signed   not checked: pass --public-key, because the manifest may be changed too"
        )
        lines += [one_line(f"  wrong    {path}: {why}") for path, why in self.wrong[:MAX_LISTED]]
        if not self.holds:
            lines.append("  repair   pull it again with --replace")
        return "\n".join(lines)


def verify_folder(folder: Path, public_key: str, console: Console) -> FolderVerification:
    """Compare every byte of a pulled folder with its manifest.

    Args:
        folder: the folder of a pull.
        public_key: a PEM file; empty: signatures are not checked.

    Raises:
        SourceNotFound: the folder was not made by a pull.
        DataError: its manifest or its signature cannot be trusted. Differences in files are part of the
            result.
    """
    key = signing.public_key(public_key) if public_key else None
    record = read_record(folder)
    if record is None:
        raise SourceNotFound(
            f"{folder} does not contain a pulled version",
            "pass a folder made by aml-mirror pull, or NAME:VERSION",
        )
    manifest = _manifest(folder, record)
    result = FolderVerification(folder, record, manifest is not None)
    if key is not None:
        _require_signed(folder, record, manifest, key)
        result.signed_by = signing.key_id(key)
    wanted: dict[str, tuple[int, str | None]] = {
        path: (size, sha256) for path, (size, sha256, _) in record.files.items()
    }
    if manifest is not None:
        # Files that the storage service copied have no SHA-256 in it: the one from the pull counts.
        kept = {path: sha256 for path, (_, sha256, _) in record.files.items()}
        wanted = {item.path: (item.bytes, item.sha256 or kept.get(item.path)) for item in manifest.items}
    with console.stage("verifying", sum(size for size, _ in wanted.values())) as progress:
        for path, why, count in _compared(folder / MODEL, wanted):
            progress(count)
            result.bytes += count
            if why:
                result.wrong.append((path, why))
    result.wrong += _extra(folder / MODEL, wanted)
    return result


def _manifest(folder: Path, record: Record) -> Manifest | None:
    if not record.manifest_sha256:
        return None
    path = folder / OWN / "manifest.json"
    if not path.is_file() or path.stat().st_size > MAX_MANIFEST_BYTES:
        raise DataError(f"{path} is missing", "pull the version again with --replace")
    found = parsed(path.read_bytes())
    if found is None or found.sha256 != record.manifest_sha256:
        raise DataError(
            f"{path} was changed: it is not the one with the digest {record.manifest_sha256}",
            "pull the version again with --replace",
        )
    return found


class _OwnFiles:
    """The version's own files beside it, as :func:`require_signed` reads them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        path = self._folder / OWN / name
        if path.is_file() and path.stat().st_size <= limit:
            yield path.read_bytes()


def _require_signed(folder: Path, record: Record, manifest: Manifest | None, key: signing.PublicKey) -> None:
    if manifest is None:
        raise DataError(
            f"{folder} contains a version that aml-mirror did not make, so it is not signed",
            "omit --public-key",
        )
    version = Version(record.model_name, record.model_version, dict(record.tags))
    require_signed(version, manifest, _OwnFiles(folder), key)


def _compared(root: Path, wanted: Mapping[str, tuple[int, str | None]]) -> Iterator[tuple[str, str, int]]:
    """Yield (path, what is wrong, bytes read) for each expected file."""
    there = files_in(root)
    for path, (size, sha256) in wanted.items():
        if path not in there:
            yield path, "it is missing", 0
        elif not S_ISREG(there[path].st_mode):
            yield path, "it is not a regular file", 0
        elif there[path].st_size != size:
            yield path, f"it has {there[path].st_size} bytes, not {size}", 0
        else:
            found = sha256_of(root / path)
            yield path, "" if sha256 in (None, found) else f"its SHA-256 is {found}, not {sha256}", size


def _extra(root: Path, wanted: Container[str]) -> list[tuple[str, str]]:
    return [
        (path, "it does not belong to the version") for path in sorted(files_in(root)) if path not in wanted
    ]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while data := stream.read(_READ_BYTES):
            digest.update(data)
    return digest.hexdigest()


def changed_files(folder: Path, record: Record) -> list[tuple[str, str]]:
    """Return (path, what is wrong) for every change since the pull. Only suspicious files are read."""
    root = folder / MODEL
    there = files_in(root)
    suspect: dict[str, tuple[int, str | None]] = {}
    for path, (size, sha256, changed) in record.files.items():
        stat = there.get(path)
        if stat is None or stat.st_size != size or stat.st_mtime_ns != changed or not S_ISREG(stat.st_mode):
            suspect[path] = (size, sha256)
    wrong = [(path, why) for path, why, _ in _compared(root, suspect) if why]
    return wrong + _extra(root, record.files)
