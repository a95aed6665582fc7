"""Zip archives and the pickles inside them, looked at from outside.

torch, Lightning, Diffusion Policy and Stable-Baselines3 all save zip files. Whether such a file is whole,
and the few plain numbers and strings that a layout needs from it, can be had from the archive's directory
and from the opcodes of its pickle: nothing here is ever unpickled, and nothing is imported or called.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

# The end-of-central-directory record (PKWARE APPNOTE 4.3.16), the same with numbers of 64 bits (4.3.14), what
# stands between the two (4.3.15), and the local header (4.3.7).
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LOCAL = struct.Struct("<4s5H3L2H")
# 10^5 members of 100 bytes each, more tensors than any model has; a hostile end record claims any size.
MAX_DIRECTORY_BYTES = 10 << 20
# Pickles hold the structure, not the tensors: some MB for the largest models.
MAX_PICKLE_BYTES = 64 << 20
# A value a person wrote or a path; longer strings in a pickle are not what a layout asks for.
MAX_VALUE = 4096
# A tensor takes about 25 opcodes. Python reads a million a second, and a hostile pickle has 64 million.
MAX_OPCODES = 5_000_000

Read = Callable[[int, int], bytes]
# What torch.save writes without an archive (before 1.6, or asked for) begins with this pickled magic number.
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive; ``start`` is where its data begins, sizes are in bytes."""

    name: str
    bytes: int
    compressed: int
    crc: int
    stored: bool
    start: int


