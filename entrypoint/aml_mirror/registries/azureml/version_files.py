"""The files of one version in its datastore: its bytes, its own files, and the list of what was stored.

:mod:`.version_folder` says where they are; :mod:`.stored_files` describes the list.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, cast

from azure.core.exceptions import AzureError, HttpResponseError

from aml_mirror.core.errors import ServiceUnavailable
from aml_mirror.core.manifest import ManifestEntry, StoredFile
from aml_mirror.registries.azureml import block_list, stored_files
from aml_mirror.registries.azureml.stored_files import Copies, LogFile, StoredList
from aml_mirror.registries.azureml.version_folder import VersionFolder
from aml_mirror.registries.file_digests import hashed
from aml_mirror.storage import azure_errors as azure_errors
from aml_mirror.transfer.senders import Call

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

_log = logging.getLogger(__name__)

# A killed attempt may have to read back what was sent since the list was last written.
SAVE_SECONDS = 30.0
_CHUNK_BYTES = 4 << 20


class VersionFiles:
    """Reads and writes the files of one version.

    Args:
        container: the datastore's container.
        folder: the folder in the container.
        retry: runs each request.
    """

    def __init__(self, container: ContainerClient, folder: VersionFolder, retry: Call) -> None:
        self.container = container
        self.folder = folder
        self.list = StoredList()
        self.digest = ""
        """The digest of the list as it was last written."""
        self.is_lost = False
        """Whether the list that the tags name is missing or was changed."""
        self.is_taken_up = False
        """Whether an earlier attempt may have stored some of the files."""
        self._retry = retry
        self._lock = threading.Lock()
        self._saved = time.monotonic()

    def load(self, tags: Mapping[str, str]) -> None:
        """Read the list that the tags of a run or a version name. Without one, nothing is known."""
        digest = stored_files.digest_in(tags)
        if not digest or digest == self.digest:
            return
        name = stored_files.name_of(self.folder, digest)
        found = stored_files.parse(
            read_blob(self.container, name, stored_files.MAX_BYTES, self._retry), digest
        )
        self.is_lost = found is None
        if found is None:
            found = stored_files.parse(self.copies.stored.encode(), digest)
        self.list = found or StoredList()
        self.digest = digest if found else ""

    @cached_property
    def copies(self) -> Copies:
        """The second copies, as they are stored."""
        name, limit = stored_files.copies_of(self.folder), stored_files.MAX_COPIES_BYTES
        return stored_files.parse_copies(read_blob(self.container, name, limit, self._retry))

    def note(self, path: str, stored: StoredFile) -> bool:
        """Record a commit; return whether it is time to write the list."""
        with self._lock:
            self.list.files[path] = stored
            if time.monotonic() - self._saved < SAVE_SECONDS:
                return False
            self._saved = time.monotonic()
            return True

    def save(self, name_it: Callable[[str], None], texts: Mapping[str, str] | None = None) -> None:
        """Write the list, if it changed.

        Args:
            name_it: called with the digest after the list is stored; writes it where only this program can.
            texts: the own files, whose second copies are written with the list.
        """
        with self._lock:
            text = self.list.as_json()
            before, digest = self.digest, hashlib.sha256(text.encode()).hexdigest()
            if digest != before or self.is_lost:
                blob = self._list(digest)
                self._retry(lambda: blob.upload_blob(text.encode(), overwrite=True, validate_content=True))
                self.is_lost = False
            if texts is not None:
                copies = Copies(text, dict(texts)).as_json().encode()
                second = self.container.get_blob_client(stored_files.copies_of(self.folder))
                self._retry(lambda: second.upload_blob(copies, overwrite=True, validate_content=True))
            if digest == before:
                return
            name_it(digest)
            self.digest = digest
        if before:
            self._forget(before)

    @property
    def list_digest(self) -> str:
        """The current digest of the list."""
        return hashlib.sha256(self.list.as_json().encode()).hexdigest()

    def _forget(self, digest: str) -> None:
        try:
            self._list(digest).delete_blob()
        except AzureError as error:
            _log.debug("a list that is no longer needed could not be deleted: %s", error)

    def put(self, name: str, data: bytes) -> None:
        """Store a small own file, replacing one of an earlier attempt."""
        blob = self._blob(name)
        self._retry(lambda: blob.upload_blob(data, overwrite=True, validate_content=True))

    def put_log(self, name: str, source: str, size: int, open_file: Callable[[], BinaryIO]) -> int:
        """Store a log as an own file, and record it in the list; return the number of bytes sent.

        It is read once, unless an earlier attempt may already have stored it.

        Args:
            name: the name of the own file.
            source: its path in the run.
            size: how many of its bytes to store.
            open_file: opens these bytes.

        Raises:
            ServiceUnavailable: it does not arrive completely.
        """
        there = self.digest_of(name, size) if self.is_taken_up else None
        if there is not None:
            with open_file() as stream:
                digest = hashed(iter(lambda: stream.read(_CHUNK_BYTES), b""))
            if digest.sha256 == there:
                self.list.logs[name] = LogFile(size, there, source)
                return 0
        self.list.logs[name] = LogFile(size, self._put_file(name, size, open_file), source)
        return size

    def digest_of(self, name: str, size: int) -> str | None:
        """Return the SHA-256 of an own file; None if there is none, or it has another size."""
        blob = self._blob(name)

        def read() -> str | None:
            try:
                if blob.get_blob_properties().size != size:
                    return None
                return hashed(blob.download_blob(max_concurrency=1).chunks()).sha256
            except HttpResponseError as error:
                if azure_errors.is_missing(error):
                    return None
                raise

        return self._retry(read)

    def size_of(self, name: str) -> int | None:
        """Return the size of an own file in bytes; None if there is none."""
        blob = self._blob(name)

        def read() -> int | None:
            try:
                return int(blob.get_blob_properties().size)
            except HttpResponseError as error:
                if azure_errors.is_missing(error):
                    return None
                raise

        return self._retry(read)

    def _put_file(self, name: str, size: int, open_file: Callable[[], BinaryIO]) -> str:
        """Store an own file of any size; return the SHA-256 of the bytes sent.

        Raises:
            ServiceUnavailable: it does not arrive completely.
        """
        blob = self._blob(name)

        def send() -> str:
            with open_file() as stream:
                hashing = _HashedStream(stream)
                blob.upload_blob(cast("BinaryIO", hashing), length=size, overwrite=True, max_concurrency=1)
            arrived = blob.get_blob_properties().size
            if arrived != size:
                raise ServiceUnavailable(
                    f"{name} arrived with {arrived} of {size} bytes in the datastore",
                    "run the same command again: files that arrived are not sent again",
                )
            return hashing.digest.hexdigest()

        return self._retry(send)

    def read(self, name: str, limit: int) -> bytes | None:
        """Return an own file; None if there is none, or it is longer than ``limit``."""
        return read_blob(self.container, f"{self.folder.own}/{name}", limit, self._retry)

    def put_beside(self, name: str, data: bytes) -> None:
        """Store a bookkeeping file of this program beside the folder of the own files."""
        blob = self.container.get_blob_client(f"{self.folder.own}.{name}")
        self._retry(lambda: blob.upload_blob(data, overwrite=True, validate_content=True))

    def save_blocks(self, entries: Iterable[ManifestEntry]) -> str:
        """Write the list of the blocks and return its digest; empty if there is nothing to list."""
        data = block_list.as_json(entries).encode()
        if not data:
            return ""
        sha256 = hashlib.sha256(data).hexdigest()
        blob = self.container.get_blob_client(block_list.blob_name(self.folder, sha256))
        self._retry(lambda: blob.upload_blob(data, overwrite=True, validate_content=True))
        return sha256

    def read_beside(self, name: str, limit: int) -> bytes | None:
        """Return such a file; None if there is none, or it is longer than ``limit``."""
        return read_blob(self.container, f"{self.folder.own}.{name}", limit, self._retry)

    def _list(self, digest: str) -> BlobClient:
        return self.container.get_blob_client(stored_files.name_of(self.folder, digest))

    def _blob(self, name: str) -> BlobClient:
        return self.container.get_blob_client(f"{self.folder.own}/{name}")


class _HashedStream:
    """A stream that is hashed while it is read. It cannot be rewound: each attempt opens the file again.

    The client reads a body without ``seek`` in order and once, and holds a block for its own retries
    (azure-storage-blob 12.27.1, ``upload_block_blob``).
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self._stream = stream

    def read(self, count: int = -1) -> bytes:
        """Read this many bytes, or all that are left."""
        data = self._stream.read(count)
        self.digest.update(data)
        return data


def read_blob(container: ContainerClient, name: str, limit: int, retry: Call) -> bytes | None:
    """Return the bytes of a blob; None if there is none, or it is longer than ``limit``."""
    blob = container.get_blob_client(name)

    def read() -> bytes | None:
        try:
            if blob.get_blob_properties().size > limit:
                return None
            return bytes(blob.download_blob(max_concurrency=1).readall())
        except HttpResponseError as error:
            if azure_errors.is_missing(error):
                return None
            raise

    return retry(read)
