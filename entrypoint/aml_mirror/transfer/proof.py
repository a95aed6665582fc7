"""Decides whether a blob is the right file: it has an ETag of our own commit, or its bytes were read back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

from azure.storage.blob import BlobProperties

from aml_mirror.core.errors import MirrorError
from aml_mirror.core.manifest import ManifestEntry, StoredFile
from aml_mirror.storage.azure_errors import is_conflict, is_missing
from aml_mirror.support.progress import amount
from aml_mirror.transfer.block_ids import conditions, plain_etag
from aml_mirror.transfer.requests import Requests
from aml_mirror.transfer.senders import Senders

# A file that nobody hashed, but whose store knows its MD5, is read back up to this size. A larger one is
# copied again, which costs the service's time and not ours.
READ_BACK_BYTES = 64 << 20

Prove = Callable[[str, StoredFile], None]


def has_size(item: ManifestEntry, blob: BlobProperties | None) -> bool:
    """Tell whether a blob has the size of an item. A copy in progress already has its final size."""
    if blob is None or blob.size != item.bytes:
        return False
    return getattr(blob.copy, "status", None) in (None, "success")


def fits(item: ManifestEntry, stored: StoredFile | None) -> bool:
    """Tell whether what an earlier attempt stored is this item."""
    return stored is not None and stored.bytes == item.bytes and item.sha256 in (None, stored.sha256)


def is_proven(item: ManifestEntry, blob: BlobProperties | None, proven: Mapping[str, StoredFile]) -> bool:
    """Tell whether a blob comes from our own commit, or was read back."""
    if blob is None or not has_size(item, blob):
        return False
    stored = proven.get(item.path)
    return stored is not None and bool(stored.etag) and stored.etag == plain_etag(blob.etag)


def read_back(
    requests: Requests,
    at_once: int,
    items: Iterable[ManifestEntry],
    prefix: str,
    there: Mapping[str, BlobProperties],
    proven: Mapping[str, StoredFile],
    prove: Prove,
) -> None:
    """Hash the blobs that have the right size and an ETag that is not ours.

    Args:
        at_once: how many are read at the same time.
        items: the expected files.
        prefix: the folder, with a slash at the end.
        there: the existing blobs, by path.
        proven: what is known to be right.
        prove: called for each blob that is right.
    """
    unknown = [
        item
        for item in items
        if (item.sha256 or (item.md5 and item.bytes <= READ_BACK_BYTES))
        and has_size(item, there.get(item.path))
        and not is_proven(item, there.get(item.path), proven)
    ]
    if not unknown:
        return
    size = amount(sum(item.bytes for item in unknown))
    requests.notice(f"reading back {len(unknown)} file(s), {size}, that are in the storage already")
    with Senders(at_once) as senders:
        for item in unknown:
            etag = plain_etag(there[item.path].etag)
            senders.submit(lambda item=item, etag=etag: _hash(requests, senders, prefix, item, etag, prove))  # type: ignore[misc]


def _hash(
    requests: Requests, senders: Senders, prefix: str, item: ManifestEntry, etag: str, prove: Prove
) -> None:
    def read() -> tuple[str, str]:
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        blob = requests.blob(prefix + item.path)
        for part in blob.download_blob(max_concurrency=1, **conditions(etag)).chunks():
            sha256.update(part)
            md5.update(part)
        return sha256.hexdigest(), md5.hexdigest()

    try:
        sha256, md5 = requests.by(senders)(read)
    except MirrorError as error:
        if is_missing(error.__cause__) or is_conflict(error.__cause__):
            return  # It changed since it was listed. The next listing decides.
        raise
    if sha256 == item.sha256 or (not item.sha256 and md5 == item.md5):
        prove(item.path, StoredFile(item.bytes, etag, sha256))
