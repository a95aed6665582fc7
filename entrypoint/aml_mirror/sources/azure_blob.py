"""A run in Azure Blob storage: everything below a path of a container.

Listed once, with sizes and ETags; after that every read is a range of one blob, bound to the ETag that was
listed, so that a blob which is written over is noticed and never read in two halves. A checkpoint of many
GB is judged by some kB: reads here and there fetch little, reads one behind the other fetch more and more
(``_Windows``), up to ``LARGEST_READ``; memory is bounded whatever the size of a file.
"""

from __future__ import annotations

import copy
import io
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import quote, unquote

from azure.core import MatchConditions
from azure.storage.blob import BlobClient, BlobPrefix, BlobProperties, ContainerClient

from aml_mirror.azure.blob_client import account_of, in_words, metadata_of, service_client
from aml_mirror.azure.errors import code_of, is_changed, is_missing, translate
from aml_mirror.azure.login import blob_suffix, with_fresh_login
from aml_mirror.azure.login import credential as default_credential
from aml_mirror.errors import DataError, MirrorError, ServiceUnavailable, SourceNotFound, UsageError
from aml_mirror.retry import Retry
from aml_mirror.sources.base import Entry, Listing, TooManyFiles
from aml_mirror.sources.local import MAX_ENTRIES

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")

# Where a file begins and ends stand its header and its directory: a safetensors header or a zip directory
# of a large model is some tens of kB.
EDGE_BYTES = 64 << 10
# Somewhere in the middle: a zip's local header has 30 bytes and a name.
JUMP_BYTES = 4 << 10
# A file read from start to end goes in pieces of this size; two of them are held at a time.
LARGEST_READ = 4 << 20
# All that is remembered of small reads, over all files.
_REMEMBERED_BYTES = 4 << 20
# From so many files on, listing anew (5,000 a request) costs less than asking for each.
_LIST_FROM = 8

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"\$root|\$web|[a-z0-9](?:-?[a-z0-9]){2,62}")
# Accounts with DNS zone endpoints (Learn, "Storage account endpoints").
_DNS_ZONE = re.compile(r"z\d+\.blob\.storage\.azure\.net")
_FORM = "azure://ACCOUNT/CONTAINER/PATH"


