"""hashing.py: every byte is hashed once. The quick key changes with any file."""

from __future__ import annotations

import hashlib
import random
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from azure.storage.extensions import checksums
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.core.errors import DataError
from aml_mirror.sources import Tree, block_reader
from aml_mirror.sources.block_reader import CRC64, MD5, BlockReader
from aml_mirror.sources.hashing import CRC64_FROM_BYTES, WHOLE_BYTES, hash_files, quick_key
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


@pytest.mark.parametrize("more", [0, 17])
def test_the_blocks_of_a_large_file_are_noted(tmp_path: Path, more: int) -> None:
    step = 8 << 20
    data = random.Random(1).randbytes(step) * (CRC64_FROM_BYTES // step) + bytes(more)
    (tmp_path / "m").write_bytes(data)
    (item,) = hash_files(tree_of(tmp_path), {"m": "m"}, block_bytes=step).items
    ends = [*range(step, len(data), step), len(data)]
    starts = [0, *ends[:-1]][: len(ends)]
    assert item.sha256 == hashlib.sha256(data).hexdigest()
    assert item.blocks is not None and item.blocks.block_bytes == step
    parts = [data[start:end] for start, end in zip(starts, ends, strict=True) if start < end]
    assert [item.blocks.digest(number) for number in range(len(item.blocks))] == [
        blake3(part).digest() for part in parts
    ]
    assert [item.blocks.crc64(number) for number in range(len(item.blocks))] == [
        checksums.crc64.compute(part, 0).to_bytes(8, "little") for part in parts
    ]
    assert "blocks" not in item.as_dict()


def test_a_smaller_file_has_digests_of_its_blocks_or_none(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(bytes(WHOLE_BYTES + 1))
    (tmp_path / "s").write_bytes(bytes(WHOLE_BYTES))
    large, small = hash_files(tree_of(tmp_path), {"m": "m", "s": "s"}, block_bytes=1 << 19).items
    assert large.blocks is not None and len(large.blocks) == 3 and large.blocks.crcs == b""
    assert small.blocks is None


@settings(max_examples=40)
@given(st.binary(max_size=60), st.integers(1, 20), st.integers(1, 20), st.sampled_from(["", CRC64, MD5]))
def test_a_file_of_any_size_is_read_in_blocks_of_any_size(
    data: bytes, block: int, part: int, kind: str
) -> None:
    with TemporaryDirectory() as folder, patch.object(block_reader, "PART_BYTES", part):
        Path(folder, "m").write_bytes(data)
        seen = Seen()
        told: list[int] = []
        reader = BlockReader(tree_of(Path(folder)), "m", block, kind, seen, told.append)
        found = list(reader)
    expected = [data[start : start + block] for start in range(0, len(data), block)]
    assert [(one.offset, one.length) for one in found] == [
        (number * block, len(part)) for number, part in enumerate(expected)
    ]
    assert [one.digest for one in found] == [blake3(part).digest() for part in expected]
    take = {
        "": lambda part: b"",
        CRC64: lambda part: checksums.crc64.compute(part, 0).to_bytes(8, "little"),
        MD5: lambda part: hashlib.md5(part, usedforsecurity=False).digest(),
    }[kind]
    assert [one.checksum for one in found] == [take(part) for part in expected]
    assert reader.sha256 == hashlib.sha256(data).hexdigest()
    assert (bytes(seen.data), seen.is_over) == (data, True)
    assert (sum(told), reader.count) == (len(data), len(data))


class Seen:
    """A check that stores what it sees."""

    def __init__(self) -> None:
        self.data, self.is_over = bytearray(), False

    def take(self, part: memoryview) -> None:
        self.data += part

    def ended(self) -> None:
        self.is_over = True


def test_a_failure_of_a_check_or_of_the_volume_is_raised_and_no_thread_stays(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(bytes(1000))

    class Broken(Seen):
        def take(self, part: memoryview) -> None:
            raise ValueError("no")

    before = set(threading.enumerate())
    with patch.object(block_reader, "PART_BYTES", 8), pytest.raises(ValueError, match="no"):
        list(BlockReader(tree_of(tmp_path), "m", 16, check=Broken()))
    tree = tree_of(tmp_path)
    (tmp_path / "m").unlink()
    with pytest.raises(DataError, match="deleted"):
        list(BlockReader(tree, "m", 16))
    for thread in set(threading.enumerate()) - before:
        thread.join(600)
        assert not thread.is_alive()


@pytest.mark.parametrize("how", ["grows", "shrinks", "rewritten", "replaced"])
def test_a_file_that_changes_while_it_is_hashed_is_65(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_reader, "PART_BYTES", 1 << 16)
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
