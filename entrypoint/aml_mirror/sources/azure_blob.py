"""A run in Azure Blob storage: everything below a path of a container.

The path is listed once, with sizes and ETags. After that, every read is a range of one blob, bound to the
listed ETag. So a blob that is overwritten is noticed, and never read half and half. A few kB are enough to
judge a checkpoint of many GB: scattered reads fetch little, consecutive reads fetch more and more
(``Windows``), up to ``LARGEST_READ``. Memory is bounded, whatever the size of a file.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

from azure.core import MatchConditions
from azure.storage.blob import BlobClient, BlobPrefix, ContainerClient

from aml_mirror.core.errors import (
    DataError,
    MirrorError,
    ServiceUnavailable,
    SourceNotFound,
    Unreadable,
    UnreadableForNow,
)
from aml_mirror.sources import blob_reading
from aml_mirror.sources.base import NO_PATH, Entry, Listing, TooManyFiles
from aml_mirror.sources.blob_listing import (
    ARCHIVED,
    REHYDRATED,
    UNCOMMITTED,
    ListedBlob,
    drop_folders,
    etag_of,
    listed_blob,
)
from aml_mirror.sources.blob_reading import BlobFile, Windows
from aml_mirror.sources.blob_uri import FORM, locate
from aml_mirror.sources.local import MAX_ENTRIES
from aml_mirror.storage.azure_errors import code_of, first_line, is_changed, is_missing, status_of, translate
from aml_mirror.storage.azure_login import credential as default_credential
from aml_mirror.storage.azure_login import with_fresh_login
from aml_mirror.storage.blob_client import account_of, in_words, metadata_of, service_client
from aml_mirror.support.retry import Retry

T = TypeVar("T")

# From this many files on, listing again (5,000 per request) costs less than asking for each.
_LIST_FROM = 8
# A listing with this many pages (5,000 blobs each) is read completely, not just its first pages.
_FEW_PAGES = 4
# Files that are never empty in a complete run (tests/formats/test_registry.py compares them with the
# formats). This many empty ones of a run are asked about.
_LARGE = (
    ".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".zip", ".npz", ".h5", ".hdf5", ".keras", ".msgpack",
    ".ocdbt", ".onnx", ".pkl", ".pickle", ".d3", ".distcp", ".cleanrl_model", ".gguf", ".pt2", ".pte", ".ptl",
    ".tflite", ".pth.tar", ".pt.tar", ".ckpt.tar",
)  # fmt: skip
_ASKED = 20
_NAMES = ("InvalidUri", "InvalidResourceName", "OutOfRangeInput", "InvalidInput")
# The service's answers to a client that does not have the key (Learn, "Blob service error codes").
_KEYS = (
    "BlobUsesCustomerSpecifiedEncryption",
    "BlobCustomerSpecifiedEncryptionMismatch",
    "BlobDoesNotUseCustomerSpecifiedEncryption",
)


class BlobSource:
    """A run in blob storage. See :class:`aml_mirror.sources.base.Source`.

    Args:
        uri: ``azure://account/container/path`` or ``https://account.blob.core.windows.net/container/path``.
        credential: a token credential; None: this program's.
        retry_seconds: how long a request with a temporary failure is retried.
        notice: called with messages for the user while waiting.

    Raises:
        UsageError: the URI has another form. A URI with a SAS is refused, and not repeated in the message.
    """

    run_id = ""
    """See :func:`aml_mirror.sources.base.run_id_of`."""

    def __init__(
        self,
        uri: str,
        credential: Any = None,
        retry_seconds: float = 0.0,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.account_url, self._container_name, self.path = locate(uri)
        self.credential = credential or default_credential()
        self.service = service_client(self.account_url, self.credential)
        self.container: ContainerClient = self.service.get_container_client(self._container_name)
        self._where = in_words(self.container)
        self._prefix = self.path + "/" if self.path else ""
        self._retry = Retry(retry_seconds, lambda error: translate(error, self._where), notice)
        self._windows = Windows()
        # The first pages of a listing, and where it continues. They are kept until somebody reads it.
        self._first: list[tuple[list[ListedBlob], str | None]] = []

    @property
    def uri(self) -> str:
        return f"azure://{account_of(self.account_url)}/{self._container_name}/{self.path}".rstrip("/")

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2] or self._container_name

    @property
    def has_etags(self) -> bool:
        return True

    def below(self, folder: str) -> BlobSource:
        """Return the source of a subfolder. Both share one client."""
        inside = copy.copy(self)
        inside.path = self._prefix + folder
        inside._prefix = inside.path + "/"  # noqa: SLF001 - a copy of itself
        inside._windows = Windows()  # noqa: SLF001
        inside._first = []  # noqa: SLF001
        return inside

    def be_patient_for(self, seconds: float) -> None:
        """Set how long a request may keep failing, here and in the results of :meth:`below`."""
        self._retry.for_seconds = seconds

    def scan(self) -> Listing:
        listing = Listing()
        for blob in self._list():
            self._add(listing, blob)
        if not listing.files and not listing.refused:
            raise self._nothing()
        drop_folders(listing)
        self._find_uncommitted(listing)
        return listing

    def _find_uncommitted(self, listing: Listing) -> None:
        """Tell weights with uncommitted blocks from empty ones: a listing may show both alike."""
        empty = [entry for path, entry in listing.files.items() if not entry.bytes and path.endswith(_LARGE)]
        for entry in empty[:_ASKED]:
            try:
                self._call(self.blob(entry).get_blob_properties)
            except MirrorError as error:
                if is_missing(error.__cause__):
                    listing.files[entry.path] = replace(entry, incomplete=UNCOMMITTED)

    def _list(self) -> list[ListedBlob]:
        found: list[ListedBlob] = []
        for page in self._pages():
            found += page
            if len(found) > MAX_ENTRIES:
                raise TooManyFiles(
                    f"{self.uri} contains more than {MAX_ENTRIES:,} blobs",
                    "pass the folder of one run with --source",
                )
        return found

    def listings(self, limit: int) -> Iterator[tuple[str, Listing | MirrorError]]:
        # One listing of everything, read once. It is sorted by name, so the contents of a folder come
        # together. Only one page and one folder are held at a time.
        name, found, empty, odd = "", Listing(), True, ""
        first, self._first = self._first, []
        for page in self._pages(first):
            for blob in page:
                empty = False
                part, slash, _ = blob.name[len(self._prefix) :].partition("/")
                if not part and slash and not odd and blob.name.endswith(_LARGE):
                    odd = blob.name
                if not slash or not part:
                    continue
                if part != name:
                    yield from self._listed_whole(name, found, limit)
                    name, found = part, Listing()
                if len(found.files) + len(found.refused) <= limit:
                    self._add(found, blob, part + "/")
        yield from self._listed_whole(name, found, limit)
        if odd:
            yield "", DataError(f"{odd!r} cannot be read: {NO_PATH}", "rename the folder")
        if empty:
            raise self._nothing()

    def _listed_whole(
        self, name: str, found: Listing, limit: int
    ) -> Iterator[tuple[str, Listing | MirrorError]]:
        count = len(found.files) + len(found.refused)
        if count > limit:
            yield name, TooManyFiles(f"{self.uri}/{name} contains more than {limit:,} blobs")
        elif count:
            drop_folders(found)
            yield name, found

    def small(self) -> Listing | None:
        # Looking at single folders takes a request for each. These pages are part of the full listing later.
        self._first = []
        token: str | None = None
        for _ in range(_FEW_PAGES):
            page, token = self._page(token)
            self._first.append((page, token))
            if not token:
                break
        if token:
            return None
        listing = Listing()
        for page, _ in self._first:
            for blob in page:
                self._add(listing, blob)
        drop_folders(listing)
        return listing

    def glance(self, folder: str, listing: Listing) -> list[str]:
        prefix = self._prefix + (folder + "/" if folder else "")

        def read() -> list[Any]:
            found: Any = self.container.walk_blobs(
                name_starts_with=prefix, include=["metadata", "uncommittedblobs"], delimiter="/"
            )
            # A page may be empty and not the last.
            return next((items for page in found.by_page() if (items := list(page))), [])

        folders = []
        for item in self._listed(read):
            if not isinstance(item, BlobPrefix):
                self._add(listing, listed_blob(item))
            elif len(item.name) > len(prefix) + 1:
                folders.append(str(item.name)[len(self._prefix) :].rstrip("/"))
        return folders

    def _pages(self, first: Sequence[tuple[list[ListedBlob], str | None]] = ()) -> Iterator[list[ListedBlob]]:
        token = first[-1][1] if first else None
        yield from (page for page, _ in first)
        if first and not token:
            return
        while True:
            page, token = self._page(token)
            yield page
            if not token:
                return

    def _page(self, token: str | None) -> tuple[list[ListedBlob], str | None]:
        def read() -> tuple[list[ListedBlob], str | None]:
            blobs = self.container.list_blobs(
                name_starts_with=self._prefix, include=["metadata", "uncommittedblobs"]
            )
            pages: Any = blobs.by_page(token)
            page = list(map(listed_blob, next(pages, ())))
            return page, pages.continuation_token

        return self._listed(read)

    def _listed(self, read: Callable[[], T]) -> T:
        try:
            return self._call(read)
        except MirrorError as error:
            if is_missing(error.__cause__):
                raise SourceNotFound(
                    f"{self._where} does not exist", "check the account and the container in --source"
                ) from error
            raise

    def _add(self, listing: Listing, blob: ListedBlob, folder: str = "") -> None:
        path = blob.name[len(self._prefix) + len(folder) :]
        # Accounts with hierarchical namespace list each folder as an empty blob. blobfuse and other tools
        # also make such blobs, or blobs whose names end in a slash.
        if not path or path.endswith("/") or blob.is_folder:
            return
        if any(part in ("", ".", "..") for part in path.split("/")):
            # On the way to the service, such a path is rewritten into the path of another blob.
            listing.refused[path] = NO_PATH
        else:
            listing.files[path] = Entry(
                path,
                blob.bytes,
                blob.etag,
                md5=blob.md5,
                modified=blob.modified,
                obstacle=blob.obstacle,
                passes=blob.passes,
                incomplete="" if blob.etag else UNCOMMITTED,
            )

    def _nothing(self) -> SourceNotFound:
        hint = f"pass the folder that the training wrote to: --source {FORM}"
        if self.path:
            try:
                blob = self.container.get_blob_client(self.path)
                found = self._call(lambda: blob.get_blob_properties())
                if metadata_of(found).get("hdi_isfolder", "").lower() != "true":
                    return SourceNotFound(f"{self.uri} is a single blob, not a folder", hint)
            except MirrorError as error:
                if not is_missing(error.__cause__):
                    raise
        return SourceNotFound(f"there is nothing below {self.uri}", hint)

    def open(self, entry: Entry) -> BinaryIO:
        raw = BlobFile(entry, self._fetch)
        # The raw file has its own windows. The buffer is for lines and reads of 8 bytes.
        return io.BufferedReader(raw, 64 << 10)

    def read(self, entry: Entry, offset: int, length: int) -> bytes:
        length = min(length, entry.bytes - offset)
        if length <= 0:
            return b""
        if length > blob_reading.EDGE_BYTES:
            return self._long(entry, offset, length)
        found = self._windows.find(entry, offset, length)
        if found is None:
            start, count = self._windows.plan(entry, offset, length)
            data = self._fetch(entry, start, count)
            self._windows.keep(entry, start, data)
            found = data[offset - start : offset - start + length]
        return found

    def _long(self, entry: Entry, offset: int, length: int) -> bytes:
        parts = [
            self._fetch(entry, start, min(blob_reading.LARGEST_READ, offset + length - start))
            for start in range(offset, offset + length, blob_reading.LARGEST_READ)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _fetch(self, entry: Entry, offset: int, length: int) -> bytes:
        """Send one ranged request, bound to the ETag; return exactly ``length`` bytes."""
        blob = self.blob(entry)

        def read() -> bytes:
            data = bytes(
                blob.download_blob(
                    offset,
                    length,
                    max_concurrency=1,
                    etag=f'"{entry.stamp}"',
                    match_condition=MatchConditions.IfNotModified,
                ).readall()
            )
            if len(data) != length:
                raise ServiceUnavailable(
                    f"{self._where} sent {len(data)} of {length} bytes of {entry.path}",
                    "run the same command again",
                )
            return data

        try:
            return self._call(read)
        except MirrorError as error:
            raise self._unreadable(entry, error.__cause__) or error from error.__cause__

    def is_unchanged(self, entry: Entry) -> bool:
        try:
            found = self._call(self.blob(entry).get_blob_properties)
        except MirrorError as error:
            if is_missing(error.__cause__):
                return False
            raise
        return etag_of(found.etag) == entry.stamp

    def grown(self, entry: Entry) -> Entry | None:
        try:
            found = self._call(self.blob(entry).get_blob_properties)
        except MirrorError as error:
            if is_missing(error.__cause__):
                return None
            raise
        if found.size < entry.bytes:
            return None
        return replace(entry, bytes=int(found.size), stamp=etag_of(found.etag))

    def changed(self, entries: Iterable[Entry]) -> list[str]:
        entries = list(entries)
        if len(entries) < _LIST_FROM:
            return [entry.path for entry in entries if not self.is_unchanged(entry)]
        now = {blob.name[len(self._prefix) :]: blob.etag for blob in self._list()}
        return [entry.path for entry in entries if now.get(entry.path) != entry.stamp]

    def blob(self, entry: Entry) -> BlobClient:
        """Return the client of a listed blob."""
        return self.container.get_blob_client(self._prefix + entry.path)

    def url(self, entry: Entry) -> str:
        """Return the encoded address of a listed blob, without any credential. A copy starts from it."""
        return f"{self.account_url}/{self._container_name}/{quote(self._prefix + entry.path, safe='~/')}"

    def _call(self, operation: Callable[[], T]) -> T:
        return self._retry(lambda: with_fresh_login(operation))

    def _unreadable(self, entry: Entry, cause: BaseException | None) -> Unreadable | None:
        """Say why the service does not return a blob that it has listed; None: the blob is not the reason."""
        code = code_of(cause)
        where = f"{self.uri}/{entry.path}"
        if code == "BlobArchived":
            return Unreadable(f"{where} cannot be read: {ARCHIVED}", "rehydrate it, then run again")
        if code == "BlobBeingRehydrated":
            return UnreadableForNow(f"{where} cannot be read: {REHYDRATED}", "wait, then run again")
        if code in _KEYS:
            return Unreadable(
                f"{where} cannot be read: it is encrypted with a key that its writer provided ({code})",
                "write it again without a customer-provided key, then run again",
            )
        if status_of(cause) == 400 and code in _NAMES:
            return Unreadable(
                f"{where} cannot be read: the service does not accept its name ({code})", "rename it"
            )
        if is_missing(cause) and code != "ContainerNotFound":
            return Unreadable(
                f"{where} was deleted after it was listed",
                "wait until nothing writes there, then run the command again",
            )
        if is_changed(cause) or code == "InvalidRange":
            return self.changed_error(entry)
        if status_of(cause) == 409:
            return Unreadable(
                f"{where} cannot be read: {first_line(cause)} ({code})" if cause else where,
                "look at the blob's properties, then run again",
            )
        return None

    def changed_error(self, entry: Entry) -> Unreadable:
        """Return the error for a blob that is no longer the listed one."""
        return Unreadable(
            f"{self.uri}/{entry.path} changed while it was read",
            "wait until the training has ended and nothing writes there, then run the command again",
        )