class BlobSource:
    """See :class:`aml_mirror.sources.base.Source`.

    Args:
        uri: ``azure://account/container/path`` or ``https://account.blob.core.windows.net/container/path``.
        credential: a token credential; None: that of this program.
        retry_seconds: how long a request may go on failing for reasons that pass.
        notice: told, in words, what the person should know while waiting.

    Raises:
        UsageError: not such a URI; one with a SAS is refused, and not repeated in the message.
    """

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
        self._windows = _Windows()

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
        """Return the source of a folder of this one; both use one client."""
        inside = copy.copy(self)
        inside.path = self._prefix + folder
        inside._prefix = inside.path + "/"
        inside._windows = _Windows()
        return inside

    def be_patient_for(self, seconds: float) -> None:
        """Change how long a request may go on failing, here and in what :meth:`below` returned."""
        self._retry.for_seconds = seconds

    def scan(self) -> Listing:
        listing = Listing()
        for blob in self._list():
            self._add(listing, blob)
        if not listing.files and not listing.refused:
            raise self._nothing()
        return listing

    def _list(self) -> list[BlobProperties]:
        found: list[BlobProperties] = []
        for page in self._pages():
            found += page
            if len(found) > MAX_ENTRIES:
                raise TooManyFiles(
                    f"{self.uri} holds more than {MAX_ENTRIES:,} blobs",
                    "pass the folder of one run with --source",
                )
        return found

    def listings(self, limit: int) -> Iterator[tuple[str, Listing | MirrorError]]:
        # One listing of everything, read once: it comes in the order of the names, so that what lies in one
        # folder comes together. One page and one folder are held at a time.
        name, found, empty = "", Listing(), True
        for page in self._pages():
            for blob in page:
                empty = False
                part, slash, _ = str(blob.name)[len(self._prefix) :].partition("/")
                if not slash or not part:
                    continue
                if part != name:
                    yield from self._listed_whole(name, found, limit)
                    name, found = part, Listing()
                if len(found.files) + len(found.refused) <= limit:
                    self._add(found, blob, part + "/")
        yield from self._listed_whole(name, found, limit)
        if empty:
            raise self._nothing()

    def _listed_whole(
        self, name: str, found: Listing, limit: int
    ) -> Iterator[tuple[str, Listing | MirrorError]]:
        count = len(found.files) + len(found.refused)
        if count > limit:
            yield name, TooManyFiles(f"{self.uri}/{name} holds more than {limit:,} blobs")
        elif count:
            yield name, found

    def glance(self, folder: str, listing: Listing) -> list[str]:
        prefix = self._prefix + (folder + "/" if folder else "")

        def read() -> list[Any]:
            found: Any = self.container.walk_blobs(
                name_starts_with=prefix, include=["metadata"], delimiter="/"
            )
            # A page may be empty and not the last.
            return next((items for page in found.by_page() if (items := list(page))), [])

        folders = []
        for item in self._listed(read):
            if not isinstance(item, BlobPrefix):
                self._add(listing, item)
            elif len(item.name) > len(prefix) + 1:
                folders.append(str(item.name)[len(self._prefix) :].rstrip("/"))
        return folders

    def _pages(self) -> Iterator[list[BlobProperties]]:
        token: str | None = None
        while True:

            def read(token: str | None = token) -> tuple[list[BlobProperties], str | None]:
                found = self.container.list_blobs(name_starts_with=self._prefix, include=["metadata"])
                pages: Any = found.by_page(token)
                return list(next(pages, ())), pages.continuation_token

            page, token = self._listed(read)
            yield page
            if not token:
                return

    def _listed(self, read: Callable[[], T]) -> T:
        try:
            return self._call(read)
        except MirrorError as error:
            if is_missing(error.__cause__):
                raise SourceNotFound(
                    f"{self._where} does not exist", "check the account and the container in --source"
                ) from error
            raise

    def _add(self, listing: Listing, blob: BlobProperties, folder: str = "") -> None:
        path = str(blob.name)[len(self._prefix) + len(folder) :]
        metadata = metadata_of(blob)
        # Accounts with hierarchical namespace list each folder as a blob without bytes; blobfuse and others
        # make such blobs too, or ones whose name ends in a slash.
        if not path or path.endswith("/") or metadata.get("hdi_isfolder", "").lower() == "true":
            return
        if any(part in ("", ".", "..") for part in path.split("/")):
            # What stands on the way to the service rewrites such a path into that of another blob.
            listing.refused[path] = "its name is not a path"
        elif getattr(blob.blob_tier, "value", blob.blob_tier) == "Archive":
            listing.refused[path] = "it lies in the archive tier: rehydrate it first"
        else:
            md5 = blob.content_settings.content_md5
            listing.files[path] = Entry(
                path,
                int(blob.size),
                _etag(blob.etag),
                md5=bytes(md5).hex() if md5 else None,
                modified=blob.last_modified.timestamp() if blob.last_modified else 0.0,
            )

    def _nothing(self) -> SourceNotFound:
        hint = f"pass the folder that the training wrote to: --source {_FORM}"
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
        raw = _BlobFile(entry, self._fetch)
        # The raw file keeps its own windows; the buffer is for line by line and 8-byte reads.
        return io.BufferedReader(raw, 64 << 10)

    def read(self, entry: Entry, offset: int, length: int) -> bytes:
        length = min(length, entry.bytes - offset)
        if length <= 0:
            return b""
        if length > EDGE_BYTES:
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
            self._fetch(entry, start, min(LARGEST_READ, offset + length - start))
            for start in range(offset, offset + length, LARGEST_READ)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _fetch(self, entry: Entry, offset: int, length: int) -> bytes:
        """One ranged request, bound to the ETag; exactly ``length`` bytes."""
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
            cause = error.__cause__
            if is_changed(cause) or is_missing(cause) or code_of(cause) == "InvalidRange":
                raise self.changed_error(entry) from error
            raise

    def is_unchanged(self, entry: Entry) -> bool:
        try:
            found = self._call(self.blob(entry).get_blob_properties)
        except MirrorError as error:
            if is_missing(error.__cause__):
                return False
            raise
        return _etag(found.etag) == entry.stamp

    def changed(self, entries: Iterable[Entry]) -> list[str]:
        entries = list(entries)
        if len(entries) < _LIST_FROM:
            return [entry.path for entry in entries if not self.is_unchanged(entry)]
        now = {str(blob.name)[len(self._prefix) :]: _etag(blob.etag) for blob in self._list()}
        return [entry.path for entry in entries if now.get(entry.path) != entry.stamp]

    def blob(self, entry: Entry) -> BlobClient:
        """Return the client of a listed blob."""
        return self.container.get_blob_client(self._prefix + entry.path)

    def url(self, entry: Entry) -> str:
        """Return the address of a listed blob, encoded, without any credential: what a copy starts from."""
        return f"{self.account_url}/{self._container_name}/{quote(self._prefix + entry.path, safe='~/')}"

    def _call(self, operation: Callable[[], T]) -> T:
        return self._retry(lambda: with_fresh_login(operation))

    def changed_error(self, entry: Entry) -> DataError:
        """Return the error for a blob that is not the listed one any more."""
        return DataError(
            f"{self.uri}/{entry.path} changed while it was read",
            "wait until the training has ended and nothing writes there any more, then run again",
        )


