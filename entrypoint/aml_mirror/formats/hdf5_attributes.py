"""Reads the attributes of an HDF5 file's root group, where Keras stores a model's configuration.

Source: HDF5 File Format Specification 3.0 (superblock II.A; object headers IV.A; messages 0x0003, 0x000C,
0x0010, 0x0015; global heap III.E). Attributes that are not stored in the way of Keras and h5py are refused,
not skipped.
"""

from __future__ import annotations

from aml_mirror.formats.archives import Read
from aml_mirror.formats.hdf5 import superblock_of

# Object headers of a root group have some KiB. An attribute in one has at most 64 KiB.
_MAX_HEADER_BYTES = 8 << 20
_MAX_MESSAGES = 10_000
_MAX_VALUE_BYTES = 64 << 20
_UNDEFINED = (1 << 64) - 1
_CONTINUATION, _ATTRIBUTE, _ATTRIBUTE_INFO = 0x10, 0x0C, 0x15


def root_attributes(read: Read, size: int) -> dict[str, bytes | None]:
    """Return the attributes of the root group. The value is None for one that is not a string.

    Raises:
        ValueError: the file cannot be read in this way.
    """
    start = superblock_of(read, size)
    if start is None:
        raise ValueError("it has no superblock")
    file = File(read, size, start)
    attributes: dict[str, bytes | None] = {}
    for kind, body in file.messages(file.root()):
        if kind == _ATTRIBUTE:
            name, value = file.attribute(body)
            attributes[name] = value
        elif kind == _ATTRIBUTE_INFO:
            # Version, flags, possibly an index; then the address of the heap, which is used for many
            # attributes.
            at = 2 + (2 if body[1] & 1 else 0)
            if int.from_bytes(body[at : at + 8], "little") != _UNDEFINED:
                raise ValueError("it stores its attributes in a heap")
    return attributes


class File:
    """Reads objects of a file whose superblock begins at ``start``."""

    def __init__(self, read: Read, size: int, start: int) -> None:
        self._read = read
        self._size = size
        self._base = start
        self._start = start
        self._budget = _MAX_HEADER_BYTES

    def at(self, address: int, count: int) -> bytes:
        """Return bytes by their address. Raises ValueError if there are none, or too many were read."""
        if address == _UNDEFINED or address + self._base + count > self._size or count < 0:
            raise ValueError("an address points outside the file")
        self._budget -= count
        if self._budget < -_MAX_VALUE_BYTES:
            raise ValueError("its header is too large")
        return self._read(address + self._base, count)

    def root(self) -> int:
        """Return the address of the root group's object header."""
        head = self._read(self._start, 96)
        if len(head) < 48:
            raise ValueError("its superblock is truncated")
        version = head[8]
        if version in (0, 1):
            if head[13:15] != b"\x08\x08":
                raise ValueError("its addresses have another size than 8 bytes")
            # After four addresses: the root's symbol table entry, with its name, then its object header.
            return int.from_bytes(head[24 + 4 * version + 32 + 8 :][:8], "little")
        if version in (2, 3):
            if head[9:11] != b"\x08\x08":
                raise ValueError("its addresses have another size than 8 bytes")
            return int.from_bytes(head[36:44], "little")
        raise ValueError(f"its superblock has version {version}")

    def messages(self, address: int) -> list[tuple[int, bytes]]:
        """Return (kind, body) of each message of an object header."""
        head = self.at(address, 16)
        if head[:4] == b"OHDR":
            return self._messages_2(address)
        if head[0] != 1:
            raise ValueError("its root has no object header")
        count, length = int.from_bytes(head[2:4], "little"), int.from_bytes(head[8:12], "little")
        blocks = [self.at(address + 16, length)]
        messages: list[tuple[int, bytes]] = []
        for block in blocks:
            at = 0
            while at + 8 <= len(block) and len(messages) < count:
                kind, size = (int.from_bytes(block[at + i : at + i + 2], "little") for i in (0, 2))
                body = block[at + 8 : at + 8 + size]
                self._shared(kind, block[at + 4])
                if kind == _CONTINUATION:
                    blocks.append(self._continued(body))
                messages.append((kind, body))
                at += 8 + size
            if len(blocks) > _MAX_MESSAGES:
                raise ValueError("its header has no end")
        return messages

    def _messages_2(self, address: int) -> list[tuple[int, bytes]]:
        flags = self.at(address, 6)[5]
        at = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        length = int.from_bytes(self.at(address + at, width), "little")
        order = 2 if flags & 4 else 0
        blocks = [self.at(address + at + width, length)]
        messages: list[tuple[int, bytes]] = []
        for block in blocks:
            at = 0
            while at + 4 + order <= len(block):
                kind, size = block[at], int.from_bytes(block[at + 1 : at + 3], "little")
                body = block[at + 4 + order : at + 4 + order + size]
                self._shared(kind, block[at + 3])
                if kind == _CONTINUATION:
                    # Its signature comes before, its checksum after the messages.
                    blocks.append(self._continued(body)[4:-4])
                messages.append((kind, body))
                at += 4 + order + size
            if len(messages) > _MAX_MESSAGES or len(blocks) > _MAX_MESSAGES:
                raise ValueError("its header has no end")
        return messages

    def _shared(self, kind: int, flags: int) -> None:
        if kind in (_ATTRIBUTE, _ATTRIBUTE_INFO) and flags & 2:
            raise ValueError("it shares an attribute with other objects")

    def _continued(self, body: bytes) -> bytes:
        address, length = (int.from_bytes(body[i : i + 8], "little") for i in (0, 8))
        return self.at(address, min(length, _MAX_HEADER_BYTES))

    def attribute(self, body: bytes) -> tuple[str, bytes | None]:
        """Return name and text of an attribute's message."""
        version = body[0]
        if version not in (1, 2, 3):
            raise ValueError("an attribute has an unknown version")
        sizes = [int.from_bytes(body[i : i + 2], "little") for i in (2, 4, 6)]
        at = 9 if version == 3 else 8
        parts = []
        for length in sizes:
            parts.append(body[at : at + length])
            at += -(-length // 8) * 8 if version == 1 else length
        name = parts[0].split(b"\0")[0].decode("utf-8", "replace")
        kind, data = parts[1], body[at:]
        if version > 1 and body[1] & 3:
            return name, None  # its type or its space is stored elsewhere
        if not kind:
            raise ValueError("an attribute is truncated")
        if kind[0] & 15 == 3:  # a text of a fixed length
            return name, data[: int.from_bytes(kind[4:8], "little")].rstrip(b"\0 ")
        if kind[0] & 15 == 9 and kind[1] & 15 == 1 and len(data) >= 16:  # a text of any length
            return name, self._in_heap(data)
        return name, None

    def _in_heap(self, data: bytes) -> bytes:
        length, address = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:12], "little")
        wanted = int.from_bytes(data[12:16], "little")
        head = self.at(address, 16)
        if head[:4] != b"GCOL":
            raise ValueError("an attribute does not point to a heap")
        heap = self.at(address, min(int.from_bytes(head[8:16], "little"), _MAX_VALUE_BYTES))
        at = 16
        while at + 16 <= len(heap):
            index, size = (
                int.from_bytes(heap[at : at + 2], "little"),
                int.from_bytes(heap[at + 8 : at + 16], "little"),
            )
            if index == wanted:
                return heap[at + 16 : at + 16 + min(size, length)].rstrip(b"\0")
            if index == 0:
                break
            at += 16 + -(-size // 8) * 8
        raise ValueError("an attribute is missing from its heap")
