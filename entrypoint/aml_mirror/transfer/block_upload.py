"""Files to blobs, in blocks, so that what the service stored is what was hashed.

*The bytes.* A file is read once, in order. Each block is hashed into the file's SHA-256 and handed to a
sender. A block's id is its offset and the SHA-256 of the file up to the block's end, which costs nothing
more, and its request carries a checksum that the service compares before it keeps the block
(:mod:`aml_mirror.transfer.checksums`). So a list of ids in the right order, committed by the service with
the sizes that were sent, says which bytes the blob has: nothing needs to be read back.

*Going on.* Blocks that a killed try left uncommitted are listed by id and size. A block with that very id
is not sent again; any other id is another place or other bytes, there or before. The service forgets them
after a week, and with the commit.

*Small files* are one request, Put Blob, with an MD5 that stays with the blob.

Reading, hashing and retrying never share a position in a stream (:mod:`aml_mirror.transfer.blocks`). Memory
is one block and, at most, senders + 1 small files, whatever the size of a file or of a block; where a file is
itself a blob, (senders + 2 + ``AHEAD``) blocks.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock, BlobClient, ContentSettings

from aml_mirror.core.errors import DataError, MirrorError, ServiceUnavailable
from aml_mirror.core.manifest import NOTED_BYTES, ManifestEntry, StoredFile
from aml_mirror.sources.base import AzureBlobs
from aml_mirror.sources.ranged_file import read_into
from aml_mirror.sources.tree import Tree
from aml_mirror.storage.azure_errors import code_of, is_conflict, is_damage, is_missing
from aml_mirror.transfer.blocks import Body, FilePart, blocks
from aml_mirror.transfer.checksums import Checksum, Choice, crc64, crc64_header, md5
from aml_mirror.transfer.senders import Call, Senders
from aml_mirror.transfer.transfer_options import MIB

# Learn, "Scalability and performance targets for Blob storage": a blob has up to 50,000 blocks.
MAX_BLOCKS = 50_000
# A file up to this size goes in one request, and is held in memory until it is there.
WHOLE_BYTES = MIB
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

    tree: Tree
    item: ManifestEntry
    blob: BlobClient
    metadata: dict[str, str]
    checksum: Checksum
    etag: str
    """Of the blob that is to be replaced; empty: there must be none."""
    blocks: list[Future[tuple[str, int]]] = field(default_factory=list)


class BlockUpload:
    """Sends files. ``sent`` counts the bytes that the service took.

    Args:
        call: runs a request, with retries.
        senders: the threads.
        block_bytes: size of a block; raised for a file that would need more than ``MAX_BLOCKS``.
        choice: which checksum goes with a block.
        progress: told, from any thread, the path of a file and how many of its bytes are there now.
        committed: told, from any thread, the path of a file and what its commit made.
    """

    def __init__(
        self,
        call: Call,
        senders: Senders,
        block_bytes: int,
        choice: Choice,
        progress: Callable[[str, int], None],
        committed: Callable[[str, StoredFile], None] = lambda path, stored: None,
    ) -> None:
        self._call = call
        self._senders = senders
        self._block_bytes = block_bytes
        self._choice = choice
        self._progress = progress
        self._committed = committed
        self._lock = threading.Lock()
        self.sent = 0

    def send(
        self, tree: Tree, item: ManifestEntry, blob: BlobClient, metadata: dict[str, str], etag: str = ""
    ) -> None:
        """Read a file to its end while its blocks are sent; the senders commit it.

        Args:
            etag: of the blob that is replaced, without quotes; empty: there is none. Where another writer was
                faster the commit changes nothing, and the caller looks what is there.

        Raises:
            DataError: the file is not the one of the manifest any more; nothing was committed.
        """
        step = block_size(item.bytes, self._block_bytes)
        if item.bytes <= min(step, WHOLE_BYTES):
            if isinstance(tree.source, AzureBlobs):
                # Reading is a request as well: the senders do both, so that small files are many at a time.
                self._senders.submit(lambda: self._whole(tree, item, blob, metadata, etag)())
            else:
                self._senders.submit(self._whole(tree, item, blob, metadata, etag))
            return
        asked = None
        if self._choice.is_worth_asking(item.bytes):
            asked = self._senders.submit(lambda: self._choice.ask(blob, block_id(0, "0" * _ID_CHARACTERS)))
        # Meanwhile. A file of one block has nothing to go on with.
        known, etag = self._known_blocks(blob, etag) if item.bytes > step else ({}, etag)
        if asked is not None:
            asked.result()
        checksum = self._choice.checksum
        job = _Job(tree, item, blob, metadata, checksum, etag)
        if step == NOTED_BYTES and item.notes and checksum is crc64:
            self._send_noted(job, known)
        else:
            self._send_read(job, known, step)

    def _send_noted(self, job: _Job, known: dict[str, int]) -> None:
        """Send a file whose blocks were noted as it was hashed: what is there already is not read again."""
        item = job.item
        for number, note in enumerate(item.notes):
            offset = number * NOTED_BYTES
            name, length = block_id(offset, note.sha256), min(NOTED_BYTES, item.bytes - offset)
            headers = None if known.get(name) == length else crc64_header(note.crc64)
            body = partial(FilePart, job.tree, item.source, offset, length)
            self._submit(job, name, body, length, headers)
        job.metadata = {**job.metadata, SHA256: item.notes[-1].sha256}
        self._senders.submit(lambda: self._commit(job))

    def _send_read(self, job: _Job, known: dict[str, int], step: int) -> None:
        """Hash a file, for the first time or once more, and send each block as soon as it is hashed."""
        tree, item = job.tree, job.item
        digest = hashlib.sha256()
        count = 0
        with closing(blocks(tree, item.source, step)) as found:
            for block in found:
                digest.update(block.data)
                name, length = block_id(count, digest.hexdigest()), len(block.data)
                # What lies in the block's memory is another block by the time that the sender begins.
                headers = None if known.get(name) == length else job.checksum(block.data)
                self._submit(job, name, block.body, length, headers)
                count += length
                if count > item.bytes:
                    break
        _require_same(tree, item, count, digest.hexdigest())
        job.metadata = {**job.metadata, SHA256: digest.hexdigest()}
        self._senders.submit(lambda: self._commit(job))

    def _submit(self, job: _Job, name: str, body: Body, length: int, headers: dict[str, str] | None) -> None:
        task = partial(self._put_block, job, name, body, length, headers)
        job.blocks.append(self._senders.submit(task))

    def _whole(
        self, tree: Tree, item: ManifestEntry, blob: BlobClient, metadata: dict[str, str], etag: str
    ) -> Callable[[], None]:
        """Read a small file, and return what sends it."""
        buffer = bytearray(item.bytes + 1)
        with tree.open(item.source) as stream:
            count = read_into(stream, buffer)
        data = bytes(buffer[:count])
        digest = hashlib.sha256(data).hexdigest()
        _require_same(tree, item, len(data), digest)
        job = _Job(tree, item, blob, {**metadata, SHA256: digest}, md5, etag)
        return lambda: self._put_whole(job, data)

    def _put_whole(self, job: _Job, data: bytes) -> None:
        content_md5 = bytearray(hashlib.md5(data, usedforsecurity=False).digest())
        try:
            answer = self._call(
                lambda: job.blob.upload_blob(
                    data,
                    length=len(data),
                    validate_content=True,
                    metadata=job.metadata,
                    content_settings=ContentSettings(content_md5=content_md5),
                    max_concurrency=1,
                    overwrite=bool(job.etag),
                    **(conditions(job.etag) if job.etag else {}),
                )
            )
        except MirrorError as error:
            if not is_conflict(error.__cause__):
                raise
            answer = {}  # another writer, or our own request whose answer was lost: the caller looks
        self._arrived(job, len(data), len(data))
        if answer:
            self._note(job, answer)

    def _note(self, job: _Job, answer: dict[str, Any]) -> None:
        stored = StoredFile(job.item.bytes, plain_etag(answer.get("etag")), job.metadata[SHA256])
        self._committed(job.item.path, stored)

    def _put_block(
        self, job: _Job, name: str, body: Body, length: int, headers: dict[str, str] | None
    ) -> tuple[str, int]:
        """Send a block; without headers it is there already."""

        def attempt() -> None:
            with body() as data:
                try:
                    job.blob.stage_block(name, data, length=length, headers=headers)
                except HttpResponseError as error:
                    if is_damage(error) and job.checksum(_all_of(body)) != headers:
                        raise _changed(job.item) from error
                    raise

        if headers is not None:
            self._call(attempt)
        self._arrived(job, length, 0 if headers is None else length)
        return name, length

    def _commit(self, job: _Job) -> None:
        # These were all submitted before: a sender that waits here waits for others, never for itself.
        blocks = [future.result() for future in job.blocks]
        if not isinstance(job.tree.source, AzureBlobs):  # which bound each range to its ETag
            _require_unchanged(job.tree, job.item)
        settings = ContentSettings(content_md5=bytearray.fromhex(job.item.md5)) if job.item.md5 else None
        try:
            answer = self._call(
                lambda: job.blob.commit_block_list(
                    [BlobBlock(name) for name, _ in blocks],
                    content_settings=settings,
                    metadata=job.metadata,
                    validate_content=True,
                    **conditions(job.etag),
                )
            )
        except MirrorError as error:
            if code_of(error.__cause__) in _LOST or is_conflict(error.__cause__):
                return  # the caller looks what is there, and sends the file again if it must
            raise
        committed, _ = self._call(lambda: job.blob.get_block_list("committed"))
        if [(block.id, block.size) for block in committed] != blocks:
            raise ServiceUnavailable(
                f"{job.item.path} does not have the blocks that were sent",
                "is another program writing there? run the same command again",
            )
        self._note(job, answer)

    def _known_blocks(self, blob: BlobClient, etag: str) -> tuple[dict[str, int], str]:
        """Id -> size of the blocks that an earlier attempt left, and the ETag that the blob has now.

        Ids of another length make the service refuse ours, and it keeps 100,000 uncommitted blocks at most:
        committing an empty list throws them away.
        """
        try:
            _, found = self._call(lambda: blob.get_block_list("uncommitted"))
        except MirrorError as error:
            if is_missing(error.__cause__):
                return {}, etag
            raise
        if len(found) > MAX_BLOCKS or any(len(block.id) != _ID_CHARACTERS for block in found):
            emptied = self._call(lambda: blob.commit_block_list([], **conditions(etag)))
            return {}, plain_etag(emptied.get("etag"))
        return {block.id: block.size for block in found}, etag

    def _arrived(self, job: _Job, count: int, sent: int) -> None:
        with self._lock:
            self.sent += sent
        self._progress(job.item.path, count)


def conditions(etag: str) -> dict[str, Any]:
    """What a commit is bound to: the blob that was seen, or that there is none."""
    if not etag:
        return {"match_condition": MatchConditions.IfMissing}
    return {"etag": f'"{etag}"', "match_condition": MatchConditions.IfNotModified}


def plain_etag(etag: object) -> str:
    """Return an ETag without its quotes; empty where there is none."""
    return str(etag or "").strip('"')


def block_size(size: int, wanted: int) -> int:
    """Return the block size for a file in bytes, raised in whole MiB where it would need too many blocks."""
    least = -(-size // MAX_BLOCKS)
    return wanted if least <= wanted else -(-least // MIB) * MIB


def block_id(offset: int, digest: str) -> str:
    """Return the id of a block: where it is and, in 208 bits of a SHA-256, what it is."""
    return f"{offset:0{_OFFSET_DIGITS}x}{digest[: _ID_CHARACTERS - _OFFSET_DIGITS]}"


def _require_same(tree: Tree, item: ManifestEntry, count: int, digest: str) -> None:
    _require_unchanged(tree, item)
    if count != item.bytes or (item.sha256 is not None and digest != item.sha256):
        raise _changed(item, f" ({item.bytes} bytes when listed, {count} read)")


def _require_unchanged(tree: Tree, item: ManifestEntry) -> None:
    if not tree.source.is_unchanged(tree.entry(item.source)):
        raise _changed(item)


def _changed(item: ManifestEntry, how: str = "") -> DataError:
    return DataError(
        f"{item.source} changed while it was sent{how}",
        "wait until the training has ended and nothing writes there any more, then run again",
    )


def _all_of(body: Body) -> memoryview:
    with body() as data:
        return memoryview(data.read() if isinstance(data, FilePart) else data)
