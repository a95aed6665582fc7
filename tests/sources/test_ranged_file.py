"""Reading files: in chunks, ahead, and as the body of a request."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aml_mirror.core.errors import DataError
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.ranged_file import chunks, chunks_ahead
from aml_mirror.sources.tree import Tree
from aml_mirror.transfer.blocks import FilePart


class Trickle(io.BytesIO):
    """A stream that gives less than it is asked for, as FUSE does."""

    def readinto(self, buffer: object) -> int:
        return super().readinto(memoryview(buffer)[:3])  # type: ignore[arg-type]


@given(st.binary(max_size=60), st.integers(1, 20))
def test_chunks_are_whole_and_in_order(data: bytes, size: int) -> None:
    expected = [data[start : start + size] for start in range(0, len(data), size)]
    assert [bytes(part) for part in chunks(Trickle(data), size)] == expected
    seen: list[bytes] = []
    ahead = chunks_ahead(Trickle(data), size, lambda part: seen.append(bytes(part)))
    assert [bytes(part) for part in ahead] == expected
    assert seen == [*expected, b""]


def test_a_failure_of_the_reader_is_raised_and_no_thread_stays() -> None:
    readers: set[threading.Thread] = set()

    class Broken(io.BytesIO):
        def readinto(self, buffer: object) -> int:
            readers.add(threading.current_thread())
            if self.tell() >= 8:
                raise OSError(5, "Input/output error")
            return super().readinto(buffer)  # type: ignore[arg-type]

    found = []
    with pytest.raises(OSError, match="Input/output"):
        for part in chunks_ahead(Broken(bytes(100)), 4, lambda part: None):
            found.append(bytes(part))
    assert found == [bytes(4), bytes(4)]
    # These threads only: how many the process has is also up to the tests before this one.
    (reader,) = readers
    assert reader is not threading.current_thread()
    reader.join(60)
    assert not reader.is_alive()


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
    """As Python does it: from 3.13 on with a traceback on stderr where that fails."""
    FilePart.__new__(FilePart).close()
