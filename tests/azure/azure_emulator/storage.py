"""Blob storage: checks who may do what, in front of Azurite, which stores the bytes.

Documented on Learn: the error codes ("Blob service error codes"), "Prevent Shared Key authorization" (403
``KeyBasedAuthenticationNotPermitted``, also for every SAS except one of a user delegation key), the rights of
the two data roles, that a user delegation SAS has no more rights than its signer, the bearer challenge,
"Configure Azure Storage firewalls" (403 ``AuthorizationFailure``), and the CRC-64 of a body, which Azurite
does not know ("Put Block": 400 ``Crc64Mismatch`` if the body has another one). Reported: 401
``InvalidAuthenticationInfo`` with its detail. A request without any authorization gets 401
``NoAuthenticationInformation`` with a challenge, and 409 ``PublicAccessNotPermitted`` is the answer to a copy
from such a source. Blobs, blocks, leases, conditions and the signatures of SAS are Azurite's.

A hierarchical namespace creates the parents of every blob, which a listing of blobs shows as empty blobs with
the metadata ``hdi_isfolder``. A folder that is not empty cannot be deleted as a blob (409
``DirectoryIsNotEmpty``).
"""

from __future__ import annotations

import base64
import email.utils
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote

from azure.storage.extensions import checksums
from multidict import CIMultiDict

from . import copying, entra
from .blobs import blob_target, signature_of
from .entra import TOLERANCE
from .names import blob_host
from .state import CONTRIBUTOR, READER, Account, Scope
from .web import Reply, Request, storage_error

if TYPE_CHECKING:
    from .server import Emulator

CRC64 = "x-ms-content-crc64"
NOT_AUTHORIZED = "This request is not authorized to perform this operation."


async def serve(emulator: Emulator, account: Account, request: Request) -> Reply:
    """Answer a request to an account's blob host."""
    await authorize(request.scope, account, request)
    query = request.query
    container, _, blob = request.decoded_path.lstrip("/").partition("/")
    key = f"{container}/{blob}"
    if "x-ms-copy-source" in request.headers and request.method == "PUT":
        copying.refuse_while_pending(account, key)
        return await _after_write(
            emulator, account, request, container, blob, await copying.serve(emulator, account, request)
        )
    if query.get("comp") == "copy" and "copyid" in query:
        return await copying.abort(emulator, account, request, container, blob)
    if request.method == "PUT" and blob and query.get("comp") != "lease":
        copying.refuse_while_pending(account, key)
    if request.method == "DELETE" and blob and account.hns:
        below = await emulator.blobs.names(request.scope, account, container, blob + "/", 1)
        if below:
            raise storage_error(
                409, "DirectoryIsNotEmpty", "This operation is not permitted on a non-empty directory."
            )
    reply = await pass_on(emulator, account, request)
    if account.header_case:
        for name in [name for name in reply.headers if name.lower().startswith("x-ms-meta-")]:
            reply.headers[name.title()] = reply.headers.pop(name)
    if (
        request.method in ("PUT", "DELETE")
        and reply.status < 300
        and query.get("comp") in (None, "blocklist")
    ):
        # A blob that was overwritten is no longer a copy.
        account.copies.pop(key, None)
    if request.method in ("GET", "HEAD") and blob and not query.get("comp"):
        await copying.show(emulator, account, request, container, blob, reply)
    if query.get("comp") == "list" and not blob and "copy" in query.get("include", ""):
        await copying.show_in_listing(account, container, reply)
    return await _after_write(emulator, account, request, container, blob, reply)


async def pass_on(emulator: Emulator, account: Account, request: Request) -> Reply:
    """Let Azurite act, as the identity that was found."""
    headers = CIMultiDict(request.headers)
    checksum = await compare_crc64(account, request, headers)
    signed = headers.get("Authorization", "").lower().startswith("sharedkey")
    if not signed:
        headers.pop("Authorization", None)
    has_body = request.raw is not None and request.raw.body_exists
    reply = await emulator.blobs.send(
        request.scope,
        account,
        request.method,
        request.target,
        headers,
        request.pieces() if has_body else None,
        object_id=request.identity,
        keep_authorization=signed,
    )
    if reply.status == 400 and reply.headers.get("x-ms-error-code") == "InvalidOperation":
        text = b"".join([piece async for piece in reply.body])  # type: ignore[union-attr]
        if b"Provided contentMD5" in text:
            # Azurite has its own code for this.
            raise storage_error(
                400,
                "Md5Mismatch",
                "The MD5 value specified in the request did not match with the MD5 value calculated by the "
                "server.",
            )
        reply.body = text
    if checksum and reply.status == 201:
        reply.headers[CRC64] = checksum
    return reply


