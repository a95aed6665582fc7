"""The files of a checkpoint to a folder of a container, whole and verified.

1. *Look*: the folder is listed. A blob with the ETag of a commit of our own is trusted. Any other ETag means
   *unknown*: tier changes, recovery and migration are legitimate, and so is another mirror. Metadata prove
   nothing, since any writer can keep them. An unknown blob is read back and hashed. Where its digest
   differs, or nobody ever hashed the file, it is sent or copied again.
2. *Copy* what the storage service can copy by itself (:mod:`aml_mirror.transfer.server_copy`).
3. *Send* the rest in blocks (:mod:`aml_mirror.transfer.block_upload`).
4. *Look again*: every blob must now be one that is trusted. Whatever else is in the folder, of a killed
   attempt with other files, is deleted. What is missing is sent again, a few times.

Each commit is conditional: on the ETag of the blob that was seen, or on there being none. Another writer is
never overwritten unseen.

The folder must belong to this one checkpoint, bytes and all: the caller makes its path from the identity.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import TypeVar

from azure.storage.blob import BlobClient, BlobProperties, ContainerClient

from aml_mirror.core.errors import DataError, MirrorError, ServiceUnavailable
from aml_mirror.core.manifest import ManifestEntry, StoredFile, TransferResult
from aml_mirror.sources.base import AzureBlobs
from aml_mirror.sources.tree import Tree
from aml_mirror.storage.azure_errors import is_conflict, is_missing, translate
from aml_mirror.storage.azure_login import with_fresh_login
from aml_mirror.storage.blob_client import in_words, metadata_of
from aml_mirror.support.progress import amount
from aml_mirror.support.retry import Retry
from aml_mirror.transfer.block_upload import SHA256, SOURCE_ETAG, BlockUpload, conditions, plain_etag
from aml_mirror.transfer.checksums import Choice
from aml_mirror.transfer.senders import Call, Senders
from aml_mirror.transfer.server_copy import ServerCopy
from aml_mirror.transfer.transfer_options import BLOCK_BYTES, CONCURRENCY, HELD_BLOCK_BYTES, HELD_BLOCKS

T = TypeVar("T")

# A blob that is not there whole this often in a row is a fault that trying again does not mend.
TRIES = 3
# A file that nobody hashed and whose MD5 its store knows is read back up to this size; a larger one is copied
# again, which costs the service's time and not ours.
READ_BACK_BYTES = 64 << 20
# Learn, "Naming and referencing containers, blobs, and metadata".
_LONGEST_NAME = 1024  # characters


class Transfer:
    """Brings files to one container.

    Args:
        container: where to; see :func:`aml_mirror.storage.blob_client.container_client`.
        concurrency: senders; see :mod:`aml_mirror.transfer.transfer_options`.
        block_bytes: size of a block; likewise.
        retry_seconds: how long a request may go on failing for reasons that pass.
        notice: told, in words, what the person should know while waiting.
    """

    def __init__(
        self,
        container: ContainerClient,
        concurrency: int = CONCURRENCY,
        block_bytes: int = BLOCK_BYTES,
        retry_seconds: float = 900.0,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._container = container
        self._where = in_words(container)
        self._concurrency = concurrency
        self._block_bytes = block_bytes
        self._choice = Choice()
        self._retry_seconds = retry_seconds
        self._notice = _Once(notice)
        self._require_allowed: Callable[[], None] = lambda: None

    def put(
        self,
        tree: Tree,
        items: Iterable[ManifestEntry],
        prefix: str,
        progress: Callable[[int], None] = lambda count: None,
        metadata: dict[str, str] | None = None,
        known: Mapping[str, StoredFile] | None = None,
        committed: Callable[[str, StoredFile], None] = lambda path, stored: None,
        require_allowed: Callable[[], None] = lambda: None,
    ) -> TransferResult:
        """Make the folder ``prefix`` hold these files, each at its ``path``, and nothing else.

        Args:
            tree: the run; ``Item.source`` is a path in it.
            items: the files.
            prefix: the folder in the container; not the container itself.
            progress: told the number of bytes that have come to where they belong, by one thread at a time.
            metadata: written to every blob beside its digest: short ASCII text.
            known: what an earlier attempt committed, by path.
            committed: told of each file that is proven to be there, as soon as it is; from any thread.
            require_allowed: called before each request that writes; raises where writing has to end.

        Raises:
            DataError: a file changed since it was judged, or cannot have such a name in the storage.
            NotAllowed, ConfigurationError: the storage refuses.
            ServiceUnavailable: a file does not arrive whole.
        """
        items = list(items)
        prefix = prefix.strip("/") + "/"
        _check(items, prefix)
        done = _Progress(items, progress)
        self._require_allowed = require_allowed
        sent = copied = 0
        warnings: list[str] = []
        known = known or {}
        proven = {item.path: known[item.path] for item in items if _fits(item, known.get(item.path))}

        def prove(path: str, stored: StoredFile) -> None:
            proven[path] = stored
            committed(path, stored)

        there = self._listing(prefix)
        lost: set[str] = set()
        for tries in range(TRIES + 1):
            self._read_back(items, prefix, there, proven, prove)
            # Copies of our own whose answer was lost, and that were found whole.
            copied += sum(proven[path].bytes for path in lost & proven.keys())
            lost -= proven.keys()
            missing = [item for item in items if not _is_proven(item, there.get(item.path), proven)]
            for path in {item.path for item in items} - {item.path for item in missing}:
                done(path, done.sizes[path])
            if not missing:
                self._remove_strangers(prefix, items, there)
                return TransferResult(sent, copied, tuple(warnings), proven)
            if tries < TRIES:
                moved = self._move(tree, missing, prefix, done, metadata or {}, there, prove, lost)
                sent, copied = sent + moved.sent, copied + moved.copied
                warnings += [text for text in moved.warnings if text not in warnings]
                there = self._listing(prefix)
        found = there.get(missing[0].path)
        raise ServiceUnavailable(
            f"{missing[0].path} is not whole in {self._where}, {TRIES} times: it has "
            f"{found.size if found else 0} of {missing[0].bytes} bytes, or another digest",
            "is another program writing there? run the same command again: what is there is not sent again",
        )

    def _read_back(
        self,
        items: list[ManifestEntry],
        prefix: str,
        there: dict[str, BlobProperties],
        proven: Mapping[str, StoredFile],
        prove: Callable[[str, StoredFile], None],
    ) -> None:
        """Hash the blobs that have the right size and an ETag that is none of our own."""
        unknown = [
            item
            for item in items
            if (item.sha256 or (item.md5 and item.bytes <= READ_BACK_BYTES))
            and _has_size(item, there.get(item.path))
            and not _is_proven(item, there.get(item.path), proven)
        ]
        if not unknown:
            return
        size = amount(sum(item.bytes for item in unknown))
        self._notice(f"reading back {len(unknown)} file(s), {size}, that are in the storage already")
        with Senders(min(self._concurrency, HELD_BLOCKS)) as senders:
            for item in unknown:
                etag = plain_etag(there[item.path].etag)
                senders.submit(lambda item=item, etag=etag: self._hash(senders, prefix, item, etag, prove))  # type: ignore[misc]

    def _hash(
        self,
        senders: Senders,
        prefix: str,
        item: ManifestEntry,
        etag: str,
        prove: Callable[[str, StoredFile], None],
    ) -> None:
        def read() -> tuple[str, str]:
            sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
            blob = self._blob(prefix, item)
            for part in blob.download_blob(max_concurrency=1, **conditions(etag)).chunks():
                sha256.update(part)
                md5.update(part)
            return sha256.hexdigest(), md5.hexdigest()

        try:
            sha256, md5 = self._call(senders)(read)
        except MirrorError as error:
            if is_missing(error.__cause__) or is_conflict(error.__cause__):
                return  # changed since it was listed: the next look tells
            raise
        if sha256 == item.sha256 or (not item.sha256 and md5 == item.md5):
            prove(item.path, StoredFile(item.bytes, etag, sha256))

    def _move(
        self,
        tree: Tree,
        items: list[ManifestEntry],
        prefix: str,
        done: _Progress,
        metadata: dict[str, str],
        there: dict[str, BlobProperties],
        prove: Callable[[str, StoredFile], None],
        lost: set[str],
    ) -> TransferResult:
        copied, warnings = 0, list[str]()
        etags = {path: plain_etag(blob.etag) for path, blob in there.items()}
        if isinstance(tree.source, AzureBlobs):
            copied, items, warnings = self._copy(
                tree, tree.source, items, prefix, done, metadata, etags, prove, lost
            )
            if items:
                # A copy that failed may have left a blob.
                etags = {path: plain_etag(blob.etag) for path, blob in self._listing(prefix).items()}
        concurrency, block_bytes = self._concurrency, self._block_bytes
        if isinstance(tree.source, AzureBlobs):
            concurrency, block_bytes = min(concurrency, HELD_BLOCKS), min(block_bytes, HELD_BLOCK_BYTES)
        with Senders(concurrency) as senders:
            upload = BlockUpload(self._call(senders, True), senders, block_bytes, self._choice, done, prove)
            for item in items:
                blob, etag = self._blob(prefix, item), etags.get(item.path, "")
                upload.send(tree, item, blob, _metadata(item, metadata), etag)
        return TransferResult(upload.sent, copied, tuple(warnings))

    def _copy(
        self,
        tree: Tree,
        source: AzureBlobs,
        items: list[ManifestEntry],
        prefix: str,
        done: _Progress,
        metadata: dict[str, str],
        etags: dict[str, str],
        prove: Callable[[str, StoredFile], None],
        lost: set[str],
    ) -> tuple[int, list[ManifestEntry], list[str]]:
        """Return the bytes copied, the items that no way copied, and what to tell of those.

        Paths whose blob changed while it was copied to are added to ``lost``.
        """
        with Senders(self._concurrency) as senders:
            copying = ServerCopy(source, self._container.url, self._call(senders, True), senders.sleep)

            def copy(item: ManifestEntry) -> str | None:
                entry = tree.entry(item.source)
                blob, etag = self._blob(prefix, item), etags.get(item.path, "")
                made = copying.copy(entry, blob, _metadata(item, metadata), etag)
                if made:
                    prove(item.path, StoredFile(item.bytes, made, item.sha256))
                    done(item.path, item.bytes)
                return made

            answers: list[tuple[ManifestEntry, Future[str | None]]] = []
            for item in items:
                answers.append((item, senders.submit(lambda item=item: copy(item))))  # type: ignore[misc]
        left = [item for item, answer in answers if answer.result() is None]
        lost.difference_update(item.path for item, answer in answers if answer.result())
        lost.update(item.path for item, answer in answers if answer.result() == "")
        warnings = []
        if left:
            warnings.append(
                f"{len(left)} file(s), {amount(sum(item.bytes for item in left))}, were sent through this "
                f"program: {'; '.join(copying.refusals)}"
            )
        return sum(item.bytes for item, answer in answers if answer.result()), left, warnings

    def _listing(self, prefix: str) -> dict[str, BlobProperties]:
        """The blobs of a folder, by path in it."""

        def read() -> dict[str, BlobProperties]:
            found = self._container.list_blobs(name_starts_with=prefix, include=["metadata", "copy"])
            return {str(blob.name)[len(prefix) :]: blob for blob in found}

        with Senders(1) as senders:
            return self._call(senders)(read)

    def _remove_strangers(
        self, prefix: str, items: list[ManifestEntry], there: dict[str, BlobProperties]
    ) -> None:
        """Delete what a killed try left besides: the version is this folder, with all that is in it."""
        ours = {item.path for item in items}
        strangers = [path for path, blob in there.items() if path not in ours and not _is_folder(path, blob)]
        with Senders(self._concurrency) as senders:
            for path in strangers:
                senders.submit(lambda path=path: self._delete(senders, prefix + path))  # type: ignore[misc]

    def _delete(self, senders: Senders, name: str) -> None:
        try:
            self._call(senders, True)(lambda: self._container.delete_blob(name, delete_snapshots="include"))
        except MirrorError as error:
            if not is_missing(error.__cause__):
                raise

    def _blob(self, prefix: str, item: ManifestEntry) -> BlobClient:
        return self._container.get_blob_client(prefix + item.path)

    def _call(self, senders: Senders, writes: bool = False) -> Call:
        """What runs the requests: our patience, a fresh login after a 401, no pause once another failed."""
        allowed = self._require_allowed if writes else lambda: None
        retry = Retry(
            self._retry_seconds, lambda error: translate(error, self._where), self._notice, senders.sleep
        )

        def call(operation: Callable[[], T], /) -> T:
            def attempt() -> T:
                allowed()
                return with_fresh_login(operation)

            return retry(attempt)

        return call


class _Progress:
    """Tells each byte of each file once, from one thread at a time, however often it is sent."""

    def __init__(self, items: list[ManifestEntry], progress: Callable[[int], None]) -> None:
        self.sizes = {item.path: item.bytes for item in items}
        self._left = dict(self.sizes)
        self._progress = progress
        self._lock = threading.Lock()

    def __call__(self, path: str, count: int) -> None:
        with self._lock:
            count = min(count, self._left[path])
            self._left[path] -= count
            if count:
                self._progress(count)


class _Once:
    """Says each sentence once: with sixteen senders a service that is down would be told sixteen times."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, text: str) -> None:
        with self._lock:
            begin = text.partition(";")[0]
            if begin not in self._said:
                self._said.add(begin)
                self._notice(text)


