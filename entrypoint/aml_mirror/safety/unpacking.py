"""Unpacks compressed files in memory, within a limit, so that their contents can be examined.

joblib, and scripts that save ``.pkl.gz`` and similar files, write compressed pickles under any name.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from typing import Any

from aml_mirror.formats.archives import Read
from aml_mirror.safety.pickle_vm import MAX_PICKLE_BYTES

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_READ_BYTES = 1 << 20
# Formats that are not unpacked here, but by joblib (LZ4) or by anyone with the program.
_FOREIGN = {
    b"\x04\x22\x4d\x18": "LZ4",
    b"\x1f\x9d": "compress",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
}


class Unpacked:
    """The beginning of a compressed file's contents, and why it is not all of it (empty: it is)."""

    def __init__(self, data: bytes, problem: str = "") -> None:
        self.data = data
        self.problem = problem


def foreign_archive(head: bytes) -> str:
    """Return the name of a compressed format that is not unpacked here; empty: it is not one."""
    return next((name for magic, name in _FOREIGN.items() if head.startswith(magic)), "")


def unpack(read: Read, size: int) -> Unpacked | None:
    """Unpack a file, up to ``MAX_PICKLE_BYTES``; None: it is not compressed."""
    make = _decompressor(read(0, min(size, 16)))
    if make is None:
        return None
    pieces: list[bytes] = []
    count = offset = 0
    rest = b""
    reader = make()
    try:
        while count <= MAX_PICKLE_BYTES:
            if reader.eof:
                # Another stream after it is read as the rest of the file, like gzip and bz2 do.
                rest = reader.unused_data or rest
                if not rest and offset >= size:
                    break
                reader = make()
            given = rest
            if not given and getattr(reader, "needs_input", True):
                if offset >= size:
                    return Unpacked(b"".join(pieces), "its compressed data is truncated")
                given = read(offset, min(_READ_BYTES, size - offset))
                offset += len(given)
            rest = b""
            piece = (
                reader.decompress(given, MAX_PICKLE_BYTES + 1 - count) if count <= MAX_PICKLE_BYTES else b""
            )
            if isinstance(reader, _Inflate):
                rest = reader.unconsumed
            pieces.append(piece)
            count += len(piece)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstd.ZstdError):
        return Unpacked(b"".join(pieces), "its compressed data is damaged")
    if count > MAX_PICKLE_BYTES:
        return Unpacked(
            b"".join(pieces),
            f"it unpacks to more than {MAX_PICKLE_BYTES >> 20} MiB, which is not examined",
        )
    return Unpacked(b"".join(pieces))


class _Inflate:
    """zlib's reader of gzip and zlib, with the interface of the others."""

    def __init__(self, bits: int) -> None:
        self._reader = zlib.decompressobj(bits)
        self.unconsumed = b""

    @property
    def eof(self) -> bool:
        return self._reader.eof

    @property
    def unused_data(self) -> bytes:
        return self._reader.unused_data

    def decompress(self, data: bytes, limit: int) -> bytes:
        piece = self._reader.decompress(data, max(1, limit))
        self.unconsumed = self._reader.unconsumed_tail
        return piece


def _decompressor(head: bytes) -> Any:
    if head.startswith(b"\x1f\x8b"):
        return lambda: _Inflate(31)
    if head.startswith(b"BZh"):
        return bz2.BZ2Decompressor
    if head.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        return lambda: lzma.LZMADecompressor(memlimit=256 << 20)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return zstd.ZstdDecompressor
    # zlib has a two-byte checksum instead of a mark. A text may have the same bytes.
    if (
        len(head) > 2
        and head[0] & 15 == 8
        and head[0] >> 4 <= 7
        and int.from_bytes(head[:2], "big") % 31 == 0
    ):
        try:
            zlib.decompressobj().decompress(head, 64)
        except zlib.error:
            return None
        return lambda: _Inflate(15)
    return None
