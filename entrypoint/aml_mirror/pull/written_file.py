"""One file of a download while it is written: always a correct beginning, hashed while it grows."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import Executor
from pathlib import Path

from aml_mirror.pull.wanted import LocalPart, Wanted

_READ_BYTES = 1 << 20
# From this size on, another thread is worth its price.
_MANY_BYTES = 256 << 10


class WrittenFile:
    """One file while it is written."""

    def __init__(self, wanted: Wanted, full: Path) -> None:
        self.wanted = wanted
        self.full = full
        self.lock = threading.Lock()
        self.waiting: dict[int, memoryview] = {}
        self.at = 0
        self.is_busy = False
        self.is_ended = False
        self.only_fresh = True
        self.begin()

    def begin(self) -> None:
        """Open it. A beginning that an earlier attempt wrote stays."""
        self.full.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        self.descriptor = os.open(self.full, flags, 0o644)
        self.there = os.fstat(self.descriptor).st_size
        size = self.wanted.bytes
        if size is not None and self.there > size:
            os.ftruncate(self.descriptor, 0)
            self.there = 0
        self.digest = hashlib.sha256()
        # For files that the storage service copied by itself. It does not protect against attacks.
        self.check = (
            hashlib.md5(usedforsecurity=False) if self.wanted.md5 and not self.wanted.sha256 else None
        )

    def append(self, data: bytes | bytearray | memoryview, hashing: Executor | None = None) -> None:
        """Hash the next bytes, and write them.

        Args:
            data: the next bytes of the file.
            hashing: hashes them while this thread writes them, where there are many. Hashing and writing take
                about the same time.
        """
        hashed = hashing.submit(self._hash, data) if hashing and len(data) >= _MANY_BYTES else None
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self.descriptor, view) :]
        finally:
            if hashed is not None:
                hashed.result()
        if hashed is None:
            self._hash(data)
        self.at += len(data)

    def _hash(self, data: bytes | bytearray | memoryview) -> None:
        self.digest.update(data)
        if self.check is not None:
            self.check.update(data)

    def keep_beginning(self) -> None:
        """Hash what an earlier attempt wrote, and continue behind it."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        left = self.there
        while left and (data := os.read(self.descriptor, min(left, _READ_BYTES))):
            self._hash(data)
            left -= len(data)
        self.at = self.there - left
        self.only_fresh = False

    def start_again(self) -> None:
        """Discard everything."""
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        self.digest = hashlib.sha256()
        self.check = hashlib.md5(usedforsecurity=False) if self.check is not None else None
        self.at = self.there = 0
        self.only_fresh = True

    def problem(self) -> str:
        """Return what is wrong with the complete file; empty: nothing."""
        wanted = self.wanted
        if wanted.bytes is not None and self.at != wanted.bytes:
            return f"it has {self.at} bytes, not {wanted.bytes}"
        if wanted.sha256 and self.digest.hexdigest() != wanted.sha256:
            return f"its SHA-256 is {self.digest.hexdigest()}, not {wanted.sha256}"
        if self.check is not None and self.check.hexdigest() != wanted.md5:
            return f"its MD5 is {self.check.hexdigest()}, not {wanted.md5}"
        return ""

    def close(self) -> None:
        """Close it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def read_local(part: LocalPart, into: memoryview) -> bool:
    """Fill a buffer from a file on this disk; False if the file is too short."""
    try:
        with open(part.file, "rb", buffering=0) as stream:
            stream.seek(part.start)
            view = into
            while view:
                count = stream.readinto(view)
                if not count:
                    return False
                view = view[count:]
    except OSError:
        return False
    return True
