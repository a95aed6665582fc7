"""Blocks that earlier versions have, taken from there by the storage service: Put Block From URL.

Which version has a block is decided by the block's digest (:mod:`aml_mirror.support.block_digest`), never by
a checksum or the id of a block: a copy keeps the ids of what it was copied from, and anybody can write a
block under any id. The digests come from lists that are pinned in the registry. Each request is bound to the
ETag that the earlier version's own commit got, and carries the checksum of the block that is wanted. Whatever
the service refuses is sent.
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

# A dictionary of so many digests takes 25 MB. They are those of 1 TiB in blocks of 8 MiB.
MAX_KNOWN = 131_072
# So many refusals, and no more is asked for: a service that takes no copies would be asked for each block.
MAX_REFUSALS = 8


@dataclass(frozen=True, slots=True)
class EarlierFile:
    """A file of an earlier version: its address, its ETag without quotes, its size in bytes, its blocks."""

    url: str
    etag: str
    bytes: int
    blocks: BlockDigests


class BlockSource(Protocol):
    """Where blocks may be taken from."""

    def take(self, blob: BlobClient, name: str, digest: bytes, length: int, checksum: dict[str, str]) -> bool:
        """Let the service take a block from an earlier version; False where that is not to be had.

        Args:
            blob: where to.
            name: id that the block gets there.
            digest, length: of the block.
            checksum: the header that would go with its bytes.
        """


class EarlierBlocks:
    """See :class:`BlockSource`. The blocks of some files, by digest.

    Args:
        files: those of the newest version first.
        authorization: makes the value of ``x-ms-copy-source-authorization``, again for each request.
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
                # The method has parameters for neither (azure-storage-blob 12.27.1).
                headers={"x-ms-source-if-match": f'"{file.etag}"', **source_header_of(checksum)},
                retry_total=0,
            )
        except AzureError:
            with self._lock:
                self._refusals += 1
            return False
        return True


class LateBlocks:
    """See :class:`BlockSource`. The blocks are looked up in a thread, and waited for by who asks first.

    Args:
        look: looks them up; whatever it raises, there are none.
    """

    def __init__(self, look: Callable[[], BlockSource]) -> None:
        self._found: Future[BlockSource | None] = Future()
        # Not one of an executor: a look that hangs must not hold the program's end.
        threading.Thread(target=self._look, args=(look,), name="earlier", daemon=True).start()

    def _look(self, look: Callable[[], BlockSource]) -> None:
        try:
            self._found.set_result(look())
        except Exception as error:  # noqa: BLE001 - then every block is sent
            _log.debug("earlier versions could not be looked at: %s", type(error).__name__)
            self._found.set_result(None)

    def take(self, blob: BlobClient, name: str, digest: bytes, length: int, checksum: dict[str, str]) -> bool:
        found = self._found.result()
        return found is not None and found.take(blob, name, digest, length, checksum)
