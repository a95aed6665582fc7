"""Downloads the files of a version from a store to a folder, in parallel, and hashes them on the way.

Every file is split into parts of ``PART_BYTES``. Workers take the parts in order and fetch them at the same
time. The worker with the next part of a file hashes it and appends it, together with all later parts that are
waiting. So a file on the disk is always a correct beginning, and its size says where to continue. No more
than ``WINDOW`` parts are in memory, whatever the sizes of the files.

A part comes from the store, or from an older version on this disk. The SHA-256 of the whole file decides,
computed from what was written. If it is wrong and parts of the file did not come from the store just now, the
file is downloaded again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aml_mirror.core.errors import DataError, ServiceUnavailable
from aml_mirror.pull.files import Files
from aml_mirror.pull.wanted import PART_BYTES, Fetched, Reuse, Wanted
from aml_mirror.pull.written_file import WrittenFile, read_local

# The number of parts in memory at the same time: 48 MiB in total.
WINDOW = 24
_HASHERS, _SYNCERS = 2, 8
# Files that are whole and not yet on the disk, each with a descriptor.
_UNSYNCED = 64
AGAIN = "run the same command again: it continues where this one stopped"

_Task = Callable[[], None]


class Download:
    """Downloads files into a folder.

    Args:
        files: the source.
        folder: the target; created if it does not exist.
        connections: how many parts are fetched at the same time.
        progress: called with the number of bytes that are in place.
        reuse: parts that already exist on this disk.
    """

    def __init__(
        self,
        files: Files,
        folder: Path,
        connections: int,
        progress: Callable[[int], None] = lambda count: None,
        reuse: Reuse | None = None,
    ) -> None:
        self._files = files
        self._folder = folder
        self._connections = connections
        self._progress = progress
        self._reuse = reuse or {}
        self._permits = threading.Semaphore(max(WINDOW, connections + 4))
        self._take = threading.Lock()
        self._note = threading.Lock()
        # Buffers are reused: the system does not get back memory that threads free and request again.
        self._spare: list[bytearray] = []
        self._failure: BaseException | None = None
        self._result = Fetched()
        self._hashing = ThreadPoolExecutor(_HASHERS, "hash")
        self._syncing = ThreadPoolExecutor(_SYNCERS, "sync")
        self._unsynced = threading.Semaphore(_UNSYNCED)

    def run(self, wanted: list[Wanted]) -> Fetched:
        """Download the files.

        Raises:
            MirrorError: the store or the disk fails. What was written stays for the next attempt.
        """
        tasks = self._tasks(wanted)
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._hashing, self._syncing, ThreadPoolExecutor(self._connections, "pull") as pool:
            try:
                workers = [pool.submit(self._work, tasks) for _ in range(self._connections)]
                for worker in workers:
                    worker.result()
            except BaseException as stop:
                # A signal: no new part may begin.
                self._failure = self._failure or stop
                raise
        if self._failure is not None:
            raise self._failure
        return self._result

    def _work(self, tasks: Iterator[_Task]) -> None:
        while True:
            # In order, each with its permit: the part that the others wait for is always being fetched.
            with self._take:
                self._permits.acquire()
                task = next(tasks, None) if self._failure is None else None
            if task is None:
                self._permits.release()
                return
            try:
                task()
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
                self._failure = self._failure or error
                self._permits.release()
                return

    def _tasks(self, wanted: list[Wanted]) -> Iterator[_Task]:
        for one in wanted:
            file = WrittenFile(one, self._folder.joinpath(*one.path.split("/")))
            size = one.bytes
            if not self._files.has_ranges or size is None:
                yield lambda file=file: self._stream(file)  # type: ignore[misc]
                continue
            if file.there:
                file.is_busy = True
                yield lambda file=file: self._resume(file)  # type: ignore[misc]
            start = file.there
            if size == 0 or start == size:
                if not start:
                    yield lambda file=file: self._arrived(file, 0, memoryview(b""))  # type: ignore[misc]
                continue
            # The parts of a file that was begun end at the same offsets as those of a new one.
            while start < size:
                end = min((start // PART_BYTES + 1) * PART_BYTES, size)
                yield lambda file=file, start=start, end=end: self._part(file, start, end)  # type: ignore[misc]
                start = end

    def _resume(self, file: WrittenFile) -> None:
        self._keep(file)
        self._drain(file)
        self._permits.release()

    def _keep(self, file: WrittenFile) -> None:
        file.keep_beginning()
        with self._note:
            self._result.kept += file.at
        self._progress(file.at)

    def _part(self, file: WrittenFile, start: int, end: int) -> None:
        self._arrived(file, start, self._fetched(file, start, end))

    def _fetched(self, file: WrittenFile, start: int, end: int, fresh: bool = False) -> memoryview:
        wanted = file.wanted
        data = self._buffer(end - start)
        local = None if fresh else self._reuse.get(wanted.path, {}).get(start)
        if local is not None and read_local(local, data):
            file.only_fresh = False
            with self._note:
                self._result.reused += len(data)
            return data
        whole = start == 0 and end == wanted.bytes

        def fetch() -> None:
            at = 0
            span = {} if whole else {"start": start, "length": end - start}
            with self._files.read(wanted.path, etag=wanted.etag, **span) as part:
                if part.start != start:
                    raise ServiceUnavailable(f"{self._files.uri} sent the wrong part of {wanted.path}", AGAIN)
                for chunk in part.chunks:
                    if at + len(chunk) > len(data):
                        raise DataError(
                            f"{wanted.path} is longer than {wanted.bytes} bytes in {self._files.uri}",
                            "it was changed: see 'aml-mirror verify'",
                        )
                    data[at : at + len(chunk)] = chunk
                    at += len(chunk)
            if at != len(data):
                raise ServiceUnavailable(f"an answer of {self._files.uri} was truncated", AGAIN)

        self._files.retried(fetch)
        with self._note:
            self._result.read += len(data)
        return data

    def _buffer(self, size: int) -> memoryview:
        with self._note:
            buffer = self._spare.pop() if self._spare else bytearray(PART_BYTES)
        return memoryview(buffer)[:size]

    def _give_back(self, data: memoryview) -> None:
        if isinstance(data.obj, bytearray):
            with self._note:
                self._spare.append(data.obj)

    def _arrived(self, file: WrittenFile, start: int, data: memoryview) -> None:
        with file.lock:
            file.waiting[start] = data
            if file.is_busy:
                return
            file.is_busy = True
        self._drain(file)

    def _drain(self, file: WrittenFile) -> None:
        """Append the next parts, as far as they have arrived. One thread does this at a time."""
        while True:
            with file.lock:
                data = file.waiting.pop(file.at, None)
                if data is None:
                    file.is_busy = False
                    ends = file.at == file.wanted.bytes and not file.is_ended
                    file.is_ended |= ends
                    break
            file.append(data, self._hashing)
            self._progress(len(data))
            self._give_back(data)
            self._permits.release()
        if ends:
            self._finish(file)

    def _stream(self, file: WrittenFile) -> None:
        """Download a file in one stream, from a store without ranges or for a file of unknown size."""
        if file.there:
            self._keep(file)
        is_short = file.wanted.bytes is None or file.at < file.wanted.bytes
        if is_short and not self._reused_whole(file):
            self._files.retried(lambda: self._rest(file))
        self._finish(file)
        self._permits.release()

    def _reused_whole(self, file: WrittenFile) -> bool:
        """Copy a whole file from this disk, if every part of it exists."""
        parts, size = self._reuse.get(file.wanted.path, {}), file.wanted.bytes
        if file.at or size is None or any(start not in parts for start in range(0, size, PART_BYTES)):
            return False
        for start in range(0, size, PART_BYTES):
            data = self._buffer(min(PART_BYTES, size - start))
            if not read_local(parts[start], data):
                file.start_again()
                return False
            file.append(data)
            self._give_back(data)
        file.only_fresh = False
        with self._note:
            self._result.reused += size
        self._progress(size)
        return True

    def _rest(self, file: WrittenFile) -> None:
        begun = file.at
        if begun and begun == file.wanted.bytes:
            # The answer broke off after its last byte.
            return
        with self._files.read(file.wanted.path, start=begun, etag=file.wanted.etag) as part:
            skip = begun - part.start
            for chunk in part.chunks:
                data = memoryview(chunk)[min(skip, len(chunk)) :]
                skip -= len(chunk) - len(data)
                if self._failure is not None:
                    raise self._failure
                file.append(data)
                self._progress(len(data))
        with self._note:
            self._result.read += file.at - part.start - max(skip, 0)
        if skip > 0 and file.wanted.bytes is None:
            file.start_again()
            raise ServiceUnavailable(f"{file.wanted.path} in {self._files.uri} became shorter", AGAIN)
        if file.wanted.bytes is not None and file.at < file.wanted.bytes:
            raise ServiceUnavailable(f"an answer of {self._files.uri} was truncated", AGAIN)

    def _finish(self, file: WrittenFile) -> None:
        problem = file.problem()
        if problem and not file.only_fresh:
            # Parts left by an earlier attempt, or of another version, were wrong.
            self._progress(-file.at)
            file.start_again()
            self._again(file)
            problem = file.problem()
        if problem:
            file.close()
            file.full.unlink(missing_ok=True)
            with self._note:
                self._result.wrong.append((file.wanted.path, problem))
            return
        # The disk works while further files come.
        self._unsynced.acquire()
        self._syncing.submit(self._sync, file)

    def _sync(self, file: WrittenFile) -> None:
        try:
            # Before the folder gets its name: a robot may lose power at any time.
            os.fsync(file.descriptor)
            file.close()
            with self._note:
                self._result.sha256[file.wanted.path] = file.digest.hexdigest()
        except OSError as error:
            self._failure = self._failure or error
        finally:
            self._unsynced.release()

    def _again(self, file: WrittenFile) -> None:
        size = file.wanted.bytes
        if not self._files.has_ranges or size is None:
            self._files.retried(lambda: self._rest(file))
            return
        for start in range(0, size, PART_BYTES):
            data = self._fetched(file, start, min(start + PART_BYTES, size), fresh=True)
            file.append(data)
            self._progress(len(data))
            self._give_back(data)
