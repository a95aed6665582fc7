"""Checks whether a registered version is still what was mirrored: every byte is compared with the manifest.

1. The version's ``manifest_sha256`` was written when it was registered. On Azure ML it is a property, which
   is documented as immutable. The manifest among the run's artifacts must have this digest.
2. If a public key is given, the signed statement must name the same manifest and the same files.
3. Every file of the version is read once, in parts, and its SHA-256 is compared. A file that the manifest
   does not name is extra; one that does not exist is missing.

A file that the storage service copied was never hashed by us (``integrity`` is ``copied``). Its size is
compared, and its MD5 if the store has one. The result says for each way how many files were compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aml_mirror.core.errors import DataError, SourceNotFound, UsageError
from aml_mirror.core.manifest import Manifest, ManifestEntry
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.provenance import signing
from aml_mirror.pipeline.provenance.signed_statement import signed_by
from aml_mirror.pull.reference import parse
from aml_mirror.registries import keys
from aml_mirror.registries.base import Registry, VersionReader
from aml_mirror.registries.pinned_manifest import pinned_manifest
from aml_mirror.registries.records import FileDigest, Version
from aml_mirror.registries.registry import named_type, open_registry
from aml_mirror.support.progress import Console, amount, one_line

SCHEMA = "aml-mirror/verification/v1"
MAX_LISTED = 100  # The most names of each kind in the result. Their count is beside them.


@dataclass(slots=True)
class Verification:
    """The result. ``wrong`` is (path, what is wrong) for each file that differs."""

    version: Version
    uri: str
    pinned_by: str
    manifest: Manifest | None = None
    wrong: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=lambda: {"sha256": 0, "md5": 0, "size": 0})
    bytes: int = 0
    read: dict[str, FileDigest] = field(default_factory=dict)
    """The digests of each existing file of the manifest."""
    signed_by: str | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return not (self.wrong or self.missing or self.extra)

    @property
    def right(self) -> dict[str, FileDigest]:
        """The digests of the files that are right."""
        wrong = {path for path, _ in self.wrong}
        return {path: digest for path, digest in self.read.items() if path not in wrong}

    @property
    def repair(self) -> str:
        """The command that repairs it."""
        return f"aml-mirror repair {self.version.model}:{self.version.number}"

    def as_dict(self) -> dict[str, Any]:
        """The object that ``verify --json`` prints."""
        tags = self.version.tags
        found: dict[str, Any] = {
            "schema": SCHEMA,
            "outcome": "verified" if self.holds else "differs",
            "exit_code": 0 if self.holds else DataError.exit_code,
            "model_name": self.version.model,
            "model_version": self.version.number,
            "model_uri": self.uri,
            "run_id": tags.get(keys.RUN_ID),
            "manifest_sha256": tags.get(keys.MANIFEST_SHA256),
            "pinned_by": self.pinned_by,
            "integrity": tags.get(keys.INTEGRITY),
            "safety": tags.get(keys.SAFETY),
            "archived": self.version.archived,
            "signed_by": self.signed_by,
            "repair": None if self.holds else self.repair,
            "files": len(self.manifest.items) if self.manifest else 0,
            "bytes": self.bytes,
            "checked_by": self.checked,
        }
        for name, rows in (
            ("wrong", [{"path": path, "reason": why} for path, why in self.wrong]),
            ("missing", self.missing),
            ("extra", self.extra),
        ):
            found[name] = rows[:MAX_LISTED]
            if len(rows) > MAX_LISTED:
                found[f"{name}_count"] = len(rows)
        return found


def verify(settings: Settings, console: Console) -> Verification:
    """Check the version that the settings name.

    Raises:
        UsageError: they name no version.
        SourceNotFound: there is no such version.
        DataError: it was not made by this program, is incomplete, or its manifest or signature cannot be
            trusted. Files that differ are not an error but the result.
    """
    # First of all: an unreadable key is reported at once.
    key = signing.public_key(settings.public_key) if settings.public_key else None
    registry, version = open_version(settings, console)
    return verify_version(registry, version, [key] if key is not None else [], console)


def verify_version(
    registry: Registry, version: Version, public_keys: Sequence[signing.PublicKey], console: Console
) -> Verification:
    """Check a version.

    Args:
        registry: its registry.
        version: the version as it is there.
        public_keys: one of them must have signed it; none: no signature is required.
        console: shows the progress.

    Raises:
        DataError: like :func:`verify`.
    """
    reader = registry.version_reader(version)
    result = Verification(version, registry.uri(version), reader.pinned_by)
    result.manifest = manifest = pinned_manifest(version, reader)
    if public_keys:
        result.signed_by = signing.key_id(signed_by(version, manifest, reader, public_keys))
    result.wrong, result.missing = reader.own_problems()
    there = reader.files()
    wanted = {item.path: item for item in manifest.items}
    result.missing += sorted(wanted.keys() - there.keys())
    result.extra = sorted(there.keys() - wanted.keys())
    found = [item for item in manifest.items if item.path in there]
    with console.stage("verifying", sum(item.bytes for item in found)) as progress:
        for item in found:
            _check(item, reader, result)
            progress(item.bytes)
    return result


def open_version(settings: Settings, console: Console) -> tuple[Registry, Version]:
    """Return the registry and the version that the settings name.

    Raises:
        UsageError: they name no version.
        SourceNotFound: there is no such version.
    """
    reference = settings.reference or settings.model_name
    registry_type = named_type(settings)
    own = registry_type.parse_uri(reference) if registry_type else None
    model, number = own or parse_reference(reference)
    registry = open_registry(settings, console.say)
    version = registry.find_version(model, number)
    if version is None:
        raise SourceNotFound(
            f"there is no version {number} of the model {model} in {registry.description}",
            "see 'aml-mirror status' for the versions of a run",
        )
    return registry, version


def parse_reference(text: str) -> tuple[str, str]:
    """Return model and number of a version, in any form that ``pull`` accepts.

    Raises:
        UsageError: it has none of these forms.
    """
    try:
        found = parse(text)
    except UsageError:
        found = None
    if found is None or not found.number:
        raise UsageError(
            f"{text!r} does not name a version of a model" if text else "no version is named",
            "for example: act-pick:3",
        )
    return found.model, found.number


def _check(item: ManifestEntry, reader: VersionReader, result: Verification) -> None:
    found = reader.hashed(item.path)
    result.read[item.path] = found
    result.bytes += found.bytes
    # If the service refused to copy a file, the manifest has no digest of it: what was sent instead was
    # hashed.
    sha256 = item.sha256 or reader.stored_sha256(item.path)
    why = ""
    if found.bytes != item.bytes:
        why = f"it has {found.bytes} bytes, but the manifest says {item.bytes}"
    elif sha256 and found.sha256 != sha256:
        said = "the manifest says" if item.sha256 else "stored was"
        why = f"its SHA-256 is {found.sha256}, {said} {sha256}"
    elif not sha256 and item.md5 and found.md5 != item.md5:
        why = f"its MD5 is {found.md5}, but the manifest says {item.md5}"
    if why:
        result.wrong.append((item.path, why))
        return
    result.checked["sha256" if sha256 else "md5" if item.md5 else "size"] += 1


def text(result: Verification) -> str:
    """Return the result as text."""
    version = f"{result.version.model} version {result.version.number}"
    files = len(result.manifest.items) if result.manifest else 0
    lines = [
        f"verified: {version}, {files} file(s), {amount(result.bytes)}, is what was mirrored"
        if result.holds
        else f"differs: {version} is not what was mirrored"
    ]
    ways = ", ".join(f"{count} by {_WAYS[way]}" for way, count in result.checked.items() if count)
    lines.append(f"  right    {ways or 'none'}")
    lines.append(f"  pinned   manifest {result.version.tags[keys.MANIFEST_SHA256]}, by {result.pinned_by}")
    if result.version.archived:
        lines.append("  archived the version, or its model, is archived")
    if result.signed_by:
        lines.append(f"  signed   by the key {result.signed_by}")
    rows = [
        *(f"  wrong    {path}: {why}" for path, why in result.wrong),
        *(f"  missing  {path}" for path in result.missing),
        *(f"  extra    {path}" for path in result.extra),
    ]
    lines += [one_line(row) for row in rows[:MAX_LISTED]]
    if len(rows) > MAX_LISTED:
        lines.append(f"  … and {len(rows) - MAX_LISTED} more")
    if not result.holds:
        lines.append(f"  repair   {result.repair}")
    return "\n".join(lines)


_WAYS = {"sha256": "SHA-256", "md5": "MD5", "size": "size alone"}
