"""Copies files from a staging folder, where they were sent while they were hashed, to their place.

The storage service copies them, so no byte passes through this program again. A file sent by this attempt is
copied as a whole, bound to the ETag of our own commit. Blocks from an earlier attempt prove nothing by their
ids, because anyone with write access may have planted them. A file with such blocks is copied block by block,
and the service compares the MD5 of each with the one from the source's bytes. Files that the service refuses
are uploaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from azure.storage.blob import BlobClient

from aml_mirror.core.manifest import ManifestEntry
from aml_mirror.sources.base import Entry
from aml_mirror.sources.block_reader import CRC64, MD5
from aml_mirror.storage.azure_login import credential
from aml_mirror.transfer.block_ids import block_id
from aml_mirror.transfer.checksums import header_of, source_header_of
from aml_mirror.transfer.requests import Requests
from aml_mirror.transfer.senders import Call
from aml_mirror.transfer.server_copy import ServerCopy
from aml_mirror.transfer.upload_job import Committed
from aml_mirror.transfer.url_copy import CopyRange, CopyRefused


@dataclass(slots=True)
class StagedFiles:
    """The result of reading the files once.

    ``folder`` is their place in the container, without a slash at the end. ``files`` are those that exist
    there, by path in the version. ``held`` has the bytes of small ones that were never sent. ``sent`` and
    ``reused`` count bytes.
    """

    requests: Requests
    folder: str
    kind: str = MD5
    """The kind of checksum that the service compares."""
    files: dict[str, Committed] = field(default_factory=dict)
    held: dict[str, bytes] = field(default_factory=dict)
    sent: int = 0
    reused: int = 0

    def has(self, item: ManifestEntry) -> bool:
        """Tell whether exactly these bytes are staged."""
        made = self.files.get(item.path)
        return made is not None and bool(made.stored.etag) and made.stored.sha256 == item.sha256

    def entry(self, item: ManifestEntry) -> Entry:
        """Return a staged file in the form that a copy needs."""
        made = self.files[item.path]
        return Entry(item.path, item.bytes, made.stored.etag)


class StagedCopy(ServerCopy):
    """Copies staged files to their place. See :class:`aml_mirror.transfer.server_copy.ServerCopy`."""

    def __init__(self, staged: StagedFiles, call: Call, sleep: Callable[[float], None]) -> None:
        self._staged = staged
        super().__init__(_StagedBlobs(staged), staged.requests.container.url, call, sleep)
        self._ways = [self._inside, self._by_block]

    def copy(self, entry: Entry, blob: BlobClient, metadata: dict[str, str], etag: str = "") -> str | None:
        if self._staged.files[entry.path].unproven:
            return self._try(1, entry, blob, metadata, etag)
        return super().copy(entry, blob, metadata, etag)

    def _by_block(self, entry: Entry, blob: BlobClient, metadata: dict[str, str], etag: str) -> str:
        made = self._staged.files[entry.path]
        blocks, kind = made.entry.blocks, self._staged.kind
        if blocks is None:
            return self._in_one_request(entry, blob, metadata, etag)
        ranges = []
        for number in range(len(blocks)):
            offset = number * blocks.block_bytes
            length = min(blocks.block_bytes, entry.bytes - offset)
            headers: dict[str, str] = {}
            if number in made.unproven:
                headers = header_of(MD5, made.unproven[number])
            elif kind == CRC64 and blocks.crcs:
                headers = header_of(CRC64, blocks.crc64(number))
            name = block_id(offset, blocks.digest(number).hex())
            ranges.append(CopyRange(name, offset, length, source_header_of(headers)))
        return self._in_ranges(entry, blob, metadata, etag, ranges)


class _StagedBlobs:
    """A staging folder in the form that :class:`ServerCopy` copies from."""

    def __init__(self, staged: StagedFiles) -> None:
        self._staged = staged
        self.account_url = staged.requests.container.url

    @property
    def credential(self) -> object:
        return credential()

    def url(self, entry: Entry) -> str:
        return str(self._staged.requests.blob(f"{self._staged.folder}/{entry.path}").url).partition("?")[0]

    def is_unchanged(self, entry: Entry) -> bool:
        # A changed staged file is not the source's fault. The file is uploaded.
        return True

    def changed_error(self, entry: Entry) -> Exception:
        return CopyRefused("the staged file was replaced meanwhile")
