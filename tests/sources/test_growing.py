"""Logs that grow while they are read count as they were listed; everything else is a change."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.core.errors import DataError
from aml_mirror.sources.growing import log_view
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree

DATA = bytes(range(100))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "events"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def view(log: Path) -> Tree:
    source = LocalSource(log.parent)
    return log_view(Tree(source, source.scan()), ["events"])


def grow(log: Path) -> None:
    with log.open("ab") as stream:
        stream.write(b"more")


def replace(log: Path) -> None:
    """A longer file in its place counts as grown: only the digest of its beginning tells."""
    log.unlink()
    log.write_bytes(DATA[::-1] + b"more")


@pytest.mark.parametrize("change", [lambda log: None, grow, replace])
def test_what_was_listed_is_read_and_nothing_after_it(
    log: Path, view: Tree, change: Callable[[Path], None]
) -> None:
    change(log)
    data = log.read_bytes()[:100]
    with view.open("events") as stream:
        assert stream.read() == data
    assert view.read("events", 0, 1000) == data
    assert view.read("events", 90, 4) == data[90:94] and view.read("events", 98, 9) == data[98:]
    assert view.read("events", 100, 5) == view.read("events", 200, 5) == b""
    assert view.source.is_unchanged(view.entry("events"))
    assert view.source.changed([view.entry("events")]) == []


def test_a_stream_of_what_was_listed_can_be_read_from_any_place(log: Path, view: Tree) -> None:
    grow(log)
    with view.open("events") as stream:
        assert stream.seek(-10, io.SEEK_END) == 90 and stream.read() == DATA[90:]
        assert stream.seek(5) == 5 and stream.read(3) == DATA[5:8]
        assert stream.seek(2, io.SEEK_CUR) == 10 and stream.read(1) == DATA[10:11]
        assert stream.tell() == 11 and stream.seek(-50) == 0
        assert stream.seek(300) == 300 and stream.read() == b""


@pytest.mark.parametrize("how", ["cut", "deleted", "a folder"])
def test_what_is_shorter_or_gone_was_changed(log: Path, view: Tree, how: str) -> None:
    log.unlink()
    if how == "cut":
        log.write_bytes(DATA[:-1])
    elif how == "a folder":
        log.mkdir()
    entry = view.entry("events")
    assert not view.source.is_unchanged(entry) and view.source.changed([entry]) == ["events"]
    with pytest.raises(DataError):
        view.open("events")
    with pytest.raises(DataError):
        view.read("events", 0, 5)


def test_the_sizes_of_an_earlier_attempt_count(log: Path) -> None:
    (log.parent / "later").write_bytes(b"x")
    (log.parent / "other").write_bytes(b"y")
    source = LocalSource(log.parent)
    tree, logs = Tree(source, source.scan()), ["events", "later"]
    seen = log_view(tree, logs, {"events": 40})
    assert sorted(seen.files) == ["events", "other"] and seen.size("events") == 40
    assert seen.read("events", 0, 99) == DATA[:40] and seen.read("other", 0, 9) == b"y"
    # One that has become shorter than it was seen is hidden.
    assert sorted(log_view(tree, logs, {"events": 101, "later": 1}).files) == ["later", "other"]
    assert sorted(log_view(tree, logs).files) == ["events", "later", "other"]
