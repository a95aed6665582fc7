"""Recognises a checkpoint whose version was copied by the storage service, and so has no SHA-256 for each
file.

The identity of such a version is made of ETags. The same run on a volume, or copied elsewhere, has other ones
or none. So the facts about each file are compared instead: a SHA-256 if the bytes passed through this
program, else the service's MD5. A file with neither is not recognised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from aml_mirror.core.errors import DataError
from aml_mirror.core.manifest import ManifestEntry
from aml_mirror.pipeline.plan import Plan
from aml_mirror.registries import keys
from aml_mirror.registries.base import Registry, VersionReader
from aml_mirror.registries.pinned_manifest import pinned_manifest
from aml_mirror.registries.records import Version
from aml_mirror.sources.tree import Tree

_CHUNK_BYTES = 4 << 20


def copied_version(registry: Registry, plan: Plan, versions: Sequence[Version]) -> Version | None:
    """Return the version that has the bytes of a plan under an identity of ETags, or None.

    Args:
        registry: is asked for the manifest of each version of the same checkpoint.
        plan: what would be mirrored.
        versions: complete versions of the same run.
    """
    for version in versions:
        if version.tags.get(keys.CHECKPOINT) == plan.checkpoint.path and _has_bytes_of(
            plan, registry, version
        ):
            return version
    return None


def _has_bytes_of(plan: Plan, registry: Registry, version: Version) -> bool:
    try:
        reader = registry.version_reader(version)
        manifest = pinned_manifest(version, reader)
    except DataError:
        return False  # verify reports the problem
    if all(item.sha256 for item in manifest.items):
        return False  # the identities were compared already
    wanted = {item.path: item for item in plan.manifest.items}
    if {item.path: item.bytes for item in manifest.items} != {
        path: item.bytes for path, item in wanted.items()
    }:
        return False
    tree = plan.located.tree
    return all(_is_same(item, wanted[item.path], reader, tree) for item in manifest.items)


def _is_same(item: ManifestEntry, new: ManifestEntry, reader: VersionReader, tree: Tree) -> bool:
    sha256 = item.sha256 or reader.stored_sha256(item.path)
    if sha256 and new.sha256:
        return sha256 == new.sha256
    return item.md5 is not None and item.md5 == (new.md5 or _md5(tree, new.source))


def _md5(tree: Tree, path: str) -> str:
    # The storage service's value for a blob. It does not protect against attacks.
    digest = hashlib.md5(usedforsecurity=False)
    with tree.open(path) as stream:
        while part := stream.read(_CHUNK_BYTES):
            digest.update(part)
    return digest.hexdigest()
