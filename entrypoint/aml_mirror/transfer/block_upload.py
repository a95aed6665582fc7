"""Files to blobs, in blocks, so that what the service stored is what was hashed.

*The bytes.* A file is read once, in order. Each block is hashed into the file's SHA-256 and handed to a
sender. A block's id is its offset and the SHA-256 of the file up to the block's end, which costs nothing
more, and its request carries a Content-MD5 that the service checks before it keeps the block. So a list of
ids in the right order, committed by the service with the sizes that were sent, says which bytes the blob
has: nothing needs to be read back.

*Going on.* Blocks that a killed try left uncommitted are listed by id and size. A block with that very id
is not sent again; any other id is another place or other bytes, there or before. The service forgets them
after a week, and with the commit.

*Small files* are one request, Put Blob, with a Content-MD5 likewise.

Reading, hashing and retrying never share a position in a stream: a sender holds its block's bytes until
the service has it. So memory is about (senders + 2) x block size, whatever the size of a file; where a file
is itself a blob, ``AHEAD`` blocks more.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field

from azure.storage.blob import BlobBlock, BlobClient, ContentSettings

from aml_mirror.azure.errors import code_of, is_missing
from aml_mirror.errors import DataError, MirrorError, ServiceUnavailable
from aml_mirror.manifest import Item
from aml_mirror.sources.azure_blob import BlobSource
from aml_mirror.sources.tree import Tree
from aml_mirror.transfer.blocks import blocks, read_block
from aml_mirror.transfer.options import MIB
from aml_mirror.transfer.senders import Call, Senders

# Learn, "Scalability and performance targets for Blob storage": a blob has up to 50,000 blocks.
MAX_BLOCKS = 50_000
# Metadata of a blob: what a later try trusts it by. Names of metadata are C# identifiers.
SHA256 = "sha256"
SOURCE_ETAG = "source_etag"

_ID_CHARACTERS = 64  # the most that Put Block takes; all ids of a blob have one length
_OFFSET_DIGITS = 12  # 2^48 bytes, more than the 190.7 TiB of the largest blob
# Blocks are gone: another mirror of the same bytes committed first, or a week was over.
_LOST = ("InvalidBlockList",)


@dataclass(slots=True)
class _Job:
    """One file on its way."""

    item: Item
    blob: BlobClient
    metadata: dict[str, str]
    blocks: list[Future[tuple[str, int]]] = field(default_factory=list)


class BlockUpload:
    """Sends files. ``sent`` counts the bytes that the service took.

    Args:
        call: runs a request, with retries.
        senders: the threads.
        block_bytes: size of a block; raised for a file that would need more than ``MAX_BLOCKS``.
        progress: told, from any thread, the path of a file and how many of its bytes are there now.
    """

    def __init__(
        self, call: Call, senders: Senders, block_bytes: int, progress: Callable[[str, int], None]
    ) -> None:
        self._call = call
        self._senders = senders
        self._block_bytes = block_bytes
        self._progress = progress
        self._lock = threading.Lock()
        self.sent = 0

    def send(self, tree: Tree, item: Item, blob: BlobClient, metadata: dict[str, str]) -> None:
        """Read a file to its end while its blocks are sent; the senders commit it.

        Raises:
            DataError: the file is not the one of the manifest any more; nothing was committed.
        """
        step = block_size(item.bytes, self._block_bytes)
        if item.bytes <= step:
            if isinstance(tree.source, BlobSource):
                # Reading is a request as well: the senders do both, so that small files are many at a time.
                self._senders.submit(lambda: self._send_whole(tree, item, blob, metadata, step))
            else:
                self._senders.submit(self._whole(tree, item, blob, metadata, step))
            return
        digest = hashlib.sha256()
        count = 0
        known = self._known_blocks(blob)
        job = _Job(item, blob, metadata)
        with closing(blocks(tree, item.source, step)) as found:
            for data in found:
                digest.update(data)
                name = block_id(count, digest.hexdigest())
                # Bound now: the loop goes on before the sender begins.
                job.blocks.append(
                    self._senders.submit(
                        lambda name=name, data=data: self._put_block(job, name, data, known)  # type: ignore[misc]
                    )
                )
                count += len(data)
                if count > item.bytes:
                    break
        _require_same(tree, item, count, digest.hexdigest())
        job.metadata = {**metadata, SHA256: digest.hexdigest()}
        self._senders.submit(lambda: self._commit(job))

    def _send_whole(
        self, tree: Tree, item: Item, blob: BlobClient, metadata: dict[str, str], step: int
    ) -> None:
        self._whole(tree, item, blob, metadata, step)()

    def _whole(
        self, tree: Tree, item: Item, blob: BlobClient, metadata: dict[str, str], step: int
    ) -> Callable[[], None]:
        """Read a file of one block, and return what sends it."""
        with tree.open(item.source) as stream:
            data = read_block(stream, step + 1)
        digest = hashlib.sha256(data).hexdigest()
        _require_same(tree, item, len(data), digest)
        job = _Job(item, blob, {**metadata, SHA256: digest})
        return lambda: self._put_whole(job, data)

    def _put_whole(self, job: _Job, data: bytes) -> None:
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        self._call(
            lambda: job.blob.upload_blob(
                data,
                length=len(data),
                overwrite=True,
                validate_content=True,
                metadata=job.metadata,
                content_settings=ContentSettings(content_md5=bytearray(md5)),
                max_concurrency=1,
            )
        )
        self._arrived(job, len(data), len(data))

    def _put_block(self, job: _Job, name: str, data: bytes, known: dict[str, int]) -> tuple[str, int]:
        fresh = known.get(name) != len(data)
        if fresh:
            self._call(lambda: job.blob.stage_block(name, data, length=len(data), validate_content=True))
        self._arrived(job, len(data), len(data) if fresh else 0)
        return name, len(data)

    def _commit(self, job: _Job) -> None:
        # These were all submitted before: a sender that waits here waits for others, never for itself.
        blocks = [future.result() for future in job.blocks]
        settings = ContentSettings(content_md5=bytearray.fromhex(job.item.md5)) if job.item.md5 else None
        try:
            self._call(
                lambda: job.blob.commit_block_list(
                    [BlobBlock(name) for name, _ in blocks],
                    content_settings=settings,
                    metadata=job.metadata,
                    validate_content=True,
                )
            )
        except MirrorError as error:
            if code_of(error.__cause__) in _LOST:
                return  # the caller looks what is there, and sends the file again if it must
            raise
        committed, _ = self._call(lambda: job.blob.get_block_list("committed"))
        if [(block.id, block.size) for block in committed] != blocks:
            raise ServiceUnavailable(
                f"{job.item.path} does not have the blocks that were sent",
                "is another program writing there? run the same command again",
            )

    def _known_blocks(self, blob: BlobClient) -> dict[str, int]:
        """Id -> size of the blocks that an earlier try left.

        Ids of another length make the service refuse ours, and it keeps 100,000 uncommitted blocks at most:
        committing an empty list throws them away.
        """
        try:
            _, found = self._call(lambda: blob.get_block_list("uncommitted"))
        except MirrorError as error:
            if is_missing(error.__cause__):
                return {}
            raise
        if len(found) > MAX_BLOCKS or any(len(block.id) != _ID_CHARACTERS for block in found):
            self._call(lambda: blob.commit_block_list([]))
            return {}
        return {block.id: block.size for block in found}

    def _arrived(self, job: _Job, count: int, sent: int) -> None:
        with self._lock:
            self.sent += sent
        self._progress(job.item.path, count)


def block_size(size: int, wanted: int) -> int:
    """Return the block size for a file in bytes, raised in whole MiB where it would need too many blocks."""
    least = -(-size // MAX_BLOCKS)
    return wanted if least <= wanted else -(-least // MIB) * MIB


def block_id(offset: int, digest: str) -> str:
    """Return the id of a block: where it is and, in 208 bits of a SHA-256, what it is."""
    return f"{offset:0{_OFFSET_DIGITS}x}{digest[: _ID_CHARACTERS - _OFFSET_DIGITS]}"


def _require_same(tree: Tree, item: Item, count: int, digest: str) -> None:
    if (
        count != item.bytes
        or (item.sha256 is not None and digest != item.sha256)
        or not tree.source.is_unchanged(tree.entry(item.source))
    ):
        raise DataError(
            f"{item.source} changed while it was sent ({item.bytes} bytes when listed, {count} read)",
            "wait until the training has ended and nothing writes there any more, then run again",
        )
