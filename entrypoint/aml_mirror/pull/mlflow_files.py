"""Reads MLflow's artifact stores: the server itself, a path on this host, Azure Blob storage, or any other.

A path or a ``file:`` URI names the *server's* disk. It is read only if this program runs on that host.
"""

from __future__ import annotations

import importlib.util
import os
import posixpath
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from aml_mirror.core.errors import ConfigurationError, ServiceUnavailable
from aml_mirror.core.settings import Settings
from aml_mirror.pull.files import Files, Listed, Part, joined
from aml_mirror.support.retry import Retry

if TYPE_CHECKING:
    from aml_mirror.pull.mlflow_catalog import MlflowApi

T = TypeVar("T")

_CHUNK_BYTES = 256 << 10
# Of MLflow's REST API, since 1.24.
_PROXY = "/api/2.0/mlflow-artifacts/artifacts"
_WASB = ("wasb", "wasbs")


def open_files(uri: str, api: MlflowApi, settings: Settings) -> Files:
    """Return the files below an artifact URI.

    Raises:
        ConfigurationError: they cannot be read from here.
    """
    scheme = urlsplit(uri).scheme.partition("+")[0].lower()
    if scheme in ("mlflow-artifacts", "http", "https"):
        return HttpFiles(uri, api)
    if scheme in ("", "file"):
        _require_this_host(uri, api, settings)
        return LocalFiles(unquote(urlsplit(uri).path) if scheme else uri, api.retry)
    if scheme in _WASB:
        from aml_mirror.pull.azure_files import AzureFiles
        from aml_mirror.pull.blob_login import blob_login

        parts = urlsplit(uri)
        account, sas = blob_login(f"https://{parts.hostname}")
        folder = unquote(parts.path)
        return AzureFiles(account, parts.username or "", folder, api.retry, settings.concurrency, sas)
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigurationError(
            f"{api.shown} stores the files in {scheme}://, which only MLflow's own client can read, but it "
            "is not installed",
            "install aml-mirror, or start the server with --serve-artifacts",
        )
    from aml_mirror.pull.mlflow_repository import RepositoryFiles

    return RepositoryFiles(uri, api)


def _require_this_host(uri: str, api: MlflowApi, settings: Settings) -> None:
    if urlsplit(api.uri).scheme in ("http", "https") and not settings.artifacts_on_this_host:
        raise ConfigurationError(
            f"{api.shown} keeps its artifacts in {uri}, a path on the server's own disk, which this program "
            "cannot reach",
            "start the server with --serve-artifacts; if this program runs on the server's host, pass "
            "--artifacts-on-this-host",
        )


