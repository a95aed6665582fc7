"""Which bytes a repair may write: those in the manifest, if the source still has all of them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aml_mirror.core.errors import DataError
from aml_mirror.core.manifest import Manifest
from aml_mirror.pipeline.mirror import _require_intact
from aml_mirror.registries import keys
from aml_mirror.sources.hashing import hash_files
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from aml_mirror.support.progress import Console
from aml_mirror.verify.repair import _made_again, _right_of, _with_sources
from builders.stored_version import StoredVersion, entry, sha256

WEIGHTS, CONFIG = b"weights" * 9, b"{}"
PATHS = {"config.json": "run/config.json", "w": "run/w"}
CONSOLE = Console(io.StringIO())


@pytest.fixture
def located(tmp_path: Path) -> Any:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/w").write_bytes(WEIGHTS)
    (tmp_path / "run/config.json").write_bytes(CONFIG)
    source = LocalSource(tmp_path)
    return SimpleNamespace(tree=Tree(source, source.scan()), source=source)


@pytest.fixture
def stored(located: Any) -> StoredVersion:
    manifest = hash_files(located.tree, {source: path for path, source in PATHS.items()})
    return StoredVersion(manifest, {"config.json": CONFIG, "w": WEIGHTS})


def sources(stored: StoredVersion, located: Any, *bad: str) -> list[str]:
    found = _with_sources(stored.version, located, stored.manifest, PATHS, list(bad), CONSOLE)
    assert found.sha256 == stored.manifest.sha256
    return [item.source for item in found.items]


def test_only_a_source_that_has_every_byte_is_written_from(stored: StoredVersion, located: Any) -> None:
    assert sources(stored, located, "w") == ["run/config.json", "run/w"]
    config, weights = stored.manifest.items
    stored.manifest = Manifest((config, replace(weights, sha256=sha256(b"other"))))
    # Correct files are not compared with the source.
    assert sources(stored, located, "config.json")
    with pytest.raises(DataError, match="no longer has the bytes of version 1 of m: w"):
        sources(stored, located, "config.json", "w")


def test_a_file_that_the_source_has_no_more_is_named(stored: StoredVersion, located: Any) -> None:
    items = (*stored.manifest.items, entry("x", b"x", sha256(b"x")))
    stored.manifest = Manifest(items)
    with pytest.raises(DataError, match=r"of version 1 of m: x$"):
        sources(stored, located, "x", "w")


def test_of_a_copied_file_etag_and_size_are_compared(stored: StoredVersion, located: Any) -> None:
    stamp = located.tree.entry("run/w").stamp
    config = stored.manifest.items[0]
    for item, same in (
        (entry("w", WEIGHTS, etag=stamp), True),
        (entry("w", WEIGHTS, etag="0x1"), False),
        (entry("w", WEIGHTS + b"x", etag=stamp), False),
    ):
        stored.manifest = Manifest((config, item))
        if same:
            assert sources(stored, located, "w")
            continue
        with pytest.raises(DataError, match="no longer has the bytes"):
            sources(stored, located, "w")


def test_a_lost_manifest_is_made_again_only_as_it_was(stored: StoredVersion, located: Any) -> None:
    assert _made_again(stored.version, located, PATHS, CONSOLE) == stored.manifest
    tags = {**stored.version.tags, keys.MANIFEST_SHA256: "0" * 64}
    with pytest.raises(DataError, match="has another one: its files are not those"):
        _made_again(replace(stored.version, tags=tags), located, PATHS, CONSOLE)


def test_of_a_version_whose_manifest_was_lost_each_file_is_read(stored: StoredVersion) -> None:
    assert set(_right_of(stored.version, stored.registry, stored.manifest)) == {"config.json", "w"}
    stored.there = {"w": b"x" + WEIGHTS[1:]}
    assert _right_of(stored.version, stored.registry, stored.manifest) == {}


def test_hash_refuses_whatever_is_not_as_it_was_mirrored(
    stored: StoredVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    _require_intact(stored.registry, stored.version)
    for change, name in (
        ({"wrong": [("mirror/safety.json", "why")]}, "mirror/safety.json"),
        ({"lost": ["mirror/MODEL_CARD.md"]}, "mirror/MODEL_CARD.md"),
    ):
        changed = replace(stored, **change)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=f"is no longer what was mirrored: {name}"):
            _require_intact(changed.registry, changed.version)
    monkeypatch.setattr(StoredVersion, "changed", lambda self, manifest: ["w"])
    with pytest.raises(DataError, match="is no longer what was mirrored: w"):
        _require_intact(stored.registry, stored.version)
