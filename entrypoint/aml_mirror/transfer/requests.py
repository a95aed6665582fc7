"""Sends requests to one container: with retries, and a new login after a 401."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from azure.storage.blob import BlobClient, BlobProperties, ContainerClient

from aml_mirror.core.errors import MirrorError
from aml_mirror.core.manifest import ManifestEntry
from aml_mirror.storage.azure_errors import is_missing, translate
from aml_mirror.storage.azure_login import with_fresh_login
from aml_mirror.storage.blob_client import in_words, metadata_of
from aml_mirror.support.retry import Retry
from aml_mirror.transfer.senders import Call, Senders

T = TypeVar("T")


class Requests:
    """Runs requests to a container.

    Args:
        container: see :func:`aml_mirror.storage.blob_client.container_client`.
        retry_seconds: how long a request with a temporary failure is retried.
        notice: called with messages for the user while waiting.
    """

    def __init__(
        self, container: ContainerClient, retry_seconds: float, notice: Callable[[str], None]
    ) -> None:
        self.container = container
        self.where = in_words(container)
        self.notice = _Once(notice)
        self.require_allowed: Callable[[], None] = lambda: None
        """Called before each request that writes; raises if writing must stop."""
        self._retry_seconds = retry_seconds

    def by(self, senders: Senders, writes: bool = False) -> Call:
        """Return the function that runs the requests of some senders."""
        allowed = self.require_allowed if writes else lambda: None
        retry = Retry(
            self._retry_seconds, lambda error: translate(error, self.where), self.notice, senders.sleep
        )

        def call(operation: Callable[[], T], /) -> T:
            def attempt() -> T:
                allowed()
                return with_fresh_login(operation)

            return retry(attempt)

        return call

    def blob(self, name: str) -> BlobClient:
        """Return the client of a blob."""
        return self.container.get_blob_client(name)

    def listing(self, prefix: str, *include: str) -> dict[str, BlobProperties]:
        """Return the blobs whose names begin with a prefix, by the rest of their names."""

        def read() -> dict[str, BlobProperties]:
            found = self.container.list_blobs(name_starts_with=prefix, include=["metadata", "copy", *include])
            return {str(blob.name)[len(prefix) :]: blob for blob in found}

        with Senders(1) as senders:
            return self.by(senders)(read)

    def delete(self, senders: Senders, name: str) -> None:
        """Delete a blob. A blob that no longer exists counts as deleted."""
        try:
            self.by(senders, True)(lambda: self.container.delete_blob(name, delete_snapshots="include"))
        except MirrorError as error:
            if not is_missing(error.__cause__):
                raise


def is_folder(path: str, blob: BlobProperties) -> bool:
    """Tell whether a blob represents a folder. Hierarchical namespaces and mounts create such blobs."""
    return path.endswith("/") or metadata_of(blob).get("hdi_isfolder", "").lower() == "true"


class Progress:
    """Reports each byte of each file once, from one thread at a time, however often it is sent."""

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
    """Reports each message once, although sixteen senders may notice the same problem."""

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