def _metadata(item: ManifestEntry, extra: dict[str, str]) -> dict[str, str]:
    found = dict(extra)
    if item.sha256:
        found[SHA256] = item.sha256
    if item.etag:
        found[SOURCE_ETAG] = item.etag
    return found


def _has_size(item: ManifestEntry, blob: BlobProperties | None) -> bool:
    """Whether a blob has as many bytes as an item; a copy under way has its size already."""
    if blob is None or blob.size != item.bytes:
        return False
    return getattr(blob.copy, "status", None) in (None, "success")


def _fits(item: ManifestEntry, stored: StoredFile | None) -> bool:
    """Whether what an earlier attempt stored is this item."""
    return stored is not None and stored.bytes == item.bytes and item.sha256 in (None, stored.sha256)


def _is_proven(item: ManifestEntry, blob: BlobProperties | None, proven: Mapping[str, StoredFile]) -> bool:
    """Whether a blob is the very one that our own commit made, or that was read back."""
    if blob is None or not _has_size(item, blob):
        return False
    stored = proven.get(item.path)
    return stored is not None and bool(stored.etag) and stored.etag == plain_etag(blob.etag)


def _is_folder(path: str, blob: BlobProperties) -> bool:
    return path.endswith("/") or metadata_of(blob).get("hdi_isfolder", "").lower() == "true"


def _check(items: list[ManifestEntry], prefix: str) -> None:
    if len(prefix) < 2:
        raise ValueError("a checkpoint needs a folder of its own: the rest of a folder is deleted")
    for item in items:
        if len(prefix) + len(item.path) > _LONGEST_NAME:
            raise DataError(
                f"{item.path} would have a name of over {_LONGEST_NAME} characters in the storage",
                "leave it out with --exclude",
            )
