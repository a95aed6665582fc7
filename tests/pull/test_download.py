"""The parallel download: parts in any order, partial files of earlier attempts, older versions on the
disk.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aml_mirror.core.errors import DataError, MirrorError, ServiceUnavailable
from aml_mirror.pull import download
from aml_mirror.pull.download import Download
from aml_mirror.pull.files import Part
from aml_mirror.pull.mlflow_files import HttpFiles, LocalFiles
from aml_mirror.pull.mlflow_rest import MlflowRest
from aml_mirror.pull.wanted import LocalPart, Wanted
from aml_mirror.support.retry import Retry

PART = 1 << 10


def _for_now(error: Exception) -> MirrorError:
    return ServiceUnavailable(str(error))


class Uneven(LocalFiles):
    """A store on this disk that answers in any order and counts what it sends."""

    def __init__(self, folder: Path, has_ranges: bool = True, patience: float = 5.0) -> None:
        retry = Retry(
            patience, lambda error: ServiceUnavailable(str(error)), lambda text: None, lambda s: None
        )
        super().__init__(str(folder), retry)
        self.has_ranges = has_ranges
        self.sent = 0
        self.most = self.now = 0
        self._chance = random.Random(7)
        self._lock = threading.Lock()

    @contextmanager
    def read(self, path: str, start: int = 0, length: int | None = None, etag: str = "") -> Iterator[Part]:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self._chance.random() / 500)
        try:
            with super().read(path, start, length, etag) as part:
                yield Part(part.start, self._counted(part.chunks))
        finally:
            with self._lock:
                self.now -= 1

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            with self._lock:
                self.sent += len(chunk)
            yield chunk


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PART_BYTES", PART)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Files with sizes just below, at and above that of a part, in folders."""
    root = tmp_path / "store"
    for size in (0, 1, PART - 1, PART, PART + 1, 3 * PART + 7, 40 * PART):
        path = root / f"s{size % 3}" / f"{size}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(size).randbytes(size))
    return root


def wanted(store: Path) -> list[Wanted]:
    return [
        Wanted(
            path.relative_to(store).as_posix(),
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(store.rglob("*"))
        if path.is_file()
    ]


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("has_ranges", [True, False])
def test_files_arrive_as_they_are(store: Path, tmp_path: Path, has_ranges: bool) -> None:
    files, told = Uneven(store, has_ranges), [0]
    fetched = Download(files, tmp_path / "new", 8, lambda count: told.append(count)).run(wanted(store))
    assert contents(tmp_path / "new") == contents(store)
    assert fetched.wrong == []
    assert fetched.sha256 == {one.path: one.sha256 for one in wanted(store)}
    assert sum(told) == fetched.read == files.sent == sum(one.bytes or 0 for one in wanted(store))
    assert files.most > 1


@pytest.mark.parametrize("has_ranges", [True, False])
def test_beginnings_are_kept_and_only_the_rest_is_read(store: Path, tmp_path: Path, has_ranges: bool) -> None:
    chance = random.Random(3)
    for round_ in range(4):
        new = tmp_path / f"new-{round_}"
        kept = 0
        for path, data in contents(store).items():
            there = chance.choice([0, chance.randint(0, len(data)), len(data)])
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).write_bytes(data[:there])
            kept += there
        files = Uneven(store, has_ranges)
        fetched = Download(files, new, 4).run(wanted(store))
        assert contents(new) == contents(store)
        assert fetched.kept == kept
        if has_ranges:
            assert files.sent == sum(one.bytes or 0 for one in wanted(store)) - kept


