"""Copies a version to a registry that several workspaces share: ``aml-mirror share``.

The service copies the version, so no byte passes through this program on the way. Afterwards every byte of
the copy is read and compared with the manifest of the version. A version that exists there is compared and
not copied again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from aml_mirror.core.errors import ConfigurationError, DataError, UsageError
from aml_mirror.core.manifest import Manifest, ManifestEntry
from aml_mirror.core.settings import Settings
from aml_mirror.registries import keys
from aml_mirror.registries.base import Sharing
from aml_mirror.registries.pinned_manifest import pinned_manifest
from aml_mirror.registries.records import FileDigest, Version
from aml_mirror.support.progress import Console, amount
from aml_mirror.verify.verify import open_version

SCHEMA = "aml-mirror/share/v1"
# What a copy must state about itself in the same way as its original.
_SAME = (keys.IDENTITY, keys.MANIFEST_SHA256, keys.RUN_ID, keys.CHECKPOINT)


@dataclass(frozen=True, slots=True)
class Shared:
    """The result of a share."""

    outcome: str
    """``shared``, or ``already-shared``."""
    version: Version
    uri: str
    files: int
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        """The object that ``share --json`` prints."""
        return {
            "schema": SCHEMA,
            "outcome": self.outcome,
            "exit_code": 0,
            "model_name": self.version.model,
            "model_version": self.version.number,
            "uri": self.uri,
            "manifest_sha256": self.version.tags.get(keys.MANIFEST_SHA256),
            "files": self.files,
            "bytes": self.bytes,
        }

    def text(self) -> str:
        """Return the result as text."""
        word = "shared" if self.outcome == "shared" else "already shared"
        return (
            f"{word}: {self.version.model} version {self.version.number} as {self.uri}, {self.files} "
            f"file(s), {amount(self.bytes)}, compared with the manifest"
        )


def share(settings: Settings, console: Console) -> Shared:
    """Copy the version that the settings name to the registry that they name, and check the copy.

    Raises:
        UsageError: one of them is missing.
        ConfigurationError: there is no such registry, or this kind of registry cannot share.
        DataError: the version cannot be trusted, another version has its number there, or a byte differs.
    """
    if not settings.registry_name:
        raise UsageError("no registry is named", "pass --registry NAME")
    registry, version = open_version(settings, console)
    sharing = registry.sharing(settings.registry_name)
    if sharing is None:
        raise ConfigurationError(
            f"{registry.description} cannot share versions", "share needs an Azure ML workspace"
        )
    manifest = pinned_manifest(version, registry.version_reader(version))
    there = sharing.find(version.model, version.number)
    outcome = "already-shared" if there is not None else "shared"
    if there is None:
        console.say(f"{sharing.description} copies {amount(manifest.bytes)}")
        sharing.send(version)
        there = sharing.find(version.model, version.number)
    # It is not documented whether the service copies properties. Those that exist must be right.
    if there is None or any(
        there.tags.get(key, mine) != mine for key in _SAME if (mine := version.tags.get(key))
    ):
        raise DataError(
            f"{sharing.description} has another version {version.number} of {version.model}: its identity "
            "differs",
            "versions of a registry cannot be replaced: mirror the run under another model name",
        )
    with console.stage("comparing", manifest.bytes) as progress:
        _compare(sharing, there, manifest, progress)
    return Shared(outcome, version, sharing.uri(there), len(manifest.items), manifest.bytes)


def _compare(sharing: Sharing, there: Version, manifest: Manifest, progress: Any) -> None:
    files = sharing.files(there)
    wanted = {item.path for item in manifest.items}
    wrong = [f"{path} is missing" for path in sorted(wanted - files.keys())]
    wrong += [f"{path} was added" for path in sorted(files.keys() - wanted)]
    for item in manifest.items:
        if wrong:
            break
        if why := _difference(item, files[item.path], partial(sharing.hashed, there, item.path)):
            wrong.append(f"{item.path}: {why}")
        progress(item.bytes)
    if wrong:
        raise DataError(
            f"{there.model} version {there.number} in {sharing.description} is not what was mirrored: "
            f"{wrong[0]}",
            "do not use that copy: archive it, and share the version under another model name",
        )


def _difference(item: ManifestEntry, size: int, read: Any) -> str:
    if size != item.bytes:
        return f"it has {size} bytes, the manifest says {item.bytes}"
    found: FileDigest = read()
    if item.sha256 and found.sha256 != item.sha256:
        return f"its SHA-256 is {found.sha256}, the manifest says {item.sha256}"
    if not item.sha256 and item.md5 and found.md5 != item.md5:
        return f"its MD5 is {found.md5}, the manifest says {item.md5}"
    return ""
