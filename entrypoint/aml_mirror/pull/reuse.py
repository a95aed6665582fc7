"""Finds parts of a version that already exist on this disk, in versions that were pulled before
(``--reuse``).

A whole file is found by its SHA-256, wherever it is. Within a file, blocks of ``NOTED_BYTES`` are compared:
the registry's list of block digests with digests computed here from the older files. Nothing that is found is
trusted: the digest of each whole file is computed from what is written.
"""

from __future__ import annotations

import os
from pathlib import Path

from aml_mirror.core.errors import UsageError
from aml_mirror.core.manifest import BlockDigests
from aml_mirror.pull.pulled_folder import MODEL, read_record
from aml_mirror.pull.resolved import ResolvedVersion
from aml_mirror.pull.wanted import PART_BYTES, LocalPart, Reuse, Wanted
from aml_mirror.support.block_digest import block_hasher


def reusable(wanted: list[Wanted], older: list[Path], version: ResolvedVersion) -> Reuse:
    """Return where on this disk parts of the files may be.

    Args:
        wanted: the files.
        older: folders that were pulled before.
        version: the version to download.

    Raises:
        UsageError: a folder is not a pulled version.
    """
    by_digest: dict[tuple[int, str], str] = {}
    for folder in older:
        record = read_record(folder)
        if record is None:
            raise UsageError(
                f"{folder} (--reuse) does not contain a pulled version",
                "pass a folder that aml-mirror pull made",
            )
        for path, (size, sha256, _) in record.files.items():
            by_digest.setdefault((size, sha256), os.path.join(folder, MODEL, *path.split("/")))
    found: dict[str, dict[int, LocalPart]] = {}
    for one in wanted:
        if one.bytes and one.sha256 and (file := by_digest.get((one.bytes, one.sha256))):
            starts = range(0, one.bytes, PART_BYTES)
            found[one.path] = {start: LocalPart(file, start) for start in starts}
    unknown = [one for one in wanted if one.path not in found and (one.bytes or 0) >= PART_BYTES]
    if older and unknown and (lists := version.places.blocks()):
        sizes = {blocks.block_bytes for _, blocks in lists.values()}
        files = sorted({file for file in by_digest.values() if os.path.getsize(file) >= PART_BYTES})
        there = {size: _blocks_of(files, size) for size in sizes if size % PART_BYTES == 0}
        for one in unknown:
            size, blocks = lists.get(one.path, (0, None))
            if blocks is not None and size == one.bytes and blocks.block_bytes in there:
                found[one.path] = _parts(size, blocks, there[blocks.block_bytes])
    return found


def _blocks_of(files: list[str], block_bytes: int) -> dict[bytes, LocalPart]:
    """Return where each block of some files is, by its digest."""
    found: dict[bytes, LocalPart] = {}
    for file in files:
        with open(file, "rb", buffering=0) as stream:
            start = 0
            while data := stream.read(block_bytes):
                # A read may return less than requested.
                while len(data) < block_bytes and (more := stream.read(block_bytes - len(data))):
                    data += more
                hasher = block_hasher()
                hasher.update(data)
                found.setdefault(hasher.digest(), LocalPart(file, start))
                start += len(data)
    return found


def _parts(size: int, blocks: BlockDigests, there: dict[bytes, LocalPart]) -> dict[int, LocalPart]:
    parts = {}
    for number in range(len(blocks)):
        local = there.get(blocks.digest(number))
        if local is None:
            continue
        start = number * blocks.block_bytes
        for offset in range(0, min(blocks.block_bytes, size - start), PART_BYTES):
            parts[start + offset] = LocalPart(local.file, local.start + offset)
    return parts