async def compare_crc64(account: Account, request: Request, headers: CIMultiDict[str]) -> str | None:
    """Compare a body with its CRC-64, using Microsoft's own implementation, and return its real one."""
    if CRC64 not in headers or account.crc64 == "refused":
        return None
    given = headers.pop(CRC64)
    if account.crc64 == "ignored":
        return None
    if "Content-MD5" in headers:
        raise storage_error(400, "InvalidHeaderValue", "Both an MD5 and a CRC64 were specified.")
    found = checksums.crc64.compute(await request.body(), 0)
    text = base64.b64encode(found.to_bytes(8, "little")).decode()
    if given != text:
        raise storage_error(
            400,
            "Crc64Mismatch",
            "The CRC64 value specified in the request did not match with the CRC64 value calculated by the "
            "server.",
        )
    return text


async def _after_write(
    emulator: Emulator, account: Account, request: Request, container: str, blob: str, reply: Reply
) -> Reply:
    if account.hns and blob and request.method == "PUT" and reply.status in (201, 202):
        await make_folders(emulator, request.scope, account, container, blob)
    return reply


async def make_folders(emulator: Emulator, scope: Scope, account: Account, container: str, blob: str) -> None:
    """Create the parents of a blob, like a hierarchical namespace."""
    parts = blob.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        folder = "/".join(parts[:depth])
        if f"{container}/{folder}" not in account.folders:
            await emulator.blobs.put(
                scope,
                account,
                blob_target(container, folder),
                b"",
                {"x-ms-meta-hdi_isfolder": "true", "If-None-Match": "*"},
            )
            account.folders.add(f"{container}/{folder}")


async def authorize(scope: Scope, account: Account, request: Request) -> None:
    """Set the request's identity, or refuse it."""
    writes = request.method not in ("GET", "HEAD") and request.query.get("comp") != "userdelegationkey"
    authorization = request.headers.get("Authorization", "")
    if account.network != "Allow":
        raise storage_error(403, "AuthorizationFailure", NOT_AUTHORIZED)
    if "sig=" in request.query_string:
        request.identity = judge_sas(scope, account, request.query_string, writes)
    elif authorization.lower().startswith("bearer "):
        request.identity = entra.judge_storage(scope, account, entra.bearer(request.headers) or "")
        judge_role(scope, account, request.identity, writes)
    elif authorization.lower().startswith("sharedkey"):
        if not account.shared_key:
            raise key_refused()
    else:
        raise storage_error(
            401,
            "NoAuthenticationInformation",
            "Server failed to authenticate the request. Please refer to the information in the "
            "www-authenticate header.",
            WWW_Authenticate=entra.challenge(account),
        )


def key_refused() -> Exception:
    """Return the answer of an account that allows no shared keys."""
    return storage_error(
        403,
        "KeyBasedAuthenticationNotPermitted",
        "Key based authentication is not permitted on this storage account.",
    )


def judge_role(scope: Scope, account: Account, object_id: str, writes: bool) -> None:
    """Answer 403 unless the identity has a sufficient data role on the account."""
    identity = scope.identity(object_id)
    role = identity.roles.get(account.name) if identity else None
    if object_id == scope.workspace.principal:
        role = CONTRIBUTOR
    if role != CONTRIBUTOR and (role != READER or writes):
        raise storage_error(
            403,
            "AuthorizationPermissionMismatch",
            "This request is not authorized to perform this operation using this permission.",
        )


def judge_sas(scope: Scope, account: Account, query: str, writes: bool) -> str | None:
    """Return who signed a SAS (None for the account key). Azurite checks its signature and its own rights."""
    signature = signature_of(query)
    scope.seen_sas.add(signature)
    signer = re.search(r"(?:^|&)skoid=([^&]+)", query)
    if not signer and not account.shared_key:
        raise key_refused()
    start, end = (_moment(query, name) for name in ("st", "se"))
    now = time.time()
    if signature in scope.expired_sas or (end and end < now) or (start and start > now + TOLERANCE):
        shown = (email.utils.formatdate(one, usegmt=True) if one else "" for one in (start, end, now))
        raise storage_error(
            403,
            "AuthenticationFailed",
            "Server failed to authenticate the request. Make sure the value of Authorization "
            "header is formed "
            "correctly including the signature.",
            "Signature not valid in the specified time frame: "
            + " - ".join(
                f"{name} [{one}]" for name, one in zip(("Start", "Expiry", "Current"), shown, strict=True)
            ),
        )
    if not signer:
        return None
    judge_role(scope, account, signer[1], writes)
    return signer[1]


def _moment(query: str, name: str) -> float | None:
    found = re.search(rf"(?:^|&){name}=([^&]+)", query)
    if not found:
        return None
    moment = datetime.fromisoformat(unquote(found[1]))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def public_url(account: Account, container: str, blob: str) -> str:
    """Return the URL of a blob as clients know it."""
    return f"https://{blob_host(account.name)}{blob_target(container, blob)}"
