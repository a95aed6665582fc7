"""sources/local.py: which files of a folder are listed, and that no others are ever read."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aml_mirror.core.errors import DataError, NotAllowed, NotReadable, SourceNotFound
from aml_mirror.sources import Entry, Tree, local
from aml_mirror.sources.local import LocalSource
from builders.permissions import public_folder, somebody_else
from builders.saved import write_bytes


@pytest.fixture
def public() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder


def entry_of(folder: Path, name: str) -> tuple[LocalSource, Entry]:
    source = LocalSource(folder)
    return source, source.scan().files[name]


def test_files_are_listed_with_their_size_below_the_source(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b" / "m.pt", b"12345")
    write_bytes(tmp_path / "c.txt", b"")
    (tmp_path / "empty").mkdir()
    listing = LocalSource(tmp_path).scan()
    assert {path: entry.bytes for path, entry in listing.files.items()} == {"a/b/m.pt": 5, "c.txt": 0}
    assert not listing.refused and not listing.directory_links


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("nothing", "does not exist"),
        ("run.pt/below", "broken link"),
        ("loop", "loops"),
        ("..", "leaves the run"),
        ("../outside", "leaves the run"),
        ("../outside/secret.txt", "leaves the run"),
        ("/etc/passwd", "leaves the run"),
        ("../run-2/x.pt", "leaves the run"),
        (".", "loops"),
        ("../run", "loops"),
        ("/dev/null", "leaves the run"),
        ("fifo", "neither a file nor a directory"),
    ],
)
def test_a_link_that_leaves_the_run_dangles_or_loops_is_refused_with_the_reason(
    tmp_path: Path, target: str, why: str
) -> None:
    run = tmp_path / "run"
    write_bytes(run / "run.pt")
    write_bytes(tmp_path / "outside" / "secret.txt")
    write_bytes(tmp_path / "run-2" / "x.pt")
    os.mkfifo(run / "fifo")
    (run / "loop").symlink_to("loop")
    (run / "link").symlink_to(target)
    listing = LocalSource(run).scan()
    assert why in listing.refused["link"]
    assert list(listing.files) == ["run.pt"] and not listing.directory_links


def test_links_to_parents_and_through_each_other_loop(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b" / "m.pt")
    (tmp_path / "a" / "b" / "up").symlink_to("../../a")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    listing = LocalSource(tmp_path).scan()
    assert {path for path, why in listing.refused.items() if "loops" in why} == {"a/b/up", "one", "two"}


def test_links_inside_the_run_are_followed(tmp_path: Path) -> None:
    write_bytes(tmp_path / "steps" / "10" / "m.pt", b"weights")
    (tmp_path / "last").symlink_to("steps/10")
    (tmp_path / "latest.pt").symlink_to(tmp_path / "last" / "m.pt")
    source = LocalSource(tmp_path)
    listing = source.scan()
    assert listing.directory_links == {"last": "steps/10"}
    entry = listing.files["latest.pt"]
    assert (entry.target, entry.bytes) == ("steps/10/m.pt", 7)
    assert source.read(entry, 0, 100) == b"weights" and source.is_unchanged(entry)


def test_fifos_sockets_and_devices_are_refused_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.pt")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.pt"))
        refused = LocalSource(tmp_path).scan().refused
    assert set(refused) == {"fifo.pt", "socket.pt"}
    assert all("neither" in why for why in refused.values())


@pytest.mark.parametrize(
    "name", ["new\nline", "bell\a", "\x1b[31m", "\u202egnp.exe", "  ", "é", "a\\b", "#?%"]
)
def test_any_utf8_name_is_listed_and_read(tmp_path: Path, name: str) -> None:
    write_bytes(tmp_path / name / name, b"1")
    source, entry = entry_of(tmp_path, f"{name}/{name}")
    assert source.read(entry, 0, 9) == b"1"


def test_a_name_that_is_not_utf8_is_refused_with_all_that_lies_below(tmp_path: Path) -> None:
    for path in (b"file\xff.pt", b"dir\xfe"):
        full = os.fsencode(tmp_path) + b"/" + path
        if path.startswith(b"dir"):
            os.mkdir(full)
            full += b"/m.pt"
        os.close(os.open(full, os.O_CREAT | os.O_WRONLY))
    write_bytes(tmp_path / "m.pt")
    os.symlink(b"file\xff.pt", os.fsencode(tmp_path) + b"/link")
    os.symlink(b"dir\xfe", os.fsencode(tmp_path) + b"/dir")
    source = LocalSource(tmp_path)
    listing = source.scan()
    assert sorted(listing.files) == ["link", "m.pt"]
    assert sorted(listing.refused.values()) == ["its name is not UTF-8"] * 2
    assert all(path.isprintable() for path in listing.refused)
    assert list(Tree(source, listing).walk()) == ["link", "m.pt"]


def test_the_sources_own_name_is_shown_as_valid_text(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/run\xff"
    os.mkdir(folder)
    source = LocalSource(os.fsdecode(folder))
    assert source.scan().files == {}
    assert source.name == "run\\udcff"
    source.uri.encode()


def test_the_name_is_the_one_given_and_the_place_the_real_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "given").symlink_to("real")
    for given in (tmp_path / "given", f"{tmp_path}/given/", f"{tmp_path}/x/../given"):
        assert LocalSource(given).name == "given"
        assert LocalSource(given).uri == str(tmp_path / "real")


def test_no_such_folder_is_66(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file")
    (tmp_path / "dangling").symlink_to("x")
    for name, why in (
        ("none", "does not exist"),
        ("file", "not a directory"),
        ("dangling", "does not exist"),
    ):
        with pytest.raises(SourceNotFound, match=why) as caught:
            LocalSource(tmp_path / name).scan()
        assert caught.value.exit_code == 66


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o333])
def test_a_folder_that_may_not_be_read_is_77(public: Path, mode: int) -> None:
    write_bytes(public / "run" / "m.pt")
    (public / "run").chmod(mode)
    with somebody_else(), pytest.raises(NotAllowed) as caught:
        LocalSource(public / "run").scan()
    assert caught.value.exit_code == 77


def test_a_folder_whose_listing_fails_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> None:
        raise OSError(errno.EACCES, "Permission denied")  # as on a share that squashes root

    write_bytes(tmp_path / "m.pt")
    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(NotAllowed, match="cannot be listed"):
        LocalSource(tmp_path).scan()


def test_one_unreadable_file_or_folder_does_not_hide_the_others(public: Path) -> None:
    for name in ("ok.pt", "secret.pt", "shut/m.pt", "open/m.pt"):
        write_bytes(public / name)
    (public / "secret.pt").chmod(0)
    (public / "into").symlink_to("shut/m.pt")
    (public / "shut").chmod(0)
    with somebody_else():
        source = LocalSource(public)
        listing = source.scan()
        assert sorted(listing.files) == ["ok.pt", "open/m.pt", "secret.pt"]
        assert "Permission denied" in listing.refused["shut"]
        assert "Permission denied" in listing.refused["into"]
        assert source.read(listing.files["ok.pt"], 0, 1) == b"x"
        with pytest.raises(NotAllowed) as caught:
            source.open(listing.files["secret.pt"])
    assert caught.value.exit_code == 77 and "secret.pt" in caught.value.message
    assert list(listing.unknown) == ["shut"]
    assert isinstance(listing.unknown["shut"], NotReadable)
    assert f"{public}/shut cannot be listed: Permission denied" in listing.unknown["shut"].message


@pytest.mark.parametrize(
    ("number", "known"), [(errno.ESTALE, 75), (errno.EIO, 75), (errno.EPERM, 77), (errno.ENOENT, 0)]
)
def test_a_folder_below_that_a_share_does_not_list_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, known: int
) -> None:
    scandir = os.scandir

    def fail(path: str) -> Any:
        if path.endswith(("late", "lost+found")):
            raise OSError(number, os.strerror(number))
        return scandir(path)

    for name in ("early/m.pt", "late/m.pt", "lost+found/m.pt"):
        write_bytes(tmp_path / name)
    monkeypatch.setattr(os, "scandir", fail)
    listing = LocalSource(tmp_path).scan()
    assert list(listing.files) == ["early/m.pt"]
    assert sorted(listing.refused) == ["late", "lost+found"]
    assert {path: error.exit_code for path, error in listing.unknown.items()} == (
        {"late": known} if known else {}
    )


@pytest.mark.parametrize(
    "kind", ["link outside", "link to itself", "directory", "fifo", "other file", "gone"]
)
def test_what_takes_a_files_place_after_the_listing_is_not_read(tmp_path: Path, kind: str) -> None:
    run = tmp_path / "run"
    path = write_bytes(run / "m.pt", b"good")
    secret = write_bytes(tmp_path / "secret", b"evil")
    source, entry = entry_of(run, "m.pt")
    moved = path.rename(tmp_path / "moved")
    if kind == "link outside":
        path.symlink_to(secret)
    elif kind == "link to itself":
        path.symlink_to(moved)
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "other file":
        secret.rename(path)
        os.utime(path, ns=(moved.stat().st_atime_ns, moved.stat().st_mtime_ns))
    for attempt in (lambda: source.open(entry), lambda: source.read(entry, 0, 4)):
        with pytest.raises(DataError, match="deleted" if kind == "gone" else "changed") as caught:
            attempt()
        assert caught.value.exit_code == 65
    assert not source.is_unchanged(entry)


def test_a_folder_on_the_way_that_became_a_link_is_noticed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_bytes(run / "ckpt" / "m.pt", b"good")
    write_bytes(tmp_path / "evil" / "m.pt", b"evil")
    source, entry = entry_of(run, "ckpt/m.pt")
    (run / "ckpt").rename(run / "old")
    (run / "ckpt").symlink_to("../evil")
    with pytest.raises(DataError):
        source.read(entry, 0, 4)
    assert not source.is_unchanged(entry)


def test_a_file_written_over_with_its_time_put_back_is_changed(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "m.pt", b"good")
    source, entry = entry_of(tmp_path, "m.pt")
    before = path.stat()
    path.write_bytes(b"evil")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not source.is_unchanged(entry)
    with pytest.raises(DataError):
        source.open(entry)


def test_any_range_of_a_file_is_read_as_far_as_there_is_one(tmp_path: Path) -> None:
    write_bytes(tmp_path / "m.pt", bytes(range(100)))
    source, entry = entry_of(tmp_path, "m.pt")
    for offset, length in ((0, 100), (0, 1000), (90, 20), (99, 1), (100, 1), (101, 5), (5, 0), (0, 1 << 62)):
        assert source.read(entry, offset, length) == bytes(range(100))[offset : offset + length]
    assert source.read(entry, 1 << 70, 1 << 70) == b""
    with source.open(entry) as stream:
        stream.seek(98)
        assert stream.read() == b"bc"


def test_reading_leaves_no_descriptor_open(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "m.pt")
    source, entry = entry_of(tmp_path, "m.pt")
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    source.read(entry, 0, 1)
    path.write_bytes(b"changed")
    with pytest.raises(DataError):
        source.read(entry, 0, 1)
    assert not before or len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kind", ["files", "links", "refused", "folders"])
def test_more_than_any_run_holds_is_refused_and_not_held(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MAX_ENTRIES", 20)
    (tmp_path / "target").mkdir()
    for number in range(30):
        path = tmp_path / str(number)
        if kind == "files":
            path.touch()
        elif kind == "folders":
            path.mkdir()
        else:
            path.symlink_to("target" if kind == "links" else "nothing")
    with pytest.raises(DataError, match="more than 20 files"):
        LocalSource(tmp_path).scan()


def test_one_folder_is_listed_no_further_than_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MAX_ENTRIES", 20)
    write_bytes(tmp_path / "m.pt")
    with os.scandir(tmp_path) as items:
        (item,) = items
    listed = 0

    @contextmanager
    def endless(path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        def forever() -> Iterator[os.DirEntry[str]]:
            nonlocal listed
            while True:
                listed += 1
                assert listed < 100, "it lists a folder without end"
                yield item

        yield forever()

    monkeypatch.setattr(os, "scandir", endless)
    LocalSource(tmp_path).scan()
    assert listed == 21


def test_a_run_on_a_read_only_folder_is_read(public: Path) -> None:
    write_bytes(public / "run" / "m.pt")
    (public / "run").chmod(0o555)
    with somebody_else():
        source, entry = entry_of(public / "run", "m.pt")
        assert source.read(entry, 0, 1) == b"x"