class _Windows:
    """What small reads have fetched of any file, and how much the next one should fetch.

    A read at a file's edge takes ``EDGE_BYTES``. Elsewhere it takes ``JUMP_BYTES``, and twice as much as the
    last one did where it goes on close behind it: the local headers of a zip with a thousand small members
    come in a few requests, and of one with ten large ones in ten small requests.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._last = ("", 0, 0)  # file, where its last window ended, how long that was

    def find(self, entry: Entry, offset: int, length: int) -> bytes | None:
        """Return a range that was fetched before."""
        with self._lock:
            for (path, stamp, start), data in self._kept.items():
                if path == entry.path and stamp == entry.stamp and start <= offset:
                    at = offset - start
                    if at + length <= len(data):
                        self._kept.move_to_end((path, stamp, start))
                        return data[at : at + length]
        return None

    def plan(self, entry: Entry, offset: int, length: int) -> tuple[int, int]:
        """Return start and length of what to fetch for a read that was not found."""
        size = entry.bytes
        if offset < EDGE_BYTES and offset + length <= EDGE_BYTES:
            return 0, min(size, EDGE_BYTES)
        if offset >= size - EDGE_BYTES:
            return max(0, size - EDGE_BYTES), min(size, EDGE_BYTES)
        path, end, last = self._last
        near = path == entry.path and end <= offset < end + EDGE_BYTES
        ahead = min(2 * last, EDGE_BYTES) if near else JUMP_BYTES
        return offset, min(max(length, ahead), size - offset)

    def keep(self, entry: Entry, start: int, data: bytes) -> None:
        """Remember what was fetched, and forget the oldest of the rest."""
        with self._lock:
            key = (entry.path, entry.stamp, start)
            self._bytes += len(data) - len(self._kept.pop(key, b""))
            self._kept[key] = data
            self._last = (entry.path, start + len(data), len(data))
            while self._bytes > _REMEMBERED_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])


class _BlobFile(io.RawIOBase):
    """A blob as a file: one window, which doubles as long as reads go on where it ended."""

    def __init__(self, entry: Entry, fetch: Callable[[Entry, int, int], bytes]) -> None:
        super().__init__()
        self._entry = entry
        self._fetch = fetch
        self._position = 0
        self._start = 0
        self._window = b""
        self._ahead = EDGE_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._entry.bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._entry.bytes - self._position)
        if wanted <= 0:
            return 0
        at = self._position - self._start
        if not 0 <= at < len(self._window):
            goes_on = self._position == self._start + len(self._window)
            self._ahead = min(2 * self._ahead, LARGEST_READ) if goes_on and self._window else EDGE_BYTES
            length = min(max(wanted, self._ahead), LARGEST_READ, self._entry.bytes - self._position)
            self._window = b""  # let go before the next one comes
            self._window = self._fetch(self._entry, self._position, length)
            self._start, at = self._position, 0
        part = memoryview(self._window)[at : at + wanted]
        view[: len(part)] = part
        self._position += len(part)
        return len(part)


def locate(uri: str) -> tuple[str, str, str]:
    """Take a URI apart: the account's address, the container, the path in it (``""``: all of it).

    Only hosts of Azure Blob storage in our own cloud are taken: this identity's token is sent there.

    Raises:
        UsageError: another kind of URI, or one with a credential in it.
    """
    kind, _, rest = uri.partition("://")
    if re.search(r"(?i)[?&](sig|sv|se)=", uri) or (kind == "https" and "@" in rest.partition("/")[0]):
        raise UsageError(
            "the source has a SAS or another credential in it",
            f"pass it without: this identity's own token is used (--source {_FORM})",
        )
    if kind == "azure":
        account, _, rest = rest.partition("/")
        address, zone = f"https://{account}.blob.{blob_suffix()}", True
    else:
        host, _, rest = rest.partition("/")
        account, _, suffix = host.lower().partition(".")
        rest = unquote(rest.partition("?")[0])
        zone = suffix == f"blob.{blob_suffix()}" or bool(_DNS_ZONE.fullmatch(suffix))
        address = f"https://{host.lower()}"
    container, _, path = rest.partition("/")
    path = path.strip("/")
    if not zone or not _ACCOUNT.fullmatch(account):
        raise UsageError(f"{uri} names no storage account of this cloud", f"for example: --source {_FORM}")
    if not _CONTAINER.fullmatch(container):
        raise UsageError(f"{uri} names no container", f"for example: --source {_FORM}")
    if any(part in ("", ".", "..") for part in path.split("/")) and path:
        raise UsageError(
            f"{uri} has an empty part, '.' or '..' in its path", f"for example: --source {_FORM}"
        )
    return address, container, path


def _etag(value: object) -> str:
    # Headers carry it in quotes, listings do not.
    return str(value or "").strip('"')
