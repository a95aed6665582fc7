"""Checks whether an OCDBT store, in which Orbax stores its arrays, has all bytes that its index names.

Sources: TensorStore's documentation of the format (kvstore/ocdbt, "Storage format"); stores written by
orbax-checkpoint 0.11.13 and 0.12.8 with tensorstore 0.1.86 and later.

A store is a B+ tree. ``manifest.ocdbt`` names its root. Each node begins with a table of data files. A leaf
then lists where each value is in them, an inner node where each child is. So walking the tree shows how long
each data file must be: a missing or truncated one is found without reading any array. In Orbax, each process
writes its own store, and then a tree over all of them is written, whose files are in
``ocdbt.process_<n>/d/``. Such a part of a path is its *base*. The paths in a node are relative to the base of
the node's file.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass

import google_crc32c

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from aml_mirror.formats.base import Format, Kind, Weights
from aml_mirror.sources.tree import Tree, join

# A file of a store means nothing without the others, so a store is judged as a whole, by its folder.
OCDBT = Format("Orbax store", (".ocdbt",), Kind.NO_CODE, Weights.ALWAYS)

_MANIFEST = b"\x0c\xdb\x3a\x2a"
_NODE = b"\x0c\xdb\x20\xde"
_HEADER = struct.Struct("<4sQ")
# Nodes are split at 8 MiB (TensorStore's max_decoded_node_bytes), Orbax requests up to 100 MB. A policy's
# tree has a few nodes with some hundred KB. Larger ones are not walked.
_MAX_NODE_BYTES = 32 << 20
_MAX_NODES = 2000
_MAX_ENTRIES = 1 << 20


class _Unreadable(Exception):
    """A node of an unknown kind: nothing is known about the nodes below it."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A range of a data file. ``base`` is the part of its path to which paths in it are relative."""

    path: str
    base: str
    offset: int
    length: int


def store_problem(tree: Tree, store: str) -> str:
    """Return what is missing in the store in the folder ``store``; empty: nothing is known to be missing.

    Raises:
        DataError, NotAllowed: the errors of :meth:`Tree.read`.
    """
    manifest = join(store, "manifest.ocdbt")
    if not tree.has(manifest):
        return "manifest.ocdbt is missing"
    size = tree.size(manifest)
    head = tree.read(manifest, 0, _HEADER.size)
    if len(head) < _HEADER.size or _HEADER.unpack(head) != (_MANIFEST, size):
        return "manifest.ocdbt is truncated"
    if size > _MAX_NODE_BYTES:
        return ""
    try:
        root = _root(tree.read(manifest, 0, size))
    except _Unreadable:
        return ""
    except (ValueError, IndexError):
        return "manifest.ocdbt is damaged"
    return _walk(tree, store, root) if root else ""


def _walk(tree: Tree, store: str, root: _Place) -> str:
    def lacks(place: _Place) -> str:
        end = place.offset + place.length
        try:
            size = tree.size(join(store, place.path))
        except KeyError:
            return f"{place.path}, which its index names, is missing"
        return (
            ""
            if size >= end
            else f"{place.path} is truncated: {size} bytes, but its index says {end} or more"
        )

    pending, seen = [root], {root}
    while pending and len(seen) <= _MAX_NODES:
        place = pending.pop()
        if problem := lacks(place):
            return problem
        if place.length > _MAX_NODE_BYTES:
            continue
        try:
            values, children = _node(
                tree.read(join(store, place.path), place.offset, place.length), place.base
            )
        except _Unreadable:
            continue
        except (ValueError, IndexError):
            return f"{place.path} is damaged"
        for value in values:
            if problem := lacks(value):
                return problem
        pending += [child for child in children if child not in seen]
        seen.update(children)
    return ""