class Archive:
    """The directory of a zip file, read with ranged reads and held against the file's own length.

    A zip that was cut can look whole: where a stored member is a zip itself (Stable-Baselines3 stores
    torch archives), the cut may fall right behind the inner directory, and most readers then take the
    inner archive for the outer one. So the directory must begin where the end record says, end at the end
    of the file, and its first member must begin at byte 0; each member must lie inside the file, and none
    may share bytes with another.

    Readers find the directory in different ways: zipfile counts back from the end record, torch's goes where
    a record says; and they take a member's name from different fields. What would show one of them other
    members than the next is refused.

    Raises:
        ValueError: the file is not a whole zip archive; the message says what is wrong.
    """

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        if size < _END.size:
            raise ValueError("it is empty" if size == 0 else "it is too short for a zip archive")
        if read(0, 4) != b"PK\x03\x04":
            raise ValueError("it does not begin as a zip archive")
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
            raise ValueError("its zip directory is missing or damaged: the file was cut") from error
        # zipfile takes a cut comment, and whatever stands behind the archive.
        end_record = read(end, _END.size)
        if not end_record.startswith(b"PK\x05\x06") or _END.unpack(end_record)[-1] != size - end - _END.size:
            raise ValueError("its zip directory does not end where the file ends")
        if _directory_start(read, end, end_record) != directory_start:
            raise ValueError("its zip directory is not where its records say")
        if not infos:
            raise ValueError("it is an empty zip archive")
        if min(info.header_offset for info in infos) != 0:
            raise ValueError("its zip directory belongs to an archive inside it: the file was cut")
        self.members: dict[str, Member] = {}
        for info in infos:
            # Of two with one name, readers take the first or the last.
            if info.filename in self.members:
                raise ValueError(f"its member {info.filename} is there twice")
            self.members[info.filename] = self._member(info, directory_start)
        at = 0
        for member in sorted(self.members.values(), key=lambda member: member.start):
            if member.start < at:
                raise ValueError(f"its member {member.name} lies in another one")
            at = member.start + member.compressed

    def _member(self, info: zipfile.ZipInfo, limit: int) -> Member:
        # zipfile cuts names at a zero byte and, from Python 3.12 on, takes others from an extra field.
        if info.filename != info.orig_filename:
            raise ValueError(f"its member {info.filename} has two names")
        # Looked at before reading: a file system refuses an offset of 2^63.
        inside = info.header_offset + _LOCAL.size <= limit
        header = self._read(info.header_offset, _LOCAL.size) if inside else b""
        if len(header) < _LOCAL.size or not header.startswith(b"PK\x03\x04"):
            raise ValueError(f"its member {info.filename} is not where the directory says")
        *_, name_length, extra_length = _LOCAL.unpack(header)
        start = info.header_offset + _LOCAL.size + name_length + extra_length
        if start + info.compress_size > limit:
            raise ValueError(f"its member {info.filename} ends behind the data")
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
            ValueError: no such member, or its data is damaged.
        """
        member = self.members.get(name)
        if member is None:
            raise ValueError(f"it has no member {name}")
        if member.stored:
            return self._read(member.start, min(member.bytes, limit))
        inflate = zlib.decompressobj(-15)
        try:
            # Never inflate more than was asked for, whatever the directory claims (to zlib, 0 is no limit).
            # What does not compress takes more room than it has bytes.
            data = self._read(member.start, min(member.compressed, limit + limit // 256 + 1024))
            return inflate.decompress(data, max(1, limit))
        except zlib.error as error:
            raise ValueError(f"its member {name} is damaged") from error

    def find(self, suffix: str) -> str | None:
        """Return the first member whose path ends with ``/suffix`` or is it."""
        for name in self.members:
            if name == suffix or name.endswith("/" + suffix):
                return name
        return None

    def contents(self) -> tuple[tuple[str, int, int], ...]:
        """(name without its first folder, size, CRC-32) of each member: equal for equal contents.

        torch names the first folder after the file, so a copy saved under another name differs there.
        """
        return tuple(
            sorted((name.partition("/")[2] or name, m.bytes, m.crc) for name, m in self.members.items())
        )


def pickled_values(data: bytes, keys: frozenset[str]) -> dict[str, Any]:
    """Find plain values that follow a key in a pickle, from its opcodes alone.

    For each of ``keys`` the first value that :func:`pickled_pairs` finds is returned.
    """
    found: dict[str, Any] = {}
    for key, value in pickled_pairs(data, keys):
        found.setdefault(key, value)
    return found


def pickled_pairs(data: bytes, keys: frozenset[str]) -> list[tuple[str, Any]]:
    """List every one of ``keys`` in a pickle that has a plain value right behind it, in the file's order.

    In a pickled dictionary a key is followed by its value: a string, integer, float, boolean, None or
    bytes counts, anything else does not. Strings and bytes are cut at ``MAX_VALUE``. Protocols below 3,
    which torch writes, hold bytes as a call of ``_codecs.encode`` on a latin-1 string: it is recognised,
    not made. A damaged pickle yields what stood before the damage.
    """
    found: list[tuple[str, Any]] = []
    memo: dict[int, Any] = {}
    key: str | None = None
    encoded = False
    last: Any = None
    try:
        for opcode, argument, _ in islice(pickletools.genops(io.BytesIO(data)), MAX_OPCODES):
            name = opcode.name
            if name in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
                memo[len(memo) if name == "MEMOIZE" else int(argument or 0)] = last
                continue
            if name in ("FRAME", "PROTO") or (encoded and name == "MARK"):
                continue
            if name in ("BINGET", "LONG_BINGET", "GET"):
                value = memo.get(int(argument or 0), _NOTHING)
            elif name == "GLOBAL" and argument == "_codecs encode":
                value = _ENCODE
            else:
                value = _plain(name, argument)
            last = value
            if key is not None and value is _ENCODE and not encoded:
                encoded = True
                continue
            if encoded and isinstance(value, str):
                value = value.encode("latin-1", "replace")
            if key is not None and value is not _NOTHING and value is not _ENCODE:
                found.append((key, value))
                key = None
            else:
                key = value if isinstance(value, str) and value in keys else None
            encoded = False
            if len(memo) > 1_000_000 or len(found) > 10_000:
                break
    except (ValueError, IndexError, EOFError, UnicodeError, OverflowError):
        pass
    return found


_NOTHING = object()
_ENCODE = object()


def _plain(opcode: str, argument: Any) -> Any:
    if opcode in ("NEWTRUE", "NEWFALSE"):
        return opcode == "NEWTRUE"
    if opcode == "NONE":
        return None
    if isinstance(argument, (str, bytes)) and opcode not in ("GLOBAL", "INST", "PERSID"):
        return argument[:MAX_VALUE]
    # Python refuses to print an integer of over 4300 digits: none that a pickle holds may get that far.
    if isinstance(argument, int) and argument.bit_length() > 64:
        return _NOTHING
    if isinstance(argument, (int, float)) and opcode.startswith(
        ("BININT", "INT", "LONG", "BINFLOAT", "FLOAT")
    ):
        return argument
    return _NOTHING


def _directory_start(read: Read, end: int, end_record: bytes) -> int | None:
    """Where the records at the end say that the directory begins.

    None: they do not agree, or it does not reach up to the first of them.
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
        # A field that is full stands for the longer one.
        if length not in (length64, 0xFFFFFFFF) or start not in (start64, 0xFFFFFFFF):
            return None
        if _LOCATOR.unpack(locator)[2] != close:
            return None
        length, start = length64, start64
    return start if start + length == close else None


class _Window(io.RawIOBase):
    """A read-only file over ranged reads, for :mod:`zipfile`, which seeks from the end."""

    def __init__(self, read: Read, size: int) -> None:
        self._read, self._size, self._at = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        count = left if size is None or size < 0 else min(size, left)
        if count > MAX_DIRECTORY_BYTES:
            raise OSError("the zip directory is larger than any model's")
        data = self._read(self._at, count)
        self._at += len(data)
        return data
