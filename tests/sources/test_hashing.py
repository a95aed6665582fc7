"""hashing.py: every byte is hashed once; the quick key changes with any file."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from azure.storage.extensions import checksums

from aml_mirror.core.errors import DataError
from aml_mirror.core.manifest import NOTED_BYTES
from aml_mirror.sources import Tree, hashing
from aml_mirror.sources.hashing import NOTED_FROM_BYTES, hash_files, quick_key
from aml_mirror.sources.local import LocalSource
from builders.saved import write_bytes


def tree_of(path: Path) -> Tree:
    source = LocalSource(path)
    return Tree(source, source.scan())


def key_of(folder: Path) -> str:
    tree = tree_of(folder)
    return quick_key(tree, "run-1", "ckpt", tree.files)


def test_every_file_has_its_size_its_digest_and_its_path_in_the_version(tmp_path: Path) -> None:
    data = bytes(range(256)) * 100
    write_bytes(tmp_path / "z" / "m.pt", data)
    write_bytes(tmp_path / "a.txt", b"")
    parts: list[int] = []
    found = hash_files(tree_of(tmp_path), {"z/m.pt": "m.pt", "a.txt": "z.txt"}, parts.append)
    assert [(item.source, item.path, item.bytes, item.sha256) for item in found.items] == [
        ("z/m.pt", "m.pt", len(data), hashlib.sha256(data).hexdigest()),
        ("a.txt", "z.txt", 0, hashlib.sha256(b"").hexdigest()),
    ]
    assert found.bytes == sum(parts) == len(data) and found.integrity == "sha256"


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 1000])
def test_a_file_of_any_size_is_hashed_in_parts(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "CHUNK_BYTES", 8)
    data = bytes(number % 251 for number in range(size))
    write_bytes(tmp_path / "m", data)
    (item,) = hash_files(tree_of(tmp_path), {"m": "m"}).items
    assert item.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("more", [0, 17])
def test_the_blocks_of_a_large_file_are_noted(tmp_path: Path, more: int) -> None:
    data = random.Random(1).randbytes(NOTED_BYTES) * (NOTED_FROM_BYTES // NOTED_BYTES) + bytes(more)
    (tmp_path / "m").write_bytes(data)
    (item,) = hash_files(tree_of(tmp_path), {"m": "m"}).items
    ends = [*range(NOTED_BYTES, len(data), NOTED_BYTES), len(data)]
    assert [note.sha256 for note in item.notes] == [hashlib.sha256(data[:end]).hexdigest() for end in ends]
    starts = [0, *ends[:-1]]
    assert [note.crc64 for note in item.notes] == [
        checksums.crc64.compute(data[start:end], 0) for start, end in zip(starts, ends, strict=True)
    ]
    assert "notes" not in item.as_dict()


def test_a_smaller_file_is_not_noted(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(bytes(NOTED_FROM_BYTES - 1))
    (item,) = hash_files(tree_of(tmp_path), {"m": "m"}).items
    assert item.notes == ()


@pytest.mark.parametrize("how", ["grows", "shrinks", "rewritten", "replaced"])
def test_a_file_that_changes_while_it_is_hashed_is_65(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "CHUNK_BYTES", 1 << 16)
    path = write_bytes(tmp_path / "m.pt", b"x" * (2 << 20))
    told = 0

    def change(count: int) -> None:
        nonlocal told
        told += 1
        assert told < 1000, "it reads a file that grows for ever"
        if how == "grows":
            with path.open("ab") as stream:
                stream.write(b"more")
        elif how == "shrinks":
            with path.open("r+b") as stream:
                stream.truncate(100)
        elif told == 1 and how == "rewritten":
            path.write_bytes(b"y" * (2 << 20))
        elif told == 1:
            write_bytes(tmp_path / "other", b"x" * (2 << 20)).rename(path)

    with pytest.raises(DataError, match="changed while it was read") as caught:
        hash_files(tree_of(tmp_path), {"m.pt": "m.pt"}, change)
    assert caught.value.exit_code == 65


def test_the_quick_key_holds_while_nothing_changes_and_wherever_the_listing_starts(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a")
    write_bytes(tmp_path / "b")
    tree = tree_of(tmp_path)
    assert key_of(tmp_path) == quick_key(tree, "run-1", "ckpt", ["b", "a"])
    assert quick_key(tree, "run-2", "ckpt", tree.files) != key_of(tmp_path)
    assert quick_key(tree, "run-1", "other", tree.files) != key_of(tmp_path)
    assert quick_key(tree, "run-1", "ckpt", ["a"]) != key_of(tmp_path)


@pytest.mark.parametrize("how", ["touched", "written", "longer", "replaced", "renamed"])
def test_the_quick_key_differs_after_anything_that_may_be_a_change(tmp_path: Path, how: str) -> None:
    path = write_bytes(tmp_path / "m.pt", b"good")
    before = key_of(tmp_path)
    if how == "touched":
        path.touch()
    elif how == "written":
        path.write_bytes(b"evil")
    elif how == "longer":
        path.write_bytes(b"good.")
    elif how == "replaced":
        write_bytes(tmp_path / "other", b"good").rename(path)
    else:
        path.rename(tmp_path / "n.pt")
    assert key_of(tmp_path) != before
