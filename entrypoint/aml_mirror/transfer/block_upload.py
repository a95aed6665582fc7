"""Uploads files to blobs in blocks, so that the service stores exactly the bytes that were hashed.

*The bytes.* A file is read once, in order (:mod:`aml_mirror.sources.block_reader`). Each block goes to a
sender as soon as its digest is known. A block's id consists of its offset and its digest. Its request carries
a checksum that the service compares before it stores the block (:mod:`aml_mirror.transfer.checksums`). So if
the service commits a list of ids in the right order with the right sizes, the bytes of the blob are known,
and nothing has to be read back.

*Continuing.* Ids prove nothing: anyone with write access can store other bytes under an id, and uncommitted
blocks cannot be read. So the blocks of a killed attempt are sent again, except in a staging folder. The
service copies staged files later, and then compares the checksum of each such block. It discards uncommitted
blocks after a week, and at a commit.

*Reuse.* If an earlier version has a block, the service takes it from there (:mod:`.block_reuse`).

*Small files* are one request, Put Blob, with an MD5 that stays with the blob.

Reading, hashing and retrying never share a position in a stream (:mod:`aml_mirror.transfer.blocks`). Memory
is limited to some parts of a block and at most senders + 1 small files, whatever the size of a file or block.
If a file is itself a blob, the limit is (senders + 2 + ``AHEAD``) blocks.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock, BlobClient, ContentSettings

from aml_mirror.core.errors import MirrorError, ServiceUnavailable
from aml_mirror.core.manifest import BlockDigests, ManifestEntry, StoredFile
from aml_mirror.sources.base import AzureBlobs
from aml_mirror.sources.block_reader import CRC64, MD5, BlockReader, ByteCheck, HashedBlock
from aml_mirror.sources.hashing import MAX_BLOCKS, WHOLE_BYTES, block_size, require_same, whole_file
from aml_mirror.sources.tree import Tree
from aml_mirror.storage.azure_errors import code_of, is_conflict, is_damage, is_missing
from aml_mirror.transfer.block_ids import ID_CHARACTERS, block_id, conditions, plain_etag
from aml_mirror.transfer.block_reuse import BlockSource
from aml_mirror.transfer.blocks import Body, all_of, body_of, md5_of
from aml_mirror.transfer.checksums import Choice, header_for, header_of
from aml_mirror.transfer.senders import Call, Senders
from aml_mirror.transfer.upload_job import Committed, UploadJob, changed, require_digest, require_unchanged

# The metadata of a blob by which a later attempt trusts it. Names of metadata are C# identifiers.
SHA256 = "sha256"
SOURCE_ETAG = "source_etag"
# Blocks are gone: another mirror of the same bytes committed first, or a week has passed.
_LOST = ("InvalidBlockList",)


class BlockUpload:
    """Uploads files. ``sent`` and ``reused`` count the bytes that the service received or took from
    elsewhere.

    Args:
        call: runs a request, with retries.
        senders: the threads.
        block_bytes: the size of a block; increased for a file that would need more than ``MAX_BLOCKS``.
        choice: which checksum is sent with a block.
        progress: called from any thread with the path of a file and how many of its bytes arrived.
        committed: called from any thread with the result of a commit.
        hashed: called from any thread with the entry of a file and its digests.
        earlier: the blocks of earlier versions; None: nothing is reused.
        continues: whether existing blocks are kept, no matter who wrote them. Then the ``unproven`` ones have
            to be compared.
    """

    def __init__(
        self,
        call: Call,
        senders: Senders,
        block_bytes: int,
        choice: Choice,
        progress: Callable[[str, int], None],
        committed: Callable[[Committed], None] = lambda made: None,
        hashed: Callable[[ManifestEntry], None] = lambda entry: None,
        earlier: BlockSource | None = None,
        continues: bool = False,
    ) -> None:
        self._call = call
        self._senders = senders
        self._block_bytes = block_bytes
        self._choice = choice
        self._progress = progress
        self._committed = committed
        self._hashed = hashed
        self._earlier = earlier
        self._continues = continues
        self._lock = threading.Lock()
        self.sent = self.reused = 0

    def send(
        self,
        tree: Tree,
        item: ManifestEntry,
        blob: BlobClient,
        metadata: dict[str, str],
        etag: str = "",
        check: ByteCheck | None = None,
        held: bytes | None = None,
        look: bool = True,
    ) -> None:
        """Read a file to its end and send its blocks meanwhile. The senders commit it.

        Args:
            etag: the ETag of the blob to replace, without quotes; empty: there is none. If another writer was
                faster, the commit changes nothing, and the caller looks at the result.
            check: sees the bytes as they are read.
            held: the bytes of a small file that was already read.
            look: whether an earlier attempt may have left blocks.

        Raises:
            DataError: the file no longer matches the manifest; nothing was committed.
        """
        step = block_size(item.bytes, self._block_bytes)
        if item.bytes <= min(step, WHOLE_BYTES):
            whole = partial(self._whole, tree, item, blob, metadata, etag, check, held)
            self._senders.submit(whole)
            return
        asked = None
        if self._choice.is_worth_asking(item.bytes):
            asked = self._senders.submit(lambda: self._choice.ask(blob, block_id(0, "0" * ID_CHARACTERS)))
        job = UploadJob(tree, item, blob, metadata, MD5, etag)
        if look and (self._continues or item.bytes > step):
            # In the meantime. A file with one block has nothing to continue with.
            self._look(job)
        if asked is not None:
            asked.result()
        job.kind = self._choice.kind
        noted = item.blocks
        if noted and noted.crcs and noted.block_bytes == step and job.kind == CRC64:
            self._send_noted(job, noted)
        else:
            self._send_read(job, step, check)

    def _send_noted(self, job: UploadJob, noted: BlockDigests) -> None:
        """Send a file whose blocks were recorded while it was hashed, except those that exist already."""
        item, step = job.item, noted.block_bytes
        for number in range(len(noted)):
            offset = number * step
            length = min(step, item.bytes - offset)
            self._submit(job, HashedBlock(offset, length, noted.digest(number), noted.crc64(number)))
        job.metadata = {**job.metadata, SHA256: str(item.sha256)}
        self._senders.submit(lambda: self._commit(job))

    def _send_read(self, job: UploadJob, step: int, check: ByteCheck | None) -> None:
        """Hash a file, for the first time or again, and send each block as soon as it is hashed."""
        tree, item = job.tree, job.item
        reader = BlockReader(tree, item.source, step, job.kind, check)
        with closing(iter(reader)) as found:
            for block in found:
                self._submit(job, block)
        require_same(tree, item.source, reader.count)
        require_digest(item, reader.sha256)
        job.metadata = {**job.metadata, SHA256: reader.sha256}
        job.item = replace(item, sha256=reader.sha256, blocks=reader.blocks)
        self._hashed(job.item)
        self._senders.submit(lambda: self._commit(job))

    def _submit(self, job: UploadJob, block: HashedBlock) -> None:
        number, body = len(job.blocks), body_of(job.tree, job.item.source, block)
        job.blocks.append(self._senders.submit(partial(self._put_block, job, number, block, body)))

    def _put_block(self, job: UploadJob, number: int, block: HashedBlock, body: Body) -> tuple[str, int]:
        """Send a block, unless it already exists. Return its id and size."""
        name, headers = block_id(block.offset, block.digest.hex()), header_of(job.kind, block.checksum)

        def attempt() -> None:
            with body() as data:
                try:
                    job.blob.stage_block(name, data, length=block.length, headers=headers)
                except HttpResponseError as error:
                    if is_damage(error) and header_for(job.kind, all_of(body)) != headers:
                        raise changed(job.item) from error
                    raise

        sent = reused = 0
        if job.known.get(name) == block.length:
            job.unproven[number] = md5_of(body)
        elif self._earlier and self._call(lambda: self._take(job, name, block, headers)):
            reused = block.length
        else:
            self._call(attempt)
            sent = block.length
        self._arrived(job, block.length, sent, reused)
        return name, block.length

    def _take(self, job: UploadJob, name: str, block: HashedBlock, headers: dict[str, str]) -> bool:
        return self._earlier is not None and self._earlier.take(
            job.blob, name, block.digest, block.length, headers
        )

    def _whole(
        self,
        tree: Tree,
        item: ManifestEntry,
        blob: BlobClient,
        metadata: dict[str, str],
        etag: str,
        check: ByteCheck | None,
        held: bytes | None,
    ) -> None:
        """Read a small file and send it in one request. Runs in many threads."""
        data, sha256 = whole_file(tree, item.source, check) if held is None else (held, str(item.sha256))
        require_digest(item, sha256)
        job = UploadJob(tree, replace(item, sha256=sha256), blob, {**metadata, SHA256: sha256}, MD5, etag)
        self._hashed(job.item)
        content_md5 = bytearray(hashlib.md5(data, usedforsecurity=False).digest())
        try:
            answer = self._call(
                lambda: blob.upload_blob(
                    data,
                    length=len(data),
                    validate_content=True,
                    metadata=job.metadata,
                    content_settings=ContentSettings(content_md5=content_md5),
                    max_concurrency=1,
                    overwrite=bool(etag),
                    **(conditions(etag) if etag else {}),
                )
            )
        except MirrorError as error:
            if not is_conflict(error.__cause__):
                raise
            answer = {}  # another writer, or our own request whose answer was lost: the caller looks
        self._arrived(job, len(data), len(data))
        if answer:
            self._note(job, answer)

    def _note(self, job: UploadJob, answer: dict[str, Any]) -> None:
        stored = StoredFile(job.item.bytes, plain_etag(answer.get("etag")), job.metadata[SHA256])
        self._committed(Committed(job.item, stored, job.unproven))

    def _commit(self, job: UploadJob) -> None:
        # All of these were already submitted. A sender that waits here waits for others, never for itself.
        blocks = [future.result() for future in job.blocks]
        names = [name for name, _ in blocks]
        if not isinstance(job.tree.source, AzureBlobs):  # The fetch bound each range to its ETag.
            require_unchanged(job.tree, job.item)
        if job.etag and job.committed == names and len(job.unproven) == len(names):
            self._note(job, {"etag": job.etag})  # An earlier attempt committed exactly these blocks.
            return
        settings = ContentSettings(content_md5=bytearray.fromhex(job.item.md5)) if job.item.md5 else None
        try:
            answer = self._call(
                lambda: job.blob.commit_block_list(
                    [BlobBlock(name) for name in names],
                    content_settings=settings,
                    metadata=job.metadata,
                    validate_content=True,
                    **conditions(job.etag),
                )
            )
        except MirrorError as error:
            if code_of(error.__cause__) in _LOST or is_conflict(error.__cause__):
                return  # The caller looks at the result, and sends the file again if necessary.
            raise
        if not self._continues:
            self._require_committed(job, blocks)
        self._note(job, answer)

    def _require_committed(self, job: UploadJob, blocks: list[tuple[str, int]]) -> None:
        committed, _ = self._call(lambda: job.blob.get_block_list("committed"))
        if [(block.id, block.size) for block in committed] != blocks:
            raise ServiceUnavailable(
                f"{job.item.path} does not have the blocks that were sent",
                "is another program writing there? run the same command again",
            )

    def _look(self, job: UploadJob) -> None:
        """Record the blocks of an earlier attempt, if they can be used.

        Ids of another length would make the service refuse ours, and it stores at most 100,000 uncommitted
        blocks. Committing an empty list discards them.
        """
        kind = "all" if self._continues else "uncommitted"
        try:
            committed, found = self._call(lambda: job.blob.get_block_list(kind))
        except MirrorError as error:
            if is_missing(error.__cause__):
                return
            raise
        if len(found) > MAX_BLOCKS or any(len(block.id) != ID_CHARACTERS for block in found):
            emptied = self._call(lambda: job.blob.commit_block_list([], **conditions(job.etag)))
            job.etag = plain_etag(emptied.get("etag"))
            return
        if not self._continues:
            return
        job.known = {block.id: block.size for block in [*committed, *found]}
        job.committed = [block.id for block in committed] if not found else []

    def _arrived(self, job: UploadJob, count: int, sent: int, reused: int = 0) -> None:
        with self._lock:
            self.sent += sent
            self.reused += reused
        self._progress(job.item.path, count)
