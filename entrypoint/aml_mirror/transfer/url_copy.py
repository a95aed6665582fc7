"""Copies blobs from a URL, synchronously: Put Blob From URL, or Put Block From URL in ranges."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock, BlobClient

from aml_mirror.core.errors import MirrorError, ServiceUnavailable
from aml_mirror.sources.base import Entry
from aml_mirror.storage.azure_errors import code_of, is_changed, is_conflict, is_damage, is_missing, status_of
from aml_mirror.storage.azure_login import STORAGE_SCOPE
from aml_mirror.storage.blob_client import account_of
from aml_mirror.transfer.block_ids import conditions, plain_etag
from aml_mirror.transfer.senders import Call

# For one blob. Several blobs are copied at the same time.
RANGES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class CopyRange:
    """A range of a blob that becomes a block: its id, offset and length in bytes, and its own headers."""

    name: str
    offset: int
    length: int
    headers: dict[str, str] = field(default_factory=dict)


class CopyRefused(Exception):
    """This way of copying is not available. The message says why."""


class CopyConflict(Exception):
    """The blob at the destination is not the one that was seen there."""


class CopySource(Protocol):
    """The source of a copy; see :class:`aml_mirror.sources.base.AzureBlobs`."""

    account_url: str

    @property
    def credential(self) -> Any:
        """The token credential that reads it."""

    def url(self, entry: Entry) -> str:
        """Return the address of a blob, without any credential."""

    def is_unchanged(self, entry: Entry) -> bool:
        """Return whether a blob is as it was listed."""

    def changed_error(self, entry: Entry) -> Exception:
        """Return the error for a blob that was replaced meanwhile."""


class UrlCopy:
    """Copies blobs of one source.

    Args:
        source: the source of the blobs.
        call: runs a request, with retries.
    """

    def __init__(self, source: CopySource, call: Call) -> None:
        self._source = source
        self._call = call

    def _authorization(self) -> str:
        # Created for each request: a copy of many blocks outlives a token.
        return f"Bearer {self._source.credential.get_token(STORAGE_SCOPE).token}"

    def _in_one_request(self, entry: Entry, blob: BlobClient, metadata: dict[str, str], etag: str) -> str:
        try:
            answer = self._call(
                lambda: blob.upload_blob_from_url(
                    self._source.url(entry),
                    overwrite=bool(etag),
                    **(conditions(etag) if etag else {}),
                    metadata=metadata,
                    source_authorization=self._authorization(),
                    source_etag=f'"{entry.stamp}"',
                    source_match_condition=MatchConditions.IfNotModified,
                )
            )
        except MirrorError as error:
            raise self._judged(error, entry) from error
        return plain_etag(answer.get("etag"))

    def _in_ranges(
        self, entry: Entry, blob: BlobClient, metadata: dict[str, str], etag: str, ranges: list[CopyRange]
    ) -> str:
        """Copy a blob in blocks, some at a time."""

        def put(one: CopyRange) -> bool:
            try:
                blob.stage_block_from_url(
                    one.name,
                    self._source.url(entry),
                    source_offset=one.offset,
                    source_length=one.length,
                    source_authorization=self._authorization(),
                    # The method has no parameter for the condition (azure-storage-blob 12.27.1).
                    headers={"x-ms-source-if-match": f'"{entry.stamp}"', **one.headers},
                )
            except HttpResponseError as error:
                if is_damage(error):
                    return False  # the existing blob has other bytes, and will keep them
                raise
            return True

        def stage(one: CopyRange) -> None:
            if not self._call(lambda: put(one)):
                raise CopyRefused("the source does not have the expected bytes")

        pool = ThreadPoolExecutor(RANGES_AT_ONCE, thread_name_prefix="copy")
        try:
            for future in [pool.submit(stage, one) for one in ranges]:
                future.result()
            blocks = [BlobBlock(one.name) for one in ranges]
            answer = self._call(lambda: blob.commit_block_list(blocks, metadata=metadata, **conditions(etag)))
        except MirrorError as error:
            raise self._judged(error, entry) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return plain_etag(answer.get("etag"))

    def _judged(self, error: MirrorError, entry: Entry) -> Exception:
        """Interpret a failed request: changed source, unavailable service, or a way that is closed."""
        if isinstance(error, ServiceUnavailable) and not _says_no(error.__cause__):
            return error
        if is_conflict(error.__cause__) and self._source.is_unchanged(entry):
            return CopyConflict()
        if is_changed(error.__cause__):
            return self._source.changed_error(entry)
        return reason(error, f"the service did not copy from {account_of(self._source.account_url)}")


def _says_no(cause: BaseException | None) -> bool:
    # 501: the service, or its substitute, does not know the request.
    return status_of(cause) == 501


def reason(error: MirrorError, what: str) -> Exception:
    if isinstance(error, ServiceUnavailable):
        return error
    cause = error.__cause__
    if is_missing(cause) and code_of(cause) == "ContainerNotFound":
        return error
    said = f"{status_of(cause)} {code_of(cause)}".strip() if status_of(cause) else error.message
    return CopyRefused(f"{what} ({said})")
