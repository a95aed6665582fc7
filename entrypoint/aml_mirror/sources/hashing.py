"""The manifest of a source's files: each file is read once and hashed, or described by the store.

The quick key is made from the listing alone: path, size and stamp of each file.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

from aml_mirror.core.errors import DataError
from aml_mirror.core.manifest import BlockDigests, Manifest, ManifestEntry, digest_of_json
from aml_mirror.core.option_values import MIB
from aml_mirror.core.options import BLOCK_BYTES
from aml_mirror.sources.block_reader import CRC64, BlockReader, ByteCheck
from aml_mirror.sources.ranged_file import read_into
from aml_mirror.sources.tree import Tree

# A file up to this size is one request, and is held in memory until it has arrived.
WHOLE_BYTES = MIB
# From this size on, blocks get a CRC-64. Below it, computing MD5 takes less time than loading the CRC
# library.
CRC64_FROM_BYTES = 64 * MIB
# Learn, "Scalability and performance targets for Blob storage": a blob has up to 50,000 blocks.
MAX_BLOCKS = 50_000
SMALL_AT_ONCE = 8


def quick_key(tree: Tree, run_id: str, checkpoint: str, files: Iterable[str]) -> str:
    """Return a key that stays equal as long as no file can have changed, as 64 hexadecimal digits."""
    rows = [[path, tree.size(path), tree.entry(path).stamp] for path in sorted(files)]
    return digest_of_json([run_id, checkpoint, rows])


def hash_files(
    tree: Tree,
    paths: dict[str, str],
    progress: Callable[[int], None] = lambda count: None,
    check_of: Callable[[str], ByteCheck | None] = lambda path: None,
    block_bytes: int = BLOCK_BYTES,
) -> Manifest:
    """Read every file once and record its digest. Several small files are read at a time.

    Args:
        tree: the run.
        paths: path in the run -> path in the model version.
        progress: called with the number of bytes of each part that was read.
        check_of: returns what checks the bytes of a file, by its path in the run.
        block_bytes: the size of the blocks in which the files will be sent.

    Raises:
        DataError: a file changed, grew or shrank while it was read, or is damaged.
        NotAllowed: access to a file is denied.
    """
    small = [source for source in paths if tree.size(source) <= WHOLE_BYTES]
    digests: dict[str, str] = {}
    blocks: dict[str, BlockDigests] = {}
    for source in sorted(paths.keys() - set(small)):
        # Only the blocks of large files have checksums: see aml_mirror.transfer.checksums.
        kind = CRC64 if tree.size(source) >= CRC64_FROM_BYTES else ""
        step = block_size(tree.size(source), block_bytes)
        reader = BlockReader(tree, source, step, kind, check_of(source), progress)
        for _ in reader:
            pass
        require_same(tree, source, reader.count)
        digests[source], blocks[source] = reader.sha256, reader.blocks
    with closing(whole_files(tree, small, check_of)) as found:
        for source, (data, sha256) in found:
            digests[source] = sha256
            progress(len(data))
    items = [
        ManifestEntry(source, path, tree.size(source), digests[source], blocks=blocks.get(source))
        for source, path in paths.items()
    ]
    return Manifest(tuple(sorted(items, key=lambda item: item.path)))


def whole_file(tree: Tree, source: str, check: ByteCheck | None = None) -> tuple[bytes, str]:
    """Return the bytes of a small file and its SHA-256 in hexadecimal. Raises as :func:`hash_files`."""
    buffer = bytearray(tree.size(source) + 1)
    with tree.open(source) as stream:
        count = read_into(stream, memoryview(buffer))
    require_same(tree, source, count)
    data = bytes(memoryview(buffer)[:count])
    if check:
        if data:
            check.take(memoryview(data))
        check.ended()
    return data, hashlib.sha256(data).hexdigest()


def whole_files(
    tree: Tree, sources: list[str], check_of: Callable[[str], ByteCheck | None]
) -> Generator[tuple[str, tuple[bytes, str]], None, None]:
    """Yield the result of :func:`whole_file` for each file, in order, while reading ahead."""
    pool = ThreadPoolExecutor(SMALL_AT_ONCE, thread_name_prefix="read")
    pending: deque[tuple[str, Future[tuple[bytes, str]]]] = deque()
    try:
        for source in sources:
            pending.append((source, pool.submit(whole_file, tree, source, check_of(source))))
            if len(pending) > SMALL_AT_ONCE:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    finally:
        # After a failure or a signal, nothing is waited for.
        pool.shutdown(wait=False, cancel_futures=True)


def require_same(tree: Tree, source: str, count: int) -> None:
    """Raise DataError if the number of bytes read shows that a file is not the one that was listed."""
    entry = tree.entry(source)
    if count != entry.bytes or not tree.source.is_unchanged(entry):
        raise DataError(
            f"{source} changed while it was read ({entry.bytes} bytes when listed, {count} read)",
            "wait until the training has ended and nothing writes there, then run the command again",
        )


def block_size(size: int, wanted: int) -> int:
    """Return the block size for a file in bytes, increased by whole MiB if it would need too many blocks."""
    least = -(-size // MAX_BLOCKS)
    return wanted if least <= wanted else -(-least // MIB) * MIB


def listed_files(tree: Tree, paths: dict[str, str]) -> Manifest:
    """Record what the store says about every file, without reading: for files that the store copies itself.

    Args:
        tree: the run, in a store whose stamps are ETags.
        paths: path in the run -> path in the model version.
    """
    items = []
    for source, path in paths.items():
        entry = tree.entry(source)
        items.append(ManifestEntry(source, path, entry.bytes, None, entry.md5, entry.stamp, "copied"))
    return Manifest(tuple(sorted(items, key=lambda item: item.path)))
