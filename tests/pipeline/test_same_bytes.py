"""A run that the service once copied, and that is now on a volume, is recognised by its known hashes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aml_mirror.core.manifest import Manifest, identity
from aml_mirror.pipeline.same_bytes import copied_version
from aml_mirror.registries import keys
from aml_mirror.sources.hashing import hash_files
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.stored_version import StoredVersion, entry, sha256

WEIGHTS, CONFIG = b"weights" * 9, b"{}"


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    (tmp_path / "w").write_bytes(WEIGHTS)
    (tmp_path / "config.json").write_bytes(CONFIG)
    source = LocalSource(tmp_path)
    tree = Tree(source, source.scan())
    return SimpleNamespace(
        checkpoint=SimpleNamespace(path="c"),
        manifest=hash_files(tree, {path: path for path in tree.files}),
        located=SimpleNamespace(tree=tree),
    )


def stored(weights: Any = None, config: Any = None, **digests: str) -> StoredVersion:
    items = (
        config or entry("config.json", CONFIG, etag="0x1", md5=md5(CONFIG)),
        weights or entry("w", WEIGHTS, etag="0x2", md5=md5(WEIGHTS)),
    )
    return StoredVersion(Manifest(items), {}, digests)


def recognised(plan: Any, version: StoredVersion) -> bool:
    return copied_version(version.registry, plan, [version.version]) is not None


def test_by_md5_or_by_what_was_sent_in_place_of_a_copy(plan: Any) -> None:
    assert recognised(plan, stored())
    without = entry("w", WEIGHTS, etag="0x2")
    assert recognised(plan, stored(without, w=sha256(WEIGHTS)))
    assert recognised(plan, stored(entry("w", WEIGHTS, sha256(WEIGHTS))))


@pytest.mark.parametrize(
    "version",
    [
        stored(entry("w", WEIGHTS, etag="0x2", md5=md5(b"other"))),
        # Nothing is known about it.
        stored(entry("w", WEIGHTS, etag="0x2")),
        stored(entry("w", WEIGHTS + b"x", etag="0x2", md5=md5(WEIGHTS))),
        stored(entry("v", WEIGHTS, etag="0x2", md5=md5(WEIGHTS))),
        # The sent bytes take precedence over an MD5.
        stored(w=sha256(b"other")),
        stored(entry("w", WEIGHTS, sha256(b"other"))),
        # Its identity has already been compared.
        stored(entry("w", WEIGHTS, sha256(WEIGHTS)), entry("config.json", CONFIG, sha256(CONFIG))),
    ],
    ids=["md5", "nothing known", "size", "path", "sent", "hashed", "all hashed"],
)
def test_what_is_not_known_to_be_the_same_is_another_one(plan: Any, version: StoredVersion) -> None:
    assert not recognised(plan, version)


def test_another_checkpoint_or_a_manifest_that_was_changed_is_another_one(plan: Any) -> None:
    other = stored()
    digest = other.version.tags[keys.MANIFEST_SHA256]
    tags = {**other.version.tags, keys.CHECKPOINT: "d", keys.IDENTITY: identity("run-1", "d", digest)}
    assert copied_version(other.registry, plan, [replace(other.version, tags=tags)]) is None
    version = other.version
    other.manifest = Manifest(other.manifest.items[:1])
    assert copied_version(other.registry, plan, [version]) is None
