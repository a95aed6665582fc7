"""The checksum sent with a block: it makes the service store exactly the bytes that were hashed here.

Azure checks two kinds: MD5, and from service version 2019-02-02 a CRC-64 (:mod:`.crc64`; its eight bytes are
sent with the lowest first). The CRC takes a thirtieth of the time, but not every service with this protocol
supports it. Azurite answers 500, and a service that ignores the header would store anything. So a service has
to prove that it checks: it must refuse a block that arrives with the checksum of another one.

Sources: Learn, "Put Block" and "Blob service error codes"; the order of the bytes is that of
azure-storage-blob 12.31.
"""

from __future__ import annotations

import base64
import hashlib

from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.blob import BlobClient

from aml_mirror.core.manifest import CRC_BYTES
from aml_mirror.sources.block_reader import CRC64, MD5
from aml_mirror.sources.hashing import CRC64_FROM_BYTES
from aml_mirror.storage.azure_errors import code_of
from aml_mirror.storage.azure_login import with_fresh_login
from aml_mirror.support.crc64 import crc64 as take

# Below this size, MD5 takes a tenth of a second of one core. The request to ask would take as long.
WORTH_ASKING_BYTES = CRC64_FROM_BYTES
_QUESTION = b"\0"


def header_of(kind: str, checksum: bytes) -> dict[str, str]:
    """Return the header for a computed checksum: ``CRC64``, lowest byte first, or ``MD5``."""
    name = "x-ms-content-crc64" if kind == CRC64 else "Content-MD5"
    return {name: base64.b64encode(checksum).decode()}


def source_header_of(header: dict[str, str]) -> dict[str, str]:
    """Return the header for the same checksum if the service takes the bytes from another blob."""
    return {f"x-ms-source-{name.lower().removeprefix('x-ms-')}": text for name, text in header.items()}


def header_for(kind: str, data: bytes | memoryview) -> dict[str, str]:
    """Return the header for bytes."""
    if kind == CRC64:
        return header_of(kind, take(memoryview(data)).to_bytes(CRC_BYTES, "little"))
    return header_of(kind, hashlib.md5(data, usedforsecurity=False).digest())


def checks_crc64(blob: BlobClient, block: str) -> bool:
    """Ask a service, in one request, whether it refuses a block with a wrong CRC-64.

    If it gives another answer, or none, MD5 is the safe choice. If the service stores the block, this leaves
    one uncommitted byte until the blob is committed.

    Args:
        blob: a blob that is about to be sent in blocks.
        block: an unused id for the block, as long as the others.
    """
    wrong = header_for(CRC64, b"\1")
    try:
        with_fresh_login(
            lambda: blob.stage_block(block, _QUESTION, length=len(_QUESTION), headers=wrong, retry_total=0)
        )
    except HttpResponseError as error:
        return code_of(error) == "Crc64Mismatch"
    except AzureError:
        return False
    return False


class Choice:
    """Chooses the checksum for a service's blocks. It asks the service once, if that is worth a request."""

    def __init__(self) -> None:
        self._crc64: bool | None = None

    def is_worth_asking(self, size: int) -> bool:
        """Tell whether the answer is still unknown, and would help for a blob of this size."""
        return self._crc64 is None and size >= WORTH_ASKING_BYTES

    def ask(self, blob: BlobClient, block: str) -> None:
        """Find out; arguments as for :func:`checks_crc64`."""
        self._crc64 = checks_crc64(blob, block)

    @property
    def kind(self) -> str:
        """The checksum for the blocks: ``CRC64`` if the service compares it, else ``MD5``."""
        return CRC64 if self._crc64 else MD5
