"""Server-side copies: Copy Blob, Copy Blob From URL, Put Blob From URL, Put Block From URL.

Documented on Learn: Copy Blob ("the source blob must be public or authorized by SAS" unless it is in the
same account; within the account it may end at once, else it is scheduled and polled), ``x-ms-copy-status``
and its description, 409 ``PendingCopyOperation``, Abort Copy Blob (204), Copy Blob From URL's 256 MiB, Put
Blob From URL's 5,000 MiB, Put Block From URL's 4,000 MiB, ``x-ms-copy-source-authorization`` for the three
"From URL" only, ``x-ms-source-if-match`` (412 ``SourceConditionNotMet``), "Restrict the source of copy
operations" (403). Reported: Put Blob From URL without a source authorization fails within one account too
(azure-sdk-for-python#36176), 409 ``CannotVerifyCopySource`` for a source that cannot be read anonymously.
Assumed: the code that comes with a refusal by AllowedCopyScope (``AuthorizationFailure``, to which the
documented message belongs), 413 past 256 MiB.

Azurite only copies within itself under its own host name, and has no "From URL" for blobs and blocks. So the
source address is rewritten, or the source is read here and written as a blob or block.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from azure.storage.extensions import checksums
from multidict import CIMultiDict

from . import entra, storage
from .blobs import Pieces, blob_target
from .names import account_of
from .state import Account
from .web import Refused, Reply, Request, storage_error

if TYPE_CHECKING:
    from .server import Emulator

MIB = 2**20
COPY_FROM_URL_LIMIT = 256 * MIB
PUT_FROM_URL_LIMIT = 5000 * MIB
BLOCK_FROM_URL_LIMIT = 4000 * MIB
CONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


@dataclass
class Copy:
    """An asynchronous copy that has not ended, or that failed."""

    id: str
    source: str
    total: int
    polls: int
    outcome: str


@dataclass
class Source:
    """The source blob of a copy."""

    account: Account
    target: str
    url: str
    size: int
    headers: CIMultiDict[str]


async def serve(emulator: Emulator, account: Account, request: Request) -> Reply:
    """Answer a PUT with ``x-ms-copy-source``; its destination is already authorized."""
    from_url = request.query.get("comp") == "block" or request.headers.get("x-ms-blob-type") == "BlockBlob"
    at_once = from_url or request.headers.get("x-ms-requires-sync", "").lower() == "true"
    source = await _source(emulator, account, request, at_once)
    if request.query.get("comp") == "block":
        return await _write(emulator, account, request, source, BLOCK_FROM_URL_LIMIT)
    if from_url:
        return await _write(emulator, account, request, source, PUT_FROM_URL_LIMIT)
    if at_once and source.size > COPY_FROM_URL_LIMIT:
        raise _too_large(COPY_FROM_URL_LIMIT)
    return await _copy(emulator, account, request, source, at_once)


def _cannot_verify(status: int, message: str) -> Refused:
    return storage_error(status, "CannotVerifyCopySource", message)


def _too_large(limit: int) -> Refused:
    return storage_error(
        413, "RequestBodyTooLarge", f"The request body is too large and exceeds the maximum limit of {limit}."
    )


async def _source(emulator: Emulator, account: Account, request: Request, at_once: bool) -> Source:
    parts = urlsplit(request.headers["x-ms-copy-source"])
    name = account_of(parts.hostname or "")
    found = emulator.accounts.get(name or "")
    if not found or parts.scheme != "https":
        raise _cannot_verify(404, "The specified resource does not exist.")
    if found is not account and (
        account.copy_scope == "PrivateLink"
        or (account.copy_scope == "AAD" and found.tenant != account.tenant)
    ):
        raise storage_error(403, "AuthorizationFailure", storage.NOT_AUTHORIZED)
    signed = "sig=" in parts.query
    try:
        _authorize_source(request, account, found, parts.query if signed else "", at_once)
    except Refused as refused:
        raise _as_source(refused.reply) from None
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    reply = await emulator.blobs.head(request.scope, found, target)
    if reply.status != 200:
        raise _cannot_verify(
            reply.status,
            "The specified blob does not exist."
            if reply.status == 404
            else "Server failed to authenticate the request. Make sure the value of Authorization header is "
            "formed correctly including the signature.",
        )
    etag = reply.headers.get("ETag", "")
    wanted = request.headers.get("x-ms-source-if-match")
    unwanted = request.headers.get("x-ms-source-if-none-match")
    if (wanted and wanted not in ("*", etag)) or (unwanted and unwanted in ("*", etag)):
        raise storage_error(
            412,
            "SourceConditionNotMet",
            "The source condition specified using HTTP conditional header(s) is not met.",
        )
    return Source(
        found, target, request.headers["x-ms-copy-source"].partition("?")[0], reply.length or 0, reply.headers
    )


def _authorize_source(request: Request, account: Account, source: Account, sas: str, at_once: bool) -> None:
    scope = request.scope
    if source.network != "Allow":
        raise storage_error(403, "AuthorizationFailure", storage.NOT_AUTHORIZED)
    if sas:
        storage.judge_sas(scope, source, sas, writes=False)
        return
    kind, _, token = request.headers.get("x-ms-copy-source-authorization", "").partition(" ")
    if at_once and kind.lower() == "bearer":
        storage.judge_role(scope, source, entra.judge_storage(scope, source, token), writes=False)
        return
    if source is account and not at_once and request.identity:
        storage.judge_role(scope, source, request.identity, writes=False)
        return
    raise _cannot_verify(409, "Public access is not permitted on this storage account.")


def _as_source(reply: Reply) -> Refused:
    if reply.headers.get("x-ms-error-code") == "CannotVerifyCopySource":
        return Refused(reply)
    text = bytes(reply.body).decode()  # type: ignore[arg-type]
    message = re.search(r"<Message>(.*?)\n", text)
    return _cannot_verify(reply.status, message[1] if message else "")


def _destination_headers(request: Request) -> CIMultiDict[str]:
    return CIMultiDict(
        (name, value)
        for name, value in request.headers.items()
        if name.lower() not in ("authorization", "x-ms-copy-source-authorization", "x-ms-copy-source")
        and not name.lower().startswith("x-ms-source-")
        and name.lower() != "x-ms-requires-sync"
    )


async def _write(emulator: Emulator, account: Account, request: Request, source: Source, limit: int) -> Reply:
    """Put Blob or Put Block with the source's bytes."""
    wanted = {"If-Match": source.headers["ETag"]}
    if piece := request.headers.get("x-ms-source-range"):
        wanted["x-ms-range"] = piece
    data = await emulator.blobs.send(request.scope, source.account, "GET", source.target, wanted)
    if data.status not in (200, 206):
        raise _cannot_verify(data.status, "The source could not be read.")
    if (data.length or 0) > limit:
        assert isinstance(data.body, Pieces)
        data.body.close()
        raise _too_large(limit)
    headers = _destination_headers(request)
    headers["Content-Length"] = str(data.length or 0)
    block = request.query.get("comp") == "block"
    if not block:
        headers["x-ms-blob-type"] = "BlockBlob"
        if request.headers.get("x-ms-copy-source-blob-properties", "true").lower() == "true":
            headers.setdefault("x-ms-blob-content-type", source.headers.get("Content-Type", ""))
        if not any(name.lower().startswith("x-ms-meta-") for name in headers):
            headers.extend((n, v) for n, v in source.headers.items() if n.lower().startswith("x-ms-meta-"))
    digest = request.headers.get("x-ms-source-content-md5")
    crc = request.headers.get("x-ms-source-content-crc64") if account.crc64 == "compared" else None
    if digest or crc:
        whole = b"".join([piece async for piece in data.body])  # type: ignore[union-attr]
        if digest and base64.b64encode(hashlib.md5(whole, usedforsecurity=False).digest()).decode() != digest:
            raise storage_error(400, "Md5Mismatch", "The MD5 value specified did not match the source's.")
        found = base64.b64encode(checksums.crc64.compute(whole, 0).to_bytes(8, "little")).decode()
        if crc and found != crc:
            raise storage_error(400, "Crc64Mismatch", "The CRC64 value specified did not match the source's.")
        body: object = whole
    else:
        body = data.body if data.length else None
    return await emulator.blobs.send(
        request.scope,
        account,
        "PUT",
        request.target,
        headers,
        body,  # type: ignore[arg-type]
        object_id=request.identity,
    )