def test_a_beginning_that_is_not_one_is_thrown_away(store: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    for path, data in contents(store).items():
        (new / path).parent.mkdir(parents=True, exist_ok=True)
        # Zeros, as on a disk after a power failure; and a file that is too long.
        (new / path).write_bytes(bytes(len(data) // 2) if len(data) != PART else bytes(2 * PART))
    fetched = Download(Uneven(store), new, 4).run(wanted(store))
    assert fetched.wrong == []
    assert contents(new) == contents(store)


@pytest.mark.parametrize("has_ranges", [True, False])
def test_one_byte_is_found_wherever_it_is(store: Path, tmp_path: Path, has_ranges: bool) -> None:
    right = wanted(store)
    path = f"s{(3 * PART + 7) % 3}/{3 * PART + 7}.bin"
    whole = (store / path).read_bytes()
    for at in (0, PART - 1, PART, 2 * PART + 5, len(whole) - 1):
        (store / path).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        fetched = Download(Uneven(store, has_ranges), tmp_path / f"new-{at}", 4).run(right)
        assert [name for name, _ in fetched.wrong] == [path]
        assert not (tmp_path / f"new-{at}" / path).exists()


def test_what_an_older_version_has_is_not_read_again(store: Path, tmp_path: Path) -> None:
    big = f"s{40 * PART % 3}/{40 * PART}.bin"
    # The end of the file changed, so half of the older file is reusable. One part of it is wrong.
    older = bytearray((store / big).read_bytes())
    older[30 * PART :] = bytes(10 * PART)
    (tmp_path / "older.bin").write_bytes(older)
    parts = {start: LocalPart(str(tmp_path / "older.bin"), start) for start in range(0, 30 * PART, PART)}
    files = Uneven(store)
    fetched = Download(files, tmp_path / "new", 4, reuse={big: parts}).run(wanted(store))
    assert contents(tmp_path / "new") == contents(store)
    assert fetched.reused == 30 * PART
    assert files.sent == sum(one.bytes or 0 for one in wanted(store)) - 30 * PART
    parts[31 * PART] = LocalPart(str(tmp_path / "older.bin"), 31 * PART)
    parts[32 * PART] = LocalPart(str(tmp_path / "gone.bin"), 0)
    fetched = Download(Uneven(store), tmp_path / "other", 4, reuse={big: parts}).run(wanted(store))
    assert contents(tmp_path / "other") == contents(store)
    assert fetched.wrong == []


class Failing(Uneven):
    """Fails at the nth read, once or from then on, with a truncated answer or an error."""

    def __init__(self, folder: Path, nth: int, stays: bool, is_cut: bool, has_ranges: bool) -> None:
        super().__init__(folder, has_ranges, patience=0.0 if stays else 60.0)
        self.nth, self.stays, self.is_cut, self.count = nth, stays, is_cut, 0

    @contextmanager
    def read(self, path: str, start: int = 0, length: int | None = None, etag: str = "") -> Iterator[Part]:
        with self._lock:
            self.count += 1
            fails = self.count >= self.nth if self.stays else self.count == self.nth
        if fails and not self.is_cut:
            raise ConnectionResetError("the connection was dropped")
        with super().read(path, start, length, etag) as part:
            yield Part(part.start, iter([b"".join(part.chunks)[:-1]]) if fails else part.chunks)


@pytest.mark.parametrize("has_ranges", [True, False])
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_store_that_fails(store: Path, tmp_path: Path, is_cut: bool, has_ranges: bool) -> None:
    (store / "s1" / "1.bin").unlink()
    for nth in (1, 2, 5):
        once = Download(Failing(store, nth, False, is_cut, has_ranges), tmp_path / f"once-{nth}", 4)
        assert once.run(wanted(store)).wrong == []
        assert contents(tmp_path / f"once-{nth}") == contents(store)
        # In a new folder each time, because files from an earlier pull are not read again.
        new = tmp_path / f"stays-{nth}"
        stays = Download(Failing(store, nth, True, is_cut, has_ranges), new, 4)
        with pytest.raises(MirrorError) as failed:
            stays.run(wanted(store))
        assert failed.value.exit_code == 75
        # Only partial files are there, and the next attempt continues them.
        for path, data in contents(new).items():
            assert (store / path).read_bytes().startswith(data)
        assert Download(Uneven(store, has_ranges), new, 4).run(wanted(store)).wrong == []
        assert contents(new) == contents(store)


def test_a_file_that_grew_is_refused(store: Path, tmp_path: Path) -> None:
    right = wanted(store)
    path = store / "s1" / "1.bin"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(DataError, match="longer than 1 bytes"):
        Download(Uneven(store), tmp_path / "new", 2).run(right)


def test_a_link_in_the_way_is_not_followed(store: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    (tmp_path / "new" / "s1").mkdir(parents=True)
    (tmp_path / "new" / "s1" / "1.bin").symlink_to(outside)
    with pytest.raises(OSError):
        Download(Uneven(store), tmp_path / "new", 2).run(wanted(store))
    assert outside.read_bytes() == b"mine"


class Ranged(BaseHTTPRequestHandler):
    """An MLflow server's artifacts behind a proxy that serves ranges without reporting a file's size."""

    store: Path

    def do_GET(self) -> None:
        data = (self.store / self.path.rpartition("/artifacts/")[2]).read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        status = 200 if "Range" not in self.headers else 206 if start < len(data) else 416
        self.send_response(status)
        if status == 416:
            self.send_header("Content-Range", f"bytes */{len(data)}")
        body = b"" if status == 416 else data[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize("there", ["nothing", "a beginning", "all of it", "more than it"])
def test_a_file_of_unknown_size_is_continued(store: Path, tmp_path: Path, there: str) -> None:
    path = next(one.path for one in wanted(store) if one.bytes == 40 * PART)
    data = (store / path).read_bytes()
    kept = {"nothing": b"", "a beginning": data[:PART], "all of it": data, "more than it": data + b"x"}[there]
    full = tmp_path / "new" / path
    full.parent.mkdir(parents=True)
    full.write_bytes(kept)
    handler = type("Handler", (Ranged,), {"store": store})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_address[1]}"
        api = MlflowRest(uri, 5.0, lambda text: None)
        root = f"{uri}/api/2.0/mlflow-artifacts/artifacts"
        fetched = Download(HttpFiles(root, api), tmp_path / "new", 2).run([Wanted(path, None)])
        server.shutdown()
    assert full.read_bytes() == data
    assert fetched.sha256[path] == hashlib.sha256(data).hexdigest()
    more = {"a beginning": -PART, "all of it": -len(data), "more than it": len(data)}
    assert fetched.read == len(data) + more.get(there, 0)
