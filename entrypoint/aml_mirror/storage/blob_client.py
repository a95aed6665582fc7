"""Creates clients of Azure Blob storage with our settings, and describes where a blob is."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobProperties, BlobServiceClient, ContainerClient, ExponentialRetry
from requests.adapters import HTTPAdapter
from urllib3 import ProxyManager
from urllib3.connection import HTTPConnection
from urllib3.util import Retry as HttpRetry

from aml_mirror.storage.azure_login import credential as default_credential

# The client's own retries are for one dropped connection; aml_mirror.support.retry is above them. The client
# neither honours Retry-After nor retries 429 at all (azure-storage-blob 12.27.1).
_CLIENT_RETRIES = 2
_CLIENT_PAUSE = 1  # second, then 3
_CONNECT_SECONDS = 20
# The time-out between two packets, not for a whole request. A stalled connection is closed after it.
_STALL_SECONDS = 60
# 16 senders hold pieces of 4 MiB in total. Larger ones are not faster.
_PIECE_BYTES = 256 << 10


class _Adapter(HTTPAdapter):
    """Sends a file that is the body of a request in pieces of ``_PIECE_BYTES``, instead of 16 KiB.

    Through a proxy, Nagle's algorithm would delay the body in urllib3. Each small request would take 40 ms
    longer, until the proxy acknowledges the headers.
    """

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, blocksize=_PIECE_BYTES, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> ProxyManager:
        at_once = HTTPConnection.default_socket_options
        found: ProxyManager = super().proxy_manager_for(
            proxy, blocksize=_PIECE_BYTES, socket_options=at_once, **options
        )
        return found


class _Transport(RequestsTransport):  # type: ignore[misc]
    """Sends a body from its beginning each time. After a 401, the client does not rewind it."""

    def send(self, request: Any, **options: Any) -> Any:
        if hasattr(request.body, "seek"):
            request.body.seek(0)
        return super().send(request, **options)


def service_client(account_url: str, credential: Any = None, connections: int = 16) -> BlobServiceClient:
    """Return a client of a storage account.

    Args:
        account_url: ``https://account.blob.core.windows.net``.
        credential: a token credential; None: this program's.
        connections: how many requests run at the same time. The client's own transport keeps ten connections
            and makes a new one, with a TLS handshake, for each further request.
    """
    return BlobServiceClient(
        account_url,
        credential=credential or default_credential(),
        transport=transport(connections),
        retry_policy=ExponentialRetry(
            initial_backoff=_CLIENT_PAUSE, increment_base=2, retry_total=_CLIENT_RETRIES
        ),
    )


def transport(connections: int, chunk_bytes: int = 4096) -> RequestsTransport:
    """Return the transport for requests to a storage account.

    Args:
        connections: how many run at the same time.
        chunk_bytes: the size of the pieces of a streamed answer.
    """
    session = requests.Session()
    adapter = _Adapter(
        pool_connections=4, pool_maxsize=connections + 2, max_retries=HttpRetry(total=False, redirect=False)
    )
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return _Transport(
        session=session,
        connection_timeout=_CONNECT_SECONDS,
        read_timeout=_STALL_SECONDS,
        connection_data_block_size=chunk_bytes,
    )


def container_client(
    account_url: str, container: str, credential: Any = None, connections: int = 16
) -> ContainerClient:
    """Return a client of a container; arguments as for :func:`service_client`."""
    return service_client(account_url, credential, connections).get_container_client(container)


def metadata_of(found: BlobProperties) -> dict[str, str]:
    """Return a blob's metadata. A proxy may have changed the case of their names."""
    return {name.lower(): text for name, text in (found.metadata or {}).items()}


def account_of(url: str) -> str:
    """Return the account's name from the address of an account, container or blob."""
    return (urlsplit(url).hostname or "").split(".")[0]


def in_words(container: ContainerClient) -> str:
    """Describe a container."""
    return f"container {container.container_name} of storage account {account_of(container.url)}"
