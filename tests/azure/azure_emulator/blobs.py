"""Accesses Azurite: passes on requests, and sends a few of its own with all rights.

Azurite checks bearer tokens too. What the front has accepted is passed on with the front's own token for the
same object id. So a wrong clock, or a token that was made to expire, is only checked in one place.
"""

from __future__ import annotations

import ssl
import time
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import aiohttp
from azure.storage.blob import (
    AccountSasPermissions,
    ResourceTypes,
    UserDelegationKey,
    generate_account_sas,
    generate_blob_sas,
)
from multidict import CIMultiDict
from yarl import URL

from . import entra
from .names import STORAGE_AUDIENCE
from .state import Account, Scope
from .web import CHUNK, Reply

VERSION = "2025-11-05"
# How long an unused connection to a server behind the emulator may be used again, in seconds. Node.js and
# uvicorn close it after 5 s. A request that is sent at that moment is lost.
KEEP_ALIVE = 3
# A tolerance between two machines, not for the message.
HOP = {
    "connection",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "expect",
}


class Pieces:
    """The body of an answer of Azurite, passed on as it arrives. ``close`` it if it is not needed."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.content.iter_chunked(CHUNK):
                yield piece
        finally:
            self._response.release()

    def close(self) -> None:
        self._response.close()


@dataclass
class Blobs:
    """The blob store."""

    url: str
    authority: str
    keys: dict[str, str]
    session: aiohttp.ClientSession = field(init=False)
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict)

    async def open(self) -> None:
        """Connect. Call it inside the running loop."""
        context = ssl.create_default_context(cafile=self.authority)
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0, keepalive_timeout=KEEP_ALIVE),
            auto_decompress=False,
            # A machine that pauses for a minute is not a fault of the storage.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=600),
            skip_auto_headers=("User-Agent", "Content-Type", "Accept-Encoding"),
        )

    async def close(self) -> None:
        """Disconnect."""
        await self.session.close()

    def _token(self, scope: Scope, account: Account, object_id: str) -> str:
        token, until = self._tokens.get(f"{account.tenant} {object_id}", ("", 0.0))
        if until < time.time() + 600:
            # Made as if Entra's clock were right.
            skew, scope.skew = scope.skew, -60
            token = entra.issue(scope, STORAGE_AUDIENCE, object_id, object_id, account.tenant, 24 * 3600)
            scope.skew, until = skew, time.time() + 24 * 3600
            self._tokens[f"{account.tenant} {object_id}"] = (token, until)
        return token

    async def send(
        self,
        scope: Scope,
        account: Account,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterator[bytes] | None = None,
        *,
        object_id: str | None = None,
        keep_authorization: bool = False,
    ) -> Reply:
        """Send one request to an account and return the answer, without reading its body.

        ``target`` begins with a slash and the container. Without an ``object_id``, the emulator itself sends
        the request.
        """
        sent = CIMultiDict(
            (name, value) for name, value in (headers or {}).items() if name.lower() not in HOP
        )
        sent.setdefault("x-ms-version", VERSION)
        if keep_authorization:
            sent["Host"] = f"{account.name}.blob.localhost"
            url = URL(f"{self.url}{target}", encoded=True)
        else:
            sent["Authorization"] = f"Bearer {self._token(scope, account, object_id or 'emulator')}"
            url = URL(f"{self.url}/{account.name}{target}", encoded=True)
        if "sig=" in target.partition("?")[2] and not keep_authorization:
            del sent["Authorization"]
        if not isinstance(body, bytes) and body is not None and "Content-Length" not in sent:
            sent["Transfer-Encoding"] = "chunked"
        if body is None and method in ("PUT", "POST"):
            sent["Content-Length"] = "0"
        response = await self.session.request(method, url, headers=sent, data=body, allow_redirects=False)
        kept = CIMultiDict(
            (name, value)
            for name, value in response.headers.items()
            if name.lower() not in HOP and name.lower() not in ("server", "content-length", "date")
        )
        length = response.headers.get("Content-Length")
        return Reply(response.status, kept, Pieces(response), int(length) if length else None)  # type: ignore[arg-type]

    async def whole(self, *arguments: Any, **named: Any) -> Reply:
        """Like ``send``, but read the body."""
        reply = await self.send(*arguments, **named)
        reply.body = b"".join([piece async for piece in reply.body])  # type: ignore[union-attr]
        reply.length = None
        return reply

    async def head(self, scope: Scope, account: Account, target: str) -> Reply:
        """The properties of a blob."""
        reply = await self.send(scope, account, "HEAD", target)
        reply.body.close()  # type: ignore[union-attr]
        return reply

    async def put(
        self, scope: Scope, account: Account, target: str, data: bytes, headers: Mapping[str, str]
    ) -> Reply:
        """Put Blob."""
        sent = {"x-ms-blob-type": "BlockBlob", "Content-Length": str(len(data)), **headers}
        return await self.whole(scope, account, "PUT", target, sent, data or None)

    async def names(
        self, scope: Scope, account: Account, container: str, prefix: str, limit: int
    ) -> list[tuple[str, bool]]:
        """Return up to ``limit`` blobs below a prefix, and for each, whether it is a folder."""
        found: list[tuple[str, bool]] = []
        marker = ""
        while len(found) < limit:
            reply = await self.whole(
                scope,
                account,
                "GET",
                f"/{container}?restype=container&comp=list&include=metadata&prefix={quote(prefix, safe='')}"
                f"&marker={quote(marker, safe='')}",
            )
            if reply.status != 200:
                return []
            tree = ET.fromstring(reply.body.decode("utf-8-sig"))  # type: ignore[union-attr]
            for blob in tree.iter("Blob"):
                folder = any(one.tag.lower() == "hdi_isfolder" for one in blob.iterfind("Metadata/*"))
                found.append((blob.findtext("Name") or "", folder))
            marker = tree.findtext("NextMarker") or ""
            if not marker:
                break
        return found

    def account_sas(self, account: Account) -> str:
        """Return a SAS for everything in an account, for the emulator's own use."""
        return generate_account_sas(
            account.name,
            account.key,
            ResourceTypes(service=True, container=True, object=True),
            AccountSasPermissions(read=True, list=True, write=True, create=True),
            datetime.now(UTC) + timedelta(days=1),
            datetime.now(UTC) - timedelta(minutes=5),
        )

    async def delegation_key(self, scope: Scope, account: Account, object_id: str) -> UserDelegationKey:
        """Return a user delegation key, like the service does."""
        now = datetime.now(UTC)
        start, end = (
            moment.strftime("%Y-%m-%dT%H:%M:%SZ")
            for moment in (now - timedelta(minutes=15), now + timedelta(days=6))
        )
        body = f"<KeyInfo><Start>{start}</Start><Expiry>{end}</Expiry></KeyInfo>".encode()
        reply = await self.whole(
            scope,
            account,
            "POST",
            "/?restype=service&comp=userdelegationkey",
            {"Content-Type": "application/xml", "Content-Length": str(len(body))},
            body,
            object_id=object_id,
        )
        tree = ET.fromstring(reply.body.decode("utf-8-sig"))  # type: ignore[union-attr]
        key = UserDelegationKey()
        key.signed_oid, key.signed_tid = tree.findtext("SignedOid"), tree.findtext("SignedTid")
        key.signed_start, key.signed_expiry = tree.findtext("SignedStart"), tree.findtext("SignedExpiry")
        key.signed_service, key.signed_version = (
            tree.findtext("SignedService"),
            tree.findtext("SignedVersion"),
        )
        key.value = tree.findtext("Value")
        return key

    async def blob_sas(
        self,
        scope: Scope,
        account: Account,
        container: str,
        name: str,
        permission: str,
        seconds: float,
        *,
        object_id: str | None,
    ) -> str:
        """A SAS for one blob: of a user delegation key where an object id is given, else of "
        "the account key."""
        key = await self.delegation_key(scope, account, object_id) if object_id else None
        token = generate_blob_sas(
            account.name,
            container,
            name,
            account_key=None if key else account.key,
            user_delegation_key=key,
            permission=permission,
            start=datetime.now(UTC) - timedelta(minutes=10),
            expiry=datetime.now(UTC) + timedelta(seconds=seconds),
        )
        scope.seen_sas.add(signature_of(token))
        return token


def signature_of(query: str) -> str:
    """Return the ``sig`` of a SAS, which identifies it."""
    return next((part[4:] for part in query.split("&") if part.startswith("sig=")), "")


def blob_target(container: str, name: str) -> str:
    """The path of a blob."""
    return f"/{container}/{quote(name, safe='/~')}"
