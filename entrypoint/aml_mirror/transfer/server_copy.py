"""Copies blobs to blobs inside the storage service: no byte passes through this program.

Every way of copying is bound to the ETag of the blob that was judged, so the service refuses if the blob has
changed. There are three ways. Each is tried if the one before it was refused:

1. *In one account*: Copy Blob with this identity's token. It is done at once, or polled while it is pending.
2. *Between accounts*: Put Blob From URL, or Put Block From URL for a large blob, with the token as the
   source's authorization. It is synchronous and needs no secret, but one tenant for both accounts.
3. *Between accounts*: Copy Blob from a URL with a user-delegation SAS that only allows reading, for one blob.
   The service does it when it has time.

If a way was refused before it ever succeeded, it is not tried for the other blobs. If no way works, the
caller has to send the blob, and gets the reason.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import cast

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import (
    BlobClient,
    BlobProperties,
    BlobSasPermissions,
    UserDelegationKey,
    generate_blob_sas,
)

from aml_mirror.core.errors import MirrorError, ServiceUnavailable
from aml_mirror.sources.base import AzureBlobs, Entry
from aml_mirror.sources.hashing import block_size
from aml_mirror.storage.azure_errors import code_of, status_of
from aml_mirror.storage.blob_client import account_of, metadata_of
from aml_mirror.support import redaction
from aml_mirror.transfer.block_ids import block_id, conditions, plain_etag
from aml_mirror.transfer.block_upload import SOURCE_ETAG
from aml_mirror.transfer.senders import Call
from aml_mirror.transfer.transfer_options import MIB
from aml_mirror.transfer.url_copy import CopyConflict, CopyRange, CopyRefused, CopySource, UrlCopy, reason

# Put Blob From URL accepts 5,000 MiB. Some proxies cut a synchronous request that runs for minutes.
ONE_REQUEST_BYTES = 256 * MIB
COPY_BLOCK_BYTES = 64 * MIB
_OCCUPIED = "PendingCopyOperation"
_POLL_SECONDS = 0.5
_LONGEST_POLL_SECONDS = 10.0
# A pending copy without progress is given up. The service guarantees no time (Learn, Copy Blob).
STALL_SECONDS = 600.0
# A SAS is made for one blob, and renewed when this much time is left. The key's clock may be ours or the
# service's.
_SAS_LIFE = timedelta(hours=24)
_SAS_LEFT = timedelta(hours=2)
_CLOCK_SKEW = timedelta(minutes=15)


class ServerCopy(UrlCopy):
    """Copies blobs of one source. ``refusals`` says which ways were refused, and why.

    Args:
        source: the source of the blobs.
        account_url: the address of the account to copy to.
        call: runs a request, with retries.
        sleep: pauses between polls.
    """

    def __init__(
        self, source: CopySource, account_url: str, call: Call, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__(source, call)
        self._sleep = sleep
        self._lock = threading.Lock()
        self._key: tuple[UserDelegationKey, datetime] | None = None
        self._succeeded: set[int] = set()
        self._from = 0
        self.refusals: list[str] = []
        inside = _host(source.account_url) == _host(account_url)
        self._ways = [self._inside] if inside else [self._from_url, self._with_sas]

    def copy(self, entry: Entry, blob: BlobClient, metadata: dict[str, str], etag: str = "") -> str | None:
        """Copy one blob and return the ETag of the copy; None if no way is open.

        Args:
            entry: the source's blob, as listed.
            blob: the target.
            metadata: the metadata of the copy, replacing the source's.
            etag: the ETag of the blob to replace, without quotes; empty: there is none. If another writer was
                faster, nothing is changed and the result is empty: the caller looks at the blob.

        Raises:
            DataError: the source's blob is no longer the listed one.
            ServiceUnavailable: it keeps failing for temporary reasons, for longer than we may wait.
        """
        for number in range(self._from, len(self._ways)):
            made = self._try(number, entry, blob, metadata, etag)
            if made is not None:
                return made
        return None

    def _try(
        self, number: int, entry: Entry, blob: BlobClient, metadata: dict[str, str], etag: str
    ) -> str | None:
        """Copy one blob in one of the ways, like :meth:`copy`."""
        try:
            made = self._ways[number](entry, blob, metadata, etag)
        except CopyConflict:
            made = ""
        except CopyRefused as why:
            if not self._source.is_unchanged(entry):
                raise self._source.changed_error(entry) from why
            self._refused(number, str(why))
            return None
        self._succeeded.add(number)
        return made

    def _refused(self, number: int, why: str) -> None:
        with self._lock:
            if why not in self.refusals:
                self.refusals.append(why)
            if number not in self._succeeded:
                self._from = max(self._from, number + 1)

    def _inside(self, entry: Entry, blob: BlobClient, metadata: dict[str, str], etag: str) -> str:
        return self._copy_blob(self._source.url(entry), entry, blob, metadata, etag)

    def _with_sas(self, entry: Entry, blob: BlobClient, metadata: dict[str, str], etag: str) -> str:
        source = cast(AzureBlobs, self._source).blob(entry)
        key = self._delegation_key()
        now = datetime.now(UTC)
        sas = generate_blob_sas(
            account_of(self._source.account_url),
            source.container_name,
            source.blob_name,
            user_delegation_key=key,
            permission=BlobSasPermissions(read=True),
            start=now - _CLOCK_SKEW,
            expiry=now + _SAS_LIFE - _SAS_LEFT,
            protocol="https",
        )
        return self._copy_blob(f"{self._source.url(entry)}?{sas}", entry, blob, metadata, etag)

    def _delegation_key(self) -> UserDelegationKey:
        with self._lock:
            now = datetime.now(UTC)
            if self._key is None or self._key[1] - now < _SAS_LIFE - _SAS_LEFT / 2:
                expiry = now + _SAS_LIFE
                try:
                    key = self._call(
                        lambda: cast(AzureBlobs, self._source).service.get_user_delegation_key(
                            now - _CLOCK_SKEW, expiry
                        )
                    )
                except MirrorError as error:
                    raise reason(error, "a user-delegation SAS cannot be created") from error
                self._key = (key, expiry)
            return self._key[0]

    def _copy_blob(
        self, url: str, entry: Entry, blob: BlobClient, metadata: dict[str, str], etag: str
    ) -> str:
        made = ""

        def start() -> str:
            nonlocal made
            try:
                answer = blob.start_copy_from_url(
                    url,
                    metadata=metadata,
                    source_etag=f'"{entry.stamp}"',
                    source_match_condition=MatchConditions.IfNotModified,
                    **conditions(etag),
                )
            except HttpResponseError as error:
                if code_of(error) == _OCCUPIED:
                    return _OCCUPIED  # Another attempt would not end it.
                raise
            made = plain_etag(answer.get("etag"))
            return str(answer.get("copy_status") or "")

        try:
            status = self._call(start)
            if status == _OCCUPIED and not self._is_ours(entry, blob):
                etag = plain_etag(self._call(blob.get_blob_properties).etag)
                status = self._call(start)
        except MirrorError as error:
            raise self._judged(error, entry) from error
        if status == _OCCUPIED and not self._is_ours(entry, blob):
            raise ServiceUnavailable(
                f"another program copies to {blob.blob_name}", "run the same command again when it has ended"
            )
        if status != "success":
            # The ETag is final only after the copy has ended.
            made = self._wait(entry, blob)
        return made

    def _is_ours(self, entry: Entry, blob: BlobClient) -> bool:
        """Tell whether the pending copy has the same bytes: the answer was lost, or an attempt was killed.

        A pending copy of other files, from a killed attempt, is aborted.
        """
        found = self._call(blob.get_blob_properties)
        # The service says where it copies from, not anything that somebody wrote.
        from_here = (
            str(found.copy.source or "").partition("?")[0] == self._source.url(entry).partition("?")[0]
        )
        if from_here and metadata_of(found).get(SOURCE_ETAG) == entry.stamp:
            return True
        self._abort(blob, found)
        return False

    def _wait(self, entry: Entry, blob: BlobClient) -> str:
        pause, moved = _POLL_SECONDS, time.monotonic()
        progress: str | None = ""
        while True:
            found = self._call(blob.get_blob_properties)
            copy = found.copy
            if copy.status == "success":
                return plain_etag(found.etag)
            if copy.status != "pending":
                said = str(copy.status_description or copy.status)
                if "412" in said or "ConditionNotMet" in said:
                    raise self._source.changed_error(entry)
                raise CopyRefused(f"the copy {copy.status}: {redaction.start(said, 200)}")
            if copy.progress != progress:
                progress, moved = copy.progress, time.monotonic()
            elif time.monotonic() - moved > STALL_SECONDS:
                self._abort(blob, found)
                raise CopyRefused(f"the copy made no progress for {STALL_SECONDS:.0f} s")
            self._sleep(pause)
            pause = min(pause * 2, _LONGEST_POLL_SECONDS)

    def _abort(self, blob: BlobClient, found: BlobProperties) -> None:
        try:
            self._call(lambda: blob.abort_copy(found))
        except MirrorError as error:
            if status_of(error.__cause__) != 409:  # it has ended meanwhile
                raise

    def _from_url(self, entry: Entry, blob: BlobClient, metadata: dict[str, str], etag: str) -> str:
        if entry.bytes <= ONE_REQUEST_BYTES:
            return self._in_one_request(entry, blob, metadata, etag)
        step = block_size(entry.bytes, COPY_BLOCK_BYTES)
        stamp = entry.stamp.encode().hex().ljust(64, "0")
        ranges = [
            CopyRange(block_id(offset, stamp), offset, min(step, entry.bytes - offset))
            for offset in range(0, entry.bytes, step)
        ]
        return self._in_ranges(entry, blob, metadata, etag, ranges)


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].lower()