@dataclass(slots=True)
class _Reader:
    data: bytes
    at: int = 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number is too long")

    def varints(self, count: int) -> list[int]:
        return [self.varint() for _ in range(count)]

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise ValueError("it ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def count(self) -> int:
        value = self.varint()
        if value > _MAX_ENTRIES:
            raise ValueError("it has too many entries")
        return value


def _body(data: bytes, magic: bytes) -> _Reader:
    """Check the frame around a manifest or a node, and return its contents."""
    if len(data) < _HEADER.size + 6 or _HEADER.unpack_from(data) != (magic, len(data)):
        raise ValueError("not what is expected there")
    if google_crc32c.value(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ValueError("its checksum is wrong")
    reader = _Reader(data, _HEADER.size)
    version, compression = reader.varint(), reader.varint()
    if version != 0 or compression > 1:
        raise _Unreadable
    body = data[reader.at : -4]
    return _Reader(_decompress(body) if compression else body)


def _decompress(body: bytes) -> bytes:
    reader = zstd.ZstdDecompressor()
    try:
        data = reader.decompress(body, max_length=_MAX_NODE_BYTES)
    except zstd.ZstdError as error:
        raise ValueError("the Zstandard frame is damaged") from error
    if not reader.eof:
        # Truncated, or larger than a node may be. The difference does not matter, because neither can be
        # walked.
        raise ValueError("the Zstandard frame does not end")
    return data


def _root(data: bytes) -> _Place | None:
    """Return the root of the newest version in a manifest; None: the store is empty."""
    reader = _body(data, _MANIFEST)
    reader.take(16)  # the store's id
    kind = reader.varint()
    reader.varints(2)  # sizes of inline values and of nodes
    reader.byte()
    if reader.varint() == 1:
        reader.take(4)  # level of compression
    if kind != 0:
        raise _Unreadable
    files = _data_files(reader, "")
    count = reader.count()
    if not count:
        raise _Unreadable
    reader.varints(count)  # generations, in order
    reader.take(count)  # heights
    number, offset, length = (reader.varints(count)[-1] for _ in range(3))
    # A store without any key has no root: all its bytes are zero.
    return _Place(*files[number], offset, length) if length else None


def _node(data: bytes, base: str) -> tuple[list[_Place], list[_Place]]:
    """Return where a leaf's values end in each data file, and where an inner node's children are."""
    reader = _body(data, _NODE)
    height = reader.byte()
    files = _data_files(reader, base)
    count = reader.count()
    reader.varints(max(count - 1, 0))  # lengths of the keys' common prefixes, of their rests, of subtrees'
    suffixes = reader.varints(count)
    if height:
        reader.varints(count)
    reader.take(sum(suffixes))
    if not height:
        return _values(reader, count, files), []
    numbers, offsets, lengths = reader.varints(count), reader.varints(count), reader.varints(count)
    return [], [
        _Place(*files[number], offset, length)
        for number, offset, length in zip(numbers, offsets, lengths, strict=True)
    ]


def _data_files(reader: _Reader, base: str) -> list[tuple[str, str]]:
    """Read a table of data files: the path in the store and the base of each."""
    count = reader.count()
    prefixes = [0, *reader.varints(max(count - 1, 0))]
    suffixes, bases = reader.varints(count), reader.varints(count)
    files: list[tuple[str, str]] = []
    before = b""
    for prefix, suffix, length in zip(prefixes, suffixes, bases, strict=False):
        before = before[:prefix] + reader.take(suffix)
        path = base + before.decode(errors="surrogateescape")
        files.append((path, base + before[:length].decode(errors="surrogateescape")))
    return files


def _values(reader: _Reader, count: int, files: list[tuple[str, str]]) -> list[_Place]:
    lengths = reader.varints(count)
    kinds = reader.take(count)
    outside = [length for length, kind in zip(lengths, kinds, strict=True) if kind == 1]
    numbers, offsets = reader.varints(len(outside)), reader.varints(len(outside))
    ends: dict[int, int] = {}
    for number, offset, length in zip(numbers, offsets, outside, strict=True):
        ends[number] = max(ends.get(number, 0), offset + length)
    return [_Place(*files[number], 0, end) for number, end in ends.items()]
