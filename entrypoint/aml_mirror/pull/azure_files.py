"""Reads files in Azure Blob storage by ranges, over azure-core's pipeline.

The storage client's own download holds several copies of the data in memory. Here a range is a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from azure.core import PipelineClient
from azure.core.credentials import AzureSasCredential
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import policies
from azure.core.rest import HttpRequest

from aml_mirror.pull.files import Listed, Part, joined
from aml_mirror.storage import azure_errors
from aml_mirror.storage.azure_login import STORAGE_SCOPE, credential, with_fresh_login
from aml_mirror.storage.blob_client import account_of, container_client, metadata_of, transport
from aml_mirror.support.retry import Retry

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

T = TypeVar("T")

# The most files of a version, most of them unexpected. More are not listed.
MAX_LISTED = 100_000
# Any API version with ranges and If-Match works. This one is older than every emulator and private cloud.
_API_VERSION = "2021-12-02"
_CHUNK_BYTES = 256 << 10


class AzureFiles:
    """See :class:`aml_mirror.pull.files.Files`.

    Args:
        account_url: ``https://account.blob.core.windows.net``.
        container, folder: the location; the folder without a slash at its end.
        retry: retries each operation.
        connections: how many requests run at the same time.
        sas: a shared access signature to use instead of this program's login; empty: the login.
    """

    has_ranges = True

    def __init__(
        self,
        account_url: str,
        container: str,
        folder: str,
        retry: Retry,
        connections: int = 16,
        sas: str = "",
    ) -> None:
        self._base = f"{account_url.rstrip('/')}/{container}"
        self._folder = folder.strip("/")
        self.uri = "/".join(filter(None, ("azure:/", account_of(account_url), container, self._folder)))
        where = f"container {container} of storage account {account_of(account_url)}"
        self._retry = retry.with_translation(lambda error: azure_errors.translate(error, where))
        signed = AzureSasCredential(sas) if sas else None
        self._container: ContainerClient = container_client(
            account_url, container, credential=signed, connections=connections
        )
        self._pipeline: PipelineClient[HttpRequest, Any] = PipelineClient(
            account_url,
            transport=transport(connections, _CHUNK_BYTES),
            policies=[
                policies.HeadersPolicy({"x-ms-version": _API_VERSION, "Accept-Encoding": "identity"}),
                policies.UserAgentPolicy("aml-mirror"),
                policies.AzureSasCredentialPolicy(signed)
                if signed
                else policies.BearerTokenCredentialPolicy(credential(), STORAGE_SCOPE),
            ],
        )

    def sibling(self, folder: str) -> AzureFiles:
        """Return the files of another folder of the container, over the same connections."""
        other = object.__new__(AzureFiles)
        other.__dict__.update(self.__dict__)
        other._folder = folder.strip("/")
        other.uri = f"{self.uri.removesuffix(self._folder).rstrip('/')}/{other._folder}"
        return other

    def retried(self, operation: Callable[[], T]) -> T:
        """See :meth:`aml_mirror.pull.files.Files.retried`. After a 401, it uses a new token."""
        return self._retry(lambda: with_fresh_login(operation))

    def listing(self) -> dict[str, Listed]:
        """See :meth:`aml_mirror.pull.files.Files.listing`."""
        prefix = f"{self._folder}/" if self._folder else ""

        def read() -> dict[str, Listed]:
            found: dict[str, Listed] = {}
            for blob in self._container.list_blobs(name_starts_with=prefix, include=["metadata"]):
                path = str(blob.name)[len(prefix) :]
                # Accounts with a hierarchical namespace also list folders.
                is_folder = metadata_of(blob).get("hdi_isfolder", "").lower() == "true"
                if not path.endswith("/") and not is_folder:
                    found[path] = Listed(int(blob.size), f'"{str(blob.etag).strip(chr(34))}"')
                if len(found) > MAX_LISTED:
                    break
            return found

        return self.retried(read)

    @contextmanager
    def read(self, path: str, start: int = 0, length: int | None = None, etag: str = "") -> Iterator[Part]:
        """See :meth:`aml_mirror.pull.files.Files.read`."""
        headers = {}
        if start or length is not None:
            end = "" if length is None else start + length - 1
            headers["Range"] = f"bytes={start}-{end}"
        if etag:
            headers["If-Match"] = etag
        name = f"{self._folder}/{path}" if self._folder else path
        request = HttpRequest("GET", f"{self._base}/{quote(name)}", headers=headers)
        response = self._pipeline.send_request(request, stream=True)
        try:
            if response.status_code not in (200, 206):
                response.read()
                response.raise_for_status()
                raise HttpResponseError(f"unexpected status {response.status_code}", response=response)
            yield Part(start if response.status_code == 206 else 0, response.iter_raw())
        finally:
            response.close()

    def small(self, path: str, limit: int) -> bytes | None:
        """See :meth:`aml_mirror.pull.files.Files.small`."""

        def read() -> bytes | None:
            try:
                return joined(self.read(path), limit)
            except HttpResponseError as error:
                if azure_errors.is_missing(error):
                    return None
                raise

        return self.retried(read)
