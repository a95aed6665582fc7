"""Reading files: in chunks, ahead, and as the body of a request."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aml_mirror.core.errors import DataError
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.ranged_file import read_into
from aml_mirror.sources.tree import Tree
from aml_mirror.transfer.blocks import FilePart


class Trickle(io.BytesIO):
    """A stream that returns less than requested, as FUSE does."""

    def readinto(self, buffer: object) -> int:
        return super().readinto(memoryview(buffer)[:3])  # type: ignore[arg-type]


@given(st.binary(max_size=60), st.integers(1, 80))
def test_a_buffer_is_filled_or_has_all_there_is(data: bytes, size: int) -> None:
    buffer = bytearray(size)
    count = read_into(Trickle(data), buffer)
    assert bytes(buffer[:count]) == data[:size]


def tree_of(folder: Path) -> Tree:
    source = LocalSource(folder)
    return Tree(source, source.scan())


def test_a_part_of_a_file_is_read_as_often_as_it_is_sent(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(range(100)))
    with FilePart(tree_of(tmp_path), "f", 10, 20) as part:
        assert part.seek(0, os.SEEK_END) == 20
        for _ in range(2):
            part.seek(0)
            assert [part.read(16), part.read(16), part.read(16)] == [
                bytes(range(10, 26)),
                bytes(range(26, 30)),
                b"",
            ]
            assert part.tell() == 20


def test_a_part_that_the_file_has_no_more_is_no_short_body(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(100))
    with FilePart(tree_of(tmp_path), "f", 50, 50) as part:
        os.truncate(path, 70)
        assert part.read(20) == bytes(20)
        with pytest.raises(DataError, match=r"f changed while it was sent \(it ends before byte 100\)"):
            part.read(20)


def test_a_part_of_a_file_that_was_written_to(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(100))
    tree = tree_of(tmp_path)
    path.write_bytes(bytes(101))
    with pytest.raises(DataError, match="changed while it was read"):
        FilePart(tree, "f", 0, 10)


def test_a_part_that_was_not_made_to_its_end_can_be_closed() -> None:
    """As Python does it. From 3.13 on, Python prints a traceback to stderr if that fails."""
    FilePart.__new__(FilePart).close()
