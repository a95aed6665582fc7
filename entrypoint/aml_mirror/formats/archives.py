"""Reads zip archives without extracting them.

torch, Lightning, Diffusion Policy and Stable-Baselines3 all save zip files. The archive's directory shows
whether such a file is complete.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from aml_mirror.sources.ranged_file import RangedFile

# The end-of-central-directory record (PKWARE APPNOTE 4.3.16), its 64-bit variant (4.3.14), the locator
# between them (4.3.15), and the local header (4.3.7).
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LOCAL = struct.Struct("<4s5H3L2H")
# 10^5 members of 100 bytes each, more than any model's tensors. A hostile end record may claim any size.
MAX_DIRECTORY_BYTES = 10 << 20
# Pickles contain the structure, not the tensors: some MB for the largest models.
MAX_PICKLE_BYTES = 64 << 20

Read = Callable[[int, int], bytes]
# torch.save without an archive (before 1.6, or on request) begins with this pickled magic number.
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive. ``start`` is where its data begins; sizes are in bytes."""

    name: str
    bytes: int
    compressed: int
    crc: int
    stored: bool
    start: int


class Archive:
    """The directory of a zip file, read with ranged reads and compared with the file's own length.

    A truncated zip may look complete. If a stored member is itself a zip (Stable-Baselines3 stores torch
    archives), the file may be cut right after the inner directory, and most readers then take the inner
    archive for the outer one. So the directory must begin where the end record says, and end at the end of
    the file. The first member must begin at byte 0. Each member must be inside the file, and none may share
    bytes with another.

    Readers find the directory in different ways: zipfile counts back from the end record, torch's goes where
    a record says. They also read a member's name from different fields. An archive in which two readers would
    see different members is refused.

    Raises:
        ValueError: the file is not a complete zip archive; the message says what is wrong.
    """

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        if size < _END.size:
            raise ValueError("it is empty" if size == 0 else "it is too short for a zip archive")
        if read(0, 4) != b"PK\x03\x04":
            raise ValueError("it does not begin like a zip archive")
        window = _Window(read, size)
        try:
            with zipfile.ZipFile(window) as archive:
                infos = archive.infolist()
                directory_start = archive.start_dir
                end = size - _END.size - len(archive.comment)
        except (
            zipfile.BadZipFile,
            EOFError,
            ValueError,
            OSError,
            NotImplementedError,
            struct.error,
        ) as error:
            raise ValueError("its zip directory is missing or damaged: the file is truncated") from error
        # zipfile accepts a truncated comment, and anything after the archive.
        end_record = read(end, _END.size)
        if not end_record.startswith(b"PK\x05\x06") or _END.unpack(end_record)[-1] != size - end - _END.size:
            raise ValueError("its zip directory does not end where the file ends")
        if _directory_start(read, end, end_record) != directory_start:
            raise ValueError("its zip directory is not where its records say")
        if not infos:
            raise ValueError("it is an empty zip archive")
        if min(info.header_offset for info in infos) != 0:
            raise ValueError("its zip directory belongs to an archive inside it: the file is truncated")
        self.members: dict[str, Member] = {}
        for info in infos:
            # If two members have the same name, readers use the first or the last.
            if info.filename in self.members:
                raise ValueError(f"its member {info.filename} exists twice")
            self.members[info.filename] = self._member(info, directory_start)
        at = 0
        for member in sorted(self.members.values(), key=lambda member: member.start):
            if member.start < at:
                raise ValueError(f"its member {member.name} overlaps another one")
            at = member.start + member.compressed

    def _member(self, info: zipfile.ZipInfo, limit: int) -> Member:
        # zipfile cuts names at a zero byte and, from Python 3.12 on, reads others from an extra field.
        if info.filename != info.orig_filename:
            raise ValueError(f"its member {info.filename} has two names")
        # Checked before reading: a file system refuses an offset of 2^63.
        inside = info.header_offset + _LOCAL.size <= limit
        header = self._read(info.header_offset, _LOCAL.size) if inside else b""
        if len(header) < _LOCAL.size or not header.startswith(b"PK\x03\x04"):
            raise ValueError(f"its member {info.filename} is not where the directory says")
        *_, name_length, extra_length = _LOCAL.unpack(header)
        start = info.header_offset + _LOCAL.size + name_length + extra_length
        if start + info.compress_size > limit:
            raise ValueError(f"its member {info.filename} ends after the data")
        stored = info.compress_type == zipfile.ZIP_STORED
        if stored and info.file_size != info.compress_size:
            raise ValueError(f"its member {info.filename} has two sizes")
        return Member(
            info.filename,
            info.file_size,
            info.compress_size,
            info.CRC,
            stored,
            start,
        )

    def read(self, name: str, limit: int) -> bytes:
        """Return up to ``limit`` bytes of a member, decompressed.

        Raises:
            ValueError: there is no such member, or its data is damaged.
        """
        member = self.members.get(name)
        if member is None:
            raise ValueError(f"it has no member {name}")
        if member.stored:
            return self._read(member.start, min(member.bytes, limit))
        inflate = zlib.decompressobj(-15)
        try:
            # Never inflate more than requested, whatever the directory says (for zlib, 0 means no limit).
            # Data that cannot be compressed takes more room than it has bytes.
            data = self._read(member.start, min(member.compressed, limit + limit // 256 + 1024))
            return inflate.decompress(data, max(1, limit))
        except zlib.error as error:
            raise ValueError(f"its member {name} is damaged") from error

    def find(self, suffix: str) -> str | None:
        """Return the first member whose path ends with ``/suffix`` or equals it."""
        for name in self.members:
            if name == suffix or name.endswith("/" + suffix):
                return name
        return None

    def contents(self) -> tuple[tuple[str, int, int], ...]:
        """Return (name without its first folder, size, CRC-32) of each member: equal for equal contents.

        torch names the first folder after the file, so a copy with another name differs there.
        """
        return tuple(
            sorted((name.partition("/")[2] or name, m.bytes, m.crc) for name, m in self.members.items())
        )


def _directory_start(read: Read, end: int, end_record: bytes) -> int | None:
    """Return where the records at the end say that the directory begins.

    None: they contradict each other, or it does not extend to the first of them.
    """
    *_, length, start, _ = _END.unpack(end_record)
    close = end
    locator = read(end - _LOCATOR.size, _LOCATOR.size) if end >= _LOCATOR.size + _END64.size else b""
    if locator.startswith(b"PK\x06\x07"):
        close = end - _LOCATOR.size - _END64.size
        record = read(close, _END64.size)
        _, rest, *_, length64, start64 = _END64.unpack(record)
        if not record.startswith(b"PK\x06\x06") or rest != _END64.size - 12:
            return None
        # If a field has its largest value, the longer field counts.
        if length not in (length64, 0xFFFFFFFF) or start not in (start64, 0xFFFFFFFF):
            return None
        if _LOCATOR.unpack(locator)[2] != close:
            return None
        length, start = length64, start64
    return start if start + length == close else None


class _Window(RangedFile):
    """A read-only file over ranged reads, for :mod:`zipfile`, which seeks from the end."""

    def __init__(self, read: Read, size: int) -> None:
        super().__init__(size)
        self._read = read

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self.position)
        count = left if size is None or size < 0 else min(size, left)
        if count > MAX_DIRECTORY_BYTES:
            raise OSError("the zip directory is larger than that of any model")
        data = self._read(self.position, count)
        self.position += len(data)
        return data
