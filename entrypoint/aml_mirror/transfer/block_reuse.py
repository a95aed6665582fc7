"""Takes blocks from earlier versions inside the storage service: Put Block From URL.

The digest of a block (:mod:`aml_mirror.support.block_digest`) decides which version has it, never a checksum
or the id of a block. A copy keeps the ids of its original, and anybody can write a block under any id. The
digests come from lists that are pinned in the registry. Each request is bound to the ETag of the earlier
version's own commit, and carries the checksum of the requested block. A block that the service refuses is
uploaded.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from azure.core.exceptions import AzureError
from azure.storage.blob import BlobClient

from aml_mirror.core.manifest import BlockDigests
from aml_mirror.transfer.checksums import source_header_of

_log = logging.getLogger(__name__)

# A dictionary of this many digests takes 25 MB. They cover 1 TiB in blocks of 8 MiB.
MAX_KNOWN = 131_072
# After this many refusals, no more blocks are requested: a service that takes no copies would be asked for
# each block.
MAX_REFUSALS = 8


@dataclass(frozen=True, slots=True)
class EarlierFile:
    """A file of an earlier version: its address, its ETag without quotes, its size in bytes, its blocks."""

    url: str
    etag: str
    bytes: int
    blocks: BlockDigests


class BlockSource(Protocol):
    """Where blocks can be taken from."""

    def take(self, blob: BlobClient, name: str, digest: bytes, length: int, checksum: dict[str, str]) -> bool:
        """Let the service take a block from an earlier version; False if that is not possible.

        Args:
            blob: the target.
            name: the id of the block in the target.
            digest, length: of the block.
            checksum: the header that would be sent with its bytes.
        """


class EarlierBlocks:
    """The blocks of some files, by digest. See :class:`BlockSource`.

    Args:
        files: the files, those of the newest version first.
        authorization: returns the value of ``x-ms-copy-source-authorization``, for each request.
    """

    def __init__(self, files: list[EarlierFile], authorization: Callable[[], str]) -> None:
        self._files = files
        self._authorization = authorization
        self._known: dict[bytes, tuple[int, int]] = {}
        self._refusals = 0
        self._lock = threading.Lock()
        for at, file in enumerate(files):
            for number in range(len(file.blocks)):
                if len(self._known) >= MAX_KNOWN:
                    return
                self._known.setdefault(file.blocks.digest(number), (at, number))

    def take(self, blob: BlobClient, name: str, digest: bytes, length: int, checksum: dict[str, str]) -> bool:
        found = self._known.get(digest)
        if found is None or self._refusals >= MAX_REFUSALS:
            return False
        file, offset = self._files[found[0]], found[1] * self._files[found[0]].blocks.block_bytes
        if min(file.blocks.block_bytes, file.bytes - offset) != length:
            return False
        try:
            blob.stage_block_from_url(
                name,
                file.url,
                source_offset=offset,
                source_length=length,
                source_authorization=self._authorization(),
                # The method has no parameter for either (azure-storage-blob 12.27.1).
                headers={"x-ms-source-if-match": f'"{file.etag}"', **source_header_of(checksum)},
                retry_total=0,
            )
        except AzureError:
            with self._lock:
                self._refusals += 1
            return False
        return True


class LateBlocks:
    """Looks up the blocks in a thread. The first request waits for it. See :class:`BlockSource`.

    Args:
        look: looks them up. If it raises, there are no blocks.
    """

    def __init__(self, look: Callable[[], BlockSource]) -> None:
        self._found: Future[BlockSource | None] = Future()
        # Not a thread of an executor: a lookup that hangs must not delay the end of the program.
        threading.Thread(target=self._look, args=(look,), name="earlier", daemon=True).start()

    def _look(self, look: Callable[[], BlockSource]) -> None:
        try:
            self._found.set_result(look())
        except Exception as error:  # noqa: BLE001 - then every block is uploaded
            _log.debug("earlier versions could not be searched: %s", type(error).__name__)
            self._found.set_result(None)

    def take(self, blob: BlobClient, name: str, digest: bytes, length: int, checksum: dict[str, str]) -> bool:
        found = self._found.result()
        return found is not None and found.take(blob, name, digest, length, checksum)