async def _copy(
    emulator: Emulator, account: Account, request: Request, source: Source, at_once: bool
) -> Reply:
    """Copy Blob and Copy Blob From URL, done by Azurite."""
    headers = _destination_headers(request)
    same = source.account is account
    query = source.target.partition("?")[2] if "sig=" in source.target else ""
    if not query and not same:
        query = emulator.blobs.account_sas(source.account)
    path = source.target.partition("?")[0]
    headers["x-ms-copy-source"] = f"{emulator.blobs.url}/{source.account.name}{path}" + (
        f"?{query}" if query else ""
    )
    # The checked blob must be the copied one.
    headers["x-ms-source-if-match"] = source.headers["ETag"]
    if at_once:
        headers["x-ms-requires-sync"] = "true"
    container, _, blob = request.decoded_path.lstrip("/").partition("/")
    reply = await emulator.blobs.whole(
        request.scope, account, "PUT", request.target, headers, object_id=request.identity
    )
    copy = account.copies.pop(f"{container}/{blob}", None)
    if reply.status != 202:
        return reply
    slow = not at_once and (account.copy_pending_polls > 0 or account.copy_outcome != "success")
    identifier = reply.headers.get("x-ms-copy-id", str(uuid.uuid4()))
    copy = Copy(
        identifier,
        source.url,
        source.size,
        account.copy_pending_polls if slow else 0,
        account.copy_outcome if slow else "success",
    )
    account.copies[f"{container}/{blob}"] = copy
    if slow:
        reply.headers["x-ms-copy-status"] = "pending"
    return reply


