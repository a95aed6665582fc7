"""Helpers for torch files: read one plain value, compare two files, recognise the writer.

torch.save writes a zip archive. It contains the pickle of the structure in ``data.pkl``, and every tensor as
a separate member (torch.serialization, since 1.6). Only the archive's directory and the opcodes of that
pickle are read. An unreadable file (truncated, empty, in the older format, not permitted) yields nothing
here. :mod:`aml_mirror.pipeline.select` decides whether that makes a checkpoint incomplete.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from aml_mirror.core.errors import MirrorError
from aml_mirror.formats.archives import MAX_PICKLE_BYTES, Archive
from aml_mirror.formats.pickle_values import pickled_values
from aml_mirror.sources.tree import Tree


def archive_of(tree: Tree, path: str) -> Archive | None:
    """Return the zip archive of a file, or None if the file is not complete."""
    try:
        return Archive(lambda offset, count: tree.read(path, offset, count), tree.size(path))
    except (ValueError, KeyError, MirrorError):
        return None


def pickle_of(tree: Tree, path: str) -> bytes:
    """Return the pickle inside a torch.save file; empty if the file is not complete."""
    archive = archive_of(tree, path)
    name = archive.find("data.pkl") if archive else None
    if archive is None or name is None:
        return b""
    try:
        return archive.read(name, MAX_PICKLE_BYTES)
    except (ValueError, MirrorError):
        return b""


def values_of(tree: Tree, path: str, keys: Iterable[str]) -> dict[str, Any]:
    """Return the plain values of some keys in a torch.save file, as far as they can be found."""
    return pickled_values(pickle_of(tree, path), frozenset(keys))


def whole_number(value: Any) -> int | None:
    """Return a step as an integer, or None if the value is not one."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def same_contents(tree: Tree, path: str, other: str) -> bool:
    """Tell whether two torch files have equal contents, whatever their names are (by size and CRC-32)."""
    if tree.size(path) == 0 or tree.size(other) == 0:
        return False
    one, two = archive_of(tree, path), archive_of(tree, other)
    return one is not None and two is not None and one.contents() == two.contents()


def holds_string(data: bytes, text: str) -> bool:
    """Tell whether a pickle contains a string as a whole, not as a part of another one."""
    raw = text.encode()
    # BINUNICODE of protocol 2, SHORT_BINUNICODE of protocol 4, UNICODE of protocol 0.
    forms = (b"X" + struct.pack("<I", len(raw)), b"\x8c" + bytes([len(raw)]) if len(raw) < 256 else b"")
    return any(form and form + raw in data for form in forms) or b"V" + raw + b"\n" in data
