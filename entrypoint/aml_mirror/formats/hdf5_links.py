"""Finds other files that an HDF5 file refers to: links, and arrays whose bytes are in those files.

Opening such an object opens the file that it names (Keras reads weights in this way: CVE-2026-1669).

Source: HDF5 File Format Specification 3.0 (B-trees III.A.1; symbol table nodes III.B; local heaps III.D;
messages 0x0002, 0x0006, 0x0007, 0x0008, 0x0011).
"""

from __future__ import annotations

from aml_mirror.formats.archives import Read
from aml_mirror.formats.hdf5 import superblock_of
from aml_mirror.formats.hdf5_attributes import File

MAX_OBJECTS = 20_000  # a data set of 200 demonstrations has some 4,000
_MAX_NAME_BYTES = 4096
_MAX_TREE_DEPTH = 16
_UNDEFINED = (1 << 64) - 1
_LINK_INFO, _LINK, _EXTERNAL_FILES, _LAYOUT, _SYMBOLS = 0x02, 0x06, 0x07, 0x08, 0x11
_EXTERNAL = 64  # a link's type


def other_files(read: Read, size: int) -> set[str]:
    """Return the paths of other files that contain objects of a file.

    Raises:
        ValueError: the file cannot be read in this way, or has too many objects.
    """
    start = superblock_of(read, size)
    if start is None:
        raise ValueError("it has no superblock")
    walk = _Walk(File(read, size, start))
    walk.run()
    return walk.found


class _Walk:
    def __init__(self, file: File) -> None:
        self._file = file
        self._pending = [file.root()]
        self._seen: set[int] = set()
        self.found: set[str] = set()

    def run(self) -> None:
        while self._pending:
            address = self._pending.pop()
            if address in self._seen or address == _UNDEFINED:
                continue
            self._seen.add(address)
            if len(self._seen) > MAX_OBJECTS:
                raise ValueError("it has too many objects to be examined")
            for kind, body in self._file.messages(address):
                if kind == _LINK:
                    self._link(body)
                elif kind == _LINK_INFO:
                    at = 2 + (8 if body[1] & 1 else 0)
                    if int.from_bytes(body[at : at + 8], "little") != _UNDEFINED:
                        raise ValueError("it stores its links in a heap")
                elif kind == _SYMBOLS:
                    self._tree(_number(body, 0))
                elif kind == _EXTERNAL_FILES:
                    self._stored_elsewhere(body)
                elif kind == _LAYOUT and body[:2] == b"\x04\x03":
                    raise ValueError("it has an array that is assembled from other files")

    def _link(self, body: bytes) -> None:
        flags, at = body[1], 2
        kind = body[at] if flags & 8 else 0
        at += (1 if flags & 8 else 0) + (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
        width = 1 << (flags & 3)
        at += width + int.from_bytes(body[at : at + width], "little")
        if kind == 0:
            self._pending.append(_number(body, at))
        elif kind == _EXTERNAL:
            # Its length, a byte of flags, then two strings: the file, and the object in it.
            self.found.add(_text(body[at + 3 :]))

    def _tree(self, address: int, depth: int = 0) -> None:
        head = self._file.at(address, 24)
        if head[:4] != b"TREE" or head[4] != 0 or depth > _MAX_TREE_DEPTH:
            raise ValueError("its groups cannot be read")
        count = int.from_bytes(head[6:8], "little")
        # A key before each child.
        rows = self._file.at(address + 24, 16 * count)
        for row in range(count):
            child = _number(rows, 16 * row + 8)
            if head[5]:
                self._tree(child, depth + 1)
            else:
                self._symbols(child)

    def _symbols(self, address: int) -> None:
        head = self._file.at(address, 8)
        if head[:4] != b"SNOD":
            raise ValueError("its groups cannot be read")
        count = int.from_bytes(head[6:8], "little")
        rows = self._file.at(address + 8, 40 * count)
        # A name's offset, then an object. A 2 in the third field is a soft link, which has no object.
        self._pending += [
            _number(rows, 40 * row + 8)
            for row in range(count)
            if int.from_bytes(rows[40 * row + 16 : 40 * row + 20], "little") != 2
        ]

    def _stored_elsewhere(self, body: bytes) -> None:
        used, heap = int.from_bytes(body[6:8], "little"), _number(body, 8)
        head = self._file.at(heap, 32)
        if head[:4] != b"HEAP":
            raise ValueError("the names of its other files cannot be read")
        length, data = _number(head, 8), _number(head, 24)
        for slot in range(used):
            offset = _number(body, 16 + 24 * slot)
            if offset >= length:
                raise ValueError("the names of its other files cannot be read")
            self.found.add(_text(self._file.at(data + offset, min(length - offset, _MAX_NAME_BYTES))))


def _number(data: bytes, at: int) -> int:
    if len(data) < at + 8:
        raise ValueError("its header is truncated")
    return int.from_bytes(data[at : at + 8], "little")


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode("utf-8", "replace")