class HttpFiles:
    """Files that the MLflow server serves (``--serve-artifacts``).

    Whether it supports ranges depends on the release and on any proxy. A file is read in one stream, several
    files at the same time.
    """

    has_ranges = False

    def __init__(self, uri: str, api: MlflowApi) -> None:
        from aml_mirror.pull.mlflow_rest import MlflowRest

        assert isinstance(api, MlflowRest)  # noqa: S101 - no database has such a store
        self.uri = uri
        self._api = api
        self._lock = threading.Lock()
        self._sizes: dict[str, dict[str, Any]] = {}
        parts = urlsplit(uri)
        if parts.scheme == "mlflow-artifacts":
            tracking = urlsplit(api.uri)
            host = parts.netloc or tracking.netloc
            self._root = f"{tracking.scheme}://{host}{tracking.path.rstrip('/')}{_PROXY}"
            self._folder = parts.path.strip("/")
        else:
            root, found, folder = uri.partition(_PROXY)
            self._root, self._folder = (root + found, folder.strip("/")) if found else (uri, "")

    def retried(self, operation: Callable[[], T]) -> T:
        """See :meth:`aml_mirror.pull.files.Files.retried`."""
        return self._api.retry(operation)

    def listing(self) -> dict[str, Listed]:
        """See :meth:`aml_mirror.pull.files.Files.listing`; one request per folder."""
        found: dict[str, Listed] = {}
        pending = [""]
        while pending:
            folder = pending.pop()
            for item in self._items(folder):
                path = posixpath.join(folder, str(item["path"]))
                if item.get("is_dir"):
                    pending.append(path)
                else:
                    size = item.get("file_size")
                    found[path] = Listed(int(size) if size is not None else None)
        return found

    def _items(self, folder: str) -> list[dict[str, Any]]:
        def ask() -> list[dict[str, Any]]:
            path = posixpath.join(self._folder, folder).strip("/")
            answer = self._api.session.get(self._root, params={"path": path} if path else None)
            if answer.status_code == 404:
                return []
            answer.raise_for_status()
            listed: list[dict[str, Any]] = answer.json().get("files") or []
            return listed

        return self.retried(ask)

    @contextmanager
    def read(self, path: str, start: int = 0, length: int | None = None, etag: str = "") -> Iterator[Part]:
        """See :meth:`aml_mirror.pull.files.Files.read`."""
        headers = {}
        if start or length is not None:
            headers["Range"] = f"bytes={start}-{'' if length is None else start + length - 1}"
        url = f"{self._root}/{quote(posixpath.join(self._folder, path))}"
        with self._api.session.get(url, headers=headers, stream=True) as answer:
            if start and answer.status_code == 416:
                # There are no bytes beyond those that we have, or the file is shorter.
                size = answer.headers.get("Content-Range", "").rpartition("/")[2]
                if size == str(start):
                    yield Part(start, iter(()))
                else:
                    with self.read(path) as part:
                        yield part
                return
            answer.raise_for_status()
            yield Part(start if answer.status_code == 206 else 0, answer.iter_content(_CHUNK_BYTES))

    def small(self, path: str, limit: int) -> bytes | None:
        """See :meth:`aml_mirror.pull.files.Files.small`."""
        from requests import HTTPError

        def read() -> bytes | None:
            try:
                data = joined(self.read(path), limit)
            except HTTPError as error:
                status = error.response.status_code if error.response is not None else 0
                # MLflow 2 answers 500 if a file is missing.
                if status == 404 or (status == 500 and posixpath.basename(path) not in self._beside(path)):
                    return None
                raise
            if data is not None and self._size_of(path) not in (None, len(data)):
                raise ServiceUnavailable(
                    f"an answer of {self.uri} was truncated", "run the same command again"
                )
            return data

        return self.retried(read)

    def _size_of(self, path: str) -> int | None:
        """Return a file's size from the listing of its folder; None: unknown."""
        size = self._beside(path).get(posixpath.basename(path))
        return int(size) if size is not None else None

    def _beside(self, path: str) -> dict[str, Any]:
        """Return the names and sizes in the folder of a file. Each folder is listed once."""
        folder = posixpath.dirname(path)
        with self._lock:
            if folder not in self._sizes:
                items = self._items(folder)
                self._sizes[folder] = {str(item["path"]): item.get("file_size") for item in items}
        return self._sizes[folder]


class LocalFiles:
    """Files in a folder of this host."""

    has_ranges = True

    def __init__(self, folder: str, retry: Retry) -> None:
        self.uri = folder
        self._folder = folder
        self._retry = retry

    def retried(self, operation: Callable[[], T]) -> T:
        """See :meth:`aml_mirror.pull.files.Files.retried`."""
        return self._retry(operation)

    def listing(self) -> dict[str, Listed]:
        """See :meth:`aml_mirror.pull.files.Files.listing`."""
        found: dict[str, Listed] = {}
        for folder, _, names in os.walk(self._folder):
            for name in names:
                full = os.path.join(folder, name)
                path = os.path.relpath(full, self._folder).replace(os.sep, "/")
                found[path] = Listed(os.stat(full).st_size)
        return found

    @contextmanager
    def read(self, path: str, start: int = 0, length: int | None = None, etag: str = "") -> Iterator[Part]:
        """See :meth:`aml_mirror.pull.files.Files.read`."""
        with open(os.path.join(self._folder, *path.split("/")), "rb") as stream:
            stream.seek(start)

            def chunks() -> Iterator[bytes]:
                left = length
                while left is None or left > 0:
                    data = stream.read(_CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES))
                    if not data:
                        return
                    left = None if left is None else left - len(data)
                    yield data

            yield Part(start, chunks())

    def small(self, path: str, limit: int) -> bytes | None:
        """See :meth:`aml_mirror.pull.files.Files.small`."""
        full = os.path.join(self._folder, *path.split("/"))
        if not os.path.isfile(full) or os.stat(full).st_size > limit:
            return None
        with open(full, "rb") as stream:
            return stream.read()
