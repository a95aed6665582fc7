"""A container of blobs in memory, with the requests that small files need. The emulator has all others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobProperties


def refusal(status: int, code: str = "", said: str = "no") -> HttpResponseError:
    """Return the error of a client for an answer of the service."""
    response: Any = SimpleNamespace(
        status_code=status, reason=said, headers={"x-ms-error-code": code} if code else {}, text=str
    )
    return HttpResponseError(said, response=response)


class Blobs:
    """Stands in for a ``ContainerClient``. ``written`` has the names of the blobs that were written."""

    container_name = "c"
    url = "https://lab.blob.core.azure.test/c"

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.written: list[str] = []
        self.listed = 0
        self._counter = itertools.count(1)

    def put(self, name: str, data: bytes) -> str:
        """Write a blob as anybody may; return its ETag."""
        self.data[name], self.etags[name] = data, f"0x{next(self._counter)}"
        return self.etags[name]

    def get_blob_client(self, name: str) -> _Blob:
        return _Blob(self, name)

    def list_blobs(self, name_starts_with: str = "", **more: Any) -> _Listed:
        self.listed += 1
        names = [name for name in sorted(self.data) if name.startswith(name_starts_with)]
        return _Listed([self.properties(name) for name in names])

    def properties(self, name: str) -> BlobProperties:
        """Return the properties of a blob."""
        if name not in self.data:
            raise refusal(404, "BlobNotFound")
        found = BlobProperties(metadata=self.metadata.get(name))
        found.name, found.size, found.etag = name, len(self.data[name]), f'"{self.etags[name]}"'
        return found


class _Listed(list[BlobProperties]):
    """A listing, also in one page."""

    def by_page(self, token: str | None) -> _Pages:
        return _Pages([list(self)])


class _Pages:
    continuation_token = None

    def __init__(self, pages: list[list[BlobProperties]]) -> None:
        self._pages = iter(pages)

    def __iter__(self) -> Iterator[list[BlobProperties]]:
        return self

    def __next__(self) -> list[BlobProperties]:
        return next(self._pages)


class _Blob:
    def __init__(self, container: Blobs, name: str) -> None:
        self._container, self._name = container, name
        self.url = f"{container.url}/{name}"

    def upload_blob(self, data: Any, length: int | None = None, **more: Any) -> dict[str, str]:
        whole = data if isinstance(data, bytes) else data.read(-1 if length is None else length)
        self._container.written.append(self._name)
        return {"etag": f'"{self._container.put(self._name, whole)}"'}

    def get_blob_properties(self) -> BlobProperties:
        return self._container.properties(self._name)

    def download_blob(self, offset: int = 0, length: int | None = None, **more: Any) -> Any:
        found = self.get_blob_properties()
        if more.get("etag", found.etag) != found.etag:
            raise refusal(412, "ConditionNotMet")
        data = self._container.data[self._name][offset:]
        data = data if length is None else data[:length]
        return SimpleNamespace(
            properties=found,
            readall=lambda: data,
            chunks=lambda: iter([data[at : at + 4] for at in range(0, len(data), 4)]),
        )

    def delete_blob(self, **more: Any) -> None:
        self.get_blob_properties()
        del self._container.data[self._name]
