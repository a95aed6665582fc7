"""Checks the bytes of a file during the one read that hashes it.

A copy may have the right size but a hole: zeros from some point to the end of a file, or of a part of it
(Azure/azure-storage-fuse#2348 describes such blobs). Two formats can show this:

**Zip archives of torch** contain the CRC-32 of each member. A member that does not match is damaged.
``torch.serialization.set_crc32_options(False)`` writes 0 for all of them, so there is nothing to compare.

**safetensors** have no checksum. The rule: the file ends in zeros, and these begin *inside* a tensor, but not
where legitimate zeros may begin. A tensor that is entirely zero (a bias that was never trained) is zero from
its beginning. The padding of a vocabulary is whole rows, from the beginning of a row. Padded columns leave
zeros only in the last row, fewer than a row. So zeros are reported if they begin in the middle of a row and
continue for more than a row, or to its end and through a complete matrix after it. Without rows (one
dimension), 256 values must be zero. Zeros are also reported if they begin in a tensor at a multiple of 4096
bytes of the file, where pages and blocks begin, and fill a page. A hole that begins exactly between two
tensors cannot be distinguished from tensors of zeros.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

from aml_mirror.core.errors import DataError
from aml_mirror.formats.archives import Archive, Member
from aml_mirror.formats.registry import format_of, suffixes_of
from aml_mirror.formats.safetensors import SAFETENSORS, read_header
from aml_mirror.sources.block_reader import ByteCheck
from aml_mirror.sources.tree import Tree

PAGE_BYTES = 4096
# Without rows, at most this many values may legitimately be zero: statistics padded to a model's widest
# robot.
_MOST_ZEROS = 256
# In the last row of a matrix that is followed by another matrix.
_FEW_ZEROS = 8
_ARCHIVES = suffixes_of("torch.save", "torch.save as .bin", "Stable-Baselines3", "CleanRL", "d3rlpy")


class ByteChecks:
    """Creates the check for each file that has one, and collects its reports."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.warnings: list[str] = []

    def of(self, path: str) -> ByteCheck | None:
        """Return the check of a file; None if its format has none. Raises the errors of :meth:`Tree.read`."""
        size = self._tree.size(path)

        def read(offset: int, count: int) -> bytes:
            return self._tree.read(path, offset, count)

        try:
            if path.lower().endswith(_ARCHIVES) and read(0, 2) == b"PK":
                members = list(Archive(read, size).members.values())
                return MemberCheck(path, members) if any(member.crc for member in members) else None
            if format_of(path) is SAFETENSORS:
                header, start = read_header(read, size)
                return ZeroTail(path, header, start, self.warnings)
        except ValueError:
            # Another check reports such a file.
            return None
        return None


class MemberCheck:
    """Compares each stored or compressed member of a zip archive with its CRC-32."""

    def __init__(self, path: str, members: list[Member]) -> None:
        self._path = path
        self._pending = sorted((member for member in members if member.bytes), key=lambda item: item.start)[
            ::-1
        ]
        self._at = 0
        self._crc = 0
        self._inflate: Any = None
        self._wrong: list[str] = []

    def take(self, part: memoryview) -> None:
        """Process the next bytes of the file."""
        end = self._at + len(part)
        while self._pending and self._pending[-1].start < end:
            member = self._pending[-1]
            first = max(member.start - self._at, 0)
            last = min(member.start + member.compressed - self._at, len(part))
            self._add(member, part[first:last])
            if member.start + member.compressed > end:
                break
            if self._crc != member.crc:
                self._wrong.append(member.name)
            self._pending.pop()
            self._crc, self._inflate = 0, None
        self._at = end

    def _add(self, member: Member, data: memoryview) -> None:
        if member.stored:
            self._crc = zlib.crc32(data, self._crc)
            return
        self._inflate = self._inflate or zlib.decompressobj(-15)
        rest: bytes | memoryview = data
        try:
            # A little at a time, no matter how large it becomes.
            while rest:
                self._crc = zlib.crc32(self._inflate.decompress(rest, 1 << 20), self._crc)
                rest = self._inflate.unconsumed_tail
        except zlib.error:
            self._crc = member.crc ^ 1

    def ended(self) -> None:
        """Raise DataError if a member is damaged."""
        if self._wrong:
            more = f" and {len(self._wrong) - 1} more" if len(self._wrong) > 1 else ""
            raise DataError(
                f"{self._path} is damaged: its member {self._wrong[0]}{more} does not match its CRC-32",
                "copy the file again from the original, or select another checkpoint with --checkpoint",
            )


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    start: int
    end: int
    row: int
    """The bytes of one entry of the first dimension; of everything, if there is only one dimension."""
    item: int
    dimensions: int

    @property
    def has_rows(self) -> bool:
        """Whether it is a matrix, or has more dimensions."""
        return self.dimensions > 1 and self.row < self.end - self.start


class ZeroTail:
    """Reports a safetensors file that is zero from inside a tensor to its end: see the module."""

    def __init__(self, path: str, header: dict[str, Any], start: int, warnings: list[str]) -> None:
        self._path = path
        named = ((name, entry) for name, entry in header.items() if name != "__metadata__")
        self._tensors = [tensor for name, entry in named if (tensor := _tensor(name, entry, start))]
        self._warnings = warnings
        self._at = 0
        self._zeros_from = 0

    def take(self, part: memoryview) -> None:
        """Process the next bytes of the file."""
        tail = bytes(part[-64:])
        kept = len(tail.rstrip(b"\0"))
        if kept:
            self._zeros_from = self._at + len(part) - len(tail) + kept
        elif kept := len(bytes(part).rstrip(b"\0")):
            self._zeros_from = self._at + kept
        self._at += len(part)

    def ended(self) -> None:
        """Report the file if its zeros are not legitimate values."""
        zeros = self._zeros_from
        for tensor in self._tensors:
            behind = any(other.start >= tensor.end and other.has_rows for other in self._tensors)
            if tensor.start < zeros < tensor.end and _is_hole(tensor, zeros, self._at, behind):
                self._warnings.append(
                    f"{self._path} may be damaged: its bytes are zero from {zeros} to its end at {self._at}, "
                    f"from the middle of {tensor.name}: compare it with the original"
                )
                return


def _tensor(name: str, entry: dict[str, Any], start: int) -> _Tensor | None:
    begin, end = entry["data_offsets"]
    shape = entry.get("shape")
    if (
        not isinstance(shape, list)
        or not all(type(size) is int and size > 0 for size in shape)
        or end <= begin
    ):
        return None
    items = math.prod(shape)
    if end <= begin or items > end - begin:
        return None  # less than a byte for each
    bytes_ = end - begin
    row = bytes_ // shape[0] if len(shape) > 1 else bytes_
    return _Tensor(name, start + begin, start + end, row, bytes_ // items, len(shape))


def _is_hole(tensor: _Tensor, zeros: int, size: int, behind: bool) -> bool:
    # The bytes before a hole may happen to be zero: those of one value.
    page = -(-zeros // PAGE_BYTES) * PAGE_BYTES
    if page - zeros < tensor.item + 8 and page < tensor.end and size - page >= PAGE_BYTES:
        return True
    first = -(-(zeros - tensor.start) // tensor.item) * tensor.item
    left = tensor.end - tensor.start - first
    if tensor.dimensions == 1:
        return left >= _MOST_ZEROS * tensor.item
    if first % tensor.row == 0:
        return False
    return left > tensor.row or (behind and left >= _FEW_ZEROS * tensor.item)