def refuse_while_pending(account: Account, key: str) -> None:
    """Answer 409 to a write to a blob that is the destination of a pending copy."""
    copy = account.copies.get(key)
    if copy and copy.polls > 0:
        raise storage_error(409, "PendingCopyOperation", "There is currently a pending copy operation.")


async def show(
    emulator: Emulator, account: Account, request: Request, container: str, blob: str, reply: Reply
) -> None:
    """Add the state of a copy to the answer to a read of its destination. Each read is a poll."""
    copy: Copy | None = account.copies.get(f"{container}/{blob}")
    if not copy or reply.status not in (200, 206):
        return
    reply.headers["x-ms-copy-source"] = copy.source
    if copy.polls > 0:
        copy.polls -= 1
        reply.headers["x-ms-copy-status"] = "pending"
        reply.headers["x-ms-copy-progress"] = f"{copy.total // 2}/{copy.total}"
        reply.headers.pop("x-ms-copy-completion-time", None)
        return
    if copy.outcome == "success":
        return
    reply.headers["x-ms-copy-status"] = copy.outcome
    if copy.outcome == "failed":
        reply.headers["x-ms-copy-status-description"] = (
            '500 InternalServerError "Copy failed when reading the source."'
        )
    if copy.total:
        # A copy that failed or was aborted leaves an empty blob.
        copy.total = 0
        await _empty(emulator, account, request, container, blob)
    reply.headers["x-ms-copy-progress"] = f"0/{copy.total}"
    if request.method == "GET" and isinstance(reply.body, Pieces):
        reply.body.close()
        reply.body = b""
    reply.length = 0


async def show_in_listing(account: Account, container: str, reply: Reply) -> None:
    """Add the state of pending copies to a listing with ``include=copy`` (Learn, List Blobs)."""
    pending = [
        name.partition("/")[2]
        for name, copy in account.copies.items()
        if name.startswith(container + "/") and copy.polls > 0
    ]
    if not pending or reply.status != 200 or not isinstance(reply.body, Pieces):
        return
    tree = ET.fromstring(b"".join([piece async for piece in reply.body]).decode("utf-8-sig"))
    for blob in tree.iter("Blob"):
        properties = blob.find("Properties")
        if blob.findtext("Name") not in pending or properties is None:
            continue
        for name in ("CopyStatus", "CopyCompletionTime"):
            if (found := properties.find(name)) is not None:
                properties.remove(found)
        ET.SubElement(properties, "CopyStatus").text = "pending"
    reply.body = ET.tostring(tree, encoding="utf-8", xml_declaration=True)
    reply.length = None


async def _empty(emulator: Emulator, account: Account, request: Request, container: str, blob: str) -> None:
    await emulator.blobs.put(request.scope, account, blob_target(container, unquote(blob)), b"", {})


async def abort(emulator: Emulator, account: Account, request: Request, container: str, blob: str) -> Reply:
    """Abort Copy Blob."""
    copy: Copy | None = account.copies.get(f"{container}/{blob}")
    if not copy or copy.polls <= 0:
        raise storage_error(409, "NoPendingCopyOperation", "There is currently no pending copy operation.")
    if copy.id != request.query["copyid"]:
        raise storage_error(409, "CopyIdMismatch", "The specified copy ID did not match the pending one.")
    copy.polls, copy.outcome = 0, "aborted"
    await asyncio.sleep(0)
    return Reply(204)
