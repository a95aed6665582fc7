"""Compares what a version should contain with what its store lists, before a byte is read."""

from __future__ import annotations

from collections.abc import Mapping

from aml_mirror.core.errors import DataError, SourceNotFound
from aml_mirror.core.manifest import Manifest
from aml_mirror.pull.files import Listed
from aml_mirror.pull.pulled_folder import require_safe_paths
from aml_mirror.pull.resolved import ResolvedVersion
from aml_mirror.pull.wanted import Wanted

# The most differences that an error lists.
LISTED = 10


def files_to_bring(
    version: ResolvedVersion, manifest: Manifest | None, listed: Mapping[str, Listed]
) -> list[Wanted]:
    """Return the files of a version, with what is known about each.

    Args:
        version: for messages.
        manifest: what it should contain; None: another program made it, and all listed files belong to it.
        listed: what its store contains.

    Raises:
        SourceNotFound: it has no files.
        DataError: the store contains other files than the manifest, or a path leads out of a folder.
    """
    found = _as_listed(version, listed) if manifest is None else _as_manifest(version, manifest, listed)
    require_safe_paths([one.path for one in found])
    return found


def not_what_was_mirrored(version: ResolvedVersion, differences: list[str]) -> DataError:
    """Return the error for a version whose files are wrong."""
    name, number = version.version.model, version.version.number
    return DataError(
        f"version {number} of {name} is not what was mirrored: " + "; ".join(differences[:LISTED]),
        f"repair it with: aml-mirror repair {name}:{number}",
    )


def _as_listed(version: ResolvedVersion, listed: Mapping[str, Listed]) -> list[Wanted]:
    if not listed:
        name, number = version.version.model, version.version.number
        raise SourceNotFound(
            f"version {number} of {name} has no files in {version.files.uri}",
            "check the version in its registry",
        )
    return [Wanted(path, one.bytes, etag=one.etag) for path, one in sorted(listed.items())]


def _as_manifest(version: ResolvedVersion, manifest: Manifest, listed: Mapping[str, Listed]) -> list[Wanted]:
    entries = {item.path: item for item in manifest.items}
    differences = [f"{path} is missing" for path in sorted(entries.keys() - listed.keys())]
    differences += [
        f"{path} has {listed[path].bytes} bytes instead of {item.bytes}"
        for path, item in entries.items()
        if path in listed and listed[path].bytes not in (None, item.bytes)
    ]
    differences += [f"{path} does not belong to it" for path in sorted(listed.keys() - entries.keys())]
    if differences:
        raise not_what_was_mirrored(version, differences)
    return [
        Wanted(path, item.bytes, item.sha256, item.md5, listed[path].etag) for path, item in entries.items()
    ]
