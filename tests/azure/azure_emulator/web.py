"""A request and a reply, for every service of the emulator, and the formats of Azure's errors.

Sources: Learn "Common REST API error codes" and "Blob service error codes" for storage's XML and header, the
ARM RPC (azure-resource-manager-rpc, common-api-details) for ``{"error": {"code", "message"}}``, and
mlflow/mlflow#10694 and #11462 for the two bodies of Azure ML's MLflow service.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

from multidict import CIMultiDict

from .names import LOCATION

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

    from .state import Scope

CHUNK = 256 * 1024


@dataclass
class Request:
    """One request. Its body is read once, as a whole (``body``) or in pieces (``pieces``)."""

    scope: Scope
    method: str
    host: str
    target: str
    headers: Mapping[str, str]
    raw: BaseRequest | None = None
    identity: str | None = None
    bytes_in: int = 0
    kept: bytes | None = None

    @property
    def path(self) -> str:
        """The path as it was sent, still encoded."""
        return self.target.partition("?")[0]

    @property
    def query_string(self) -> str:
        """What follows the question mark, still encoded."""
        return self.target.partition("?")[2]

    @property
    def query(self) -> dict[str, str]:
        """The decoded parameters; a repeated one keeps its last value."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @property
    def decoded_path(self) -> str:
        """The path as text."""
        return unquote(self.path)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        if self.kept is not None:
            yield self.kept
            return
        if self.raw is None or not self.raw.body_exists:
            return
        async for piece in self.raw.content.iter_chunked(CHUNK):
            self.bytes_in += len(piece)
            yield piece

    async def body(self) -> bytes:
        """The whole body."""
        if self.kept is None:
            self.kept = b"".join([piece async for piece in self.pieces()])
        return self.kept

    async def damage(self) -> None:
        """Flip one bit in the middle of the body, as if it had arrived like that."""
        body = bytearray(await self.body())
        if body:
            body[len(body) // 2] ^= 1
        self.kept = bytes(body)

    async def json(self) -> Any:
        """Return the body as JSON; ``{}`` if there is none."""
        return json.loads(await self.body() or b"{}")


@dataclass
class Reply:
    """A service's answer. ``body`` is bytes, or pieces with the total ``length``."""

    status: int
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)
    body: bytes | AsyncIterator[bytes] = b""
    length: int | None = None


class Refused(Exception):
    """Raised anywhere in a service to answer at once."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def answer(value: object, status: int = 200, **headers: str) -> Reply:
    """Return a JSON answer."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(
        status,
        CIMultiDict({"Content-Type": "application/json; charset=utf-8", **named}),
        json.dumps(value).encode(),
    )


def arm_error(status: int, code: str, message: str, **headers: str) -> Refused:
    """Return an error of Azure Resource Manager, or of a provider behind it."""
    return Refused(answer({"error": {"code": code, "message": message}}, status, **headers))


# Recorded: the model service puts a generic message on top, and the reason into the details.
_GENERAL = {400: "The request is invalid.", 404: "The specified resource was not found."}


def ml_error(status: int, code: str, message: str, reason: str = "") -> Refused:
    """Return an error of Azure ML's management front end: ARM's format, and where it came from.

    Args:
        status, code: of the answer.
        message: the reason in words.
        reason: its code; recorded are ``ModelNotFound`` and ``ModelAssetPathNotFoundInStorage``.
    """
    origin = [
        {"type": "ComponentName", "info": {"value": "managementfrontend"}},
        {"type": "Environment", "info": {"value": LOCATION}},
    ]
    details = [{"code": reason or code, "message": message, "details": []}]
    general = _GENERAL.get(status, _GENERAL[400])
    error = {"code": code, "message": general, "details": details, "additionalInfo": origin}
    return Refused(answer({"error": error}, status))


def mlflow_error(status: int, error_code: str, message: str, code: str = "UserError") -> Refused:
    """Return an error of Azure ML's MLflow service: its own body, with MLflow's two keys beside it.

    Without a code it has the form for limits of a run: the message is only in the body.
    """
    if not code:
        body = {"error": {"code": "UserError", "message": message, "details": []}, "error_code": error_code}
        return Refused(answer(body, status))
    return Refused(
        answer(
            {
                "Error": {"Code": code, "Severity": None, "Message": message, "Details": []},
                "Correlation": {"operation": uuid.uuid4().hex, "request": uuid.uuid4().hex[:16]},
                "Environment": LOCATION,
                "Location": LOCATION,
                "Time": timestamp(),
                "ComponentName": "mlflow",
                "statusCode": status,
                "error_code": error_code,
                "message": message,
            },
            status,
        )
    )


def history_error(status: int, message: str, code: str = "UserError") -> Refused:
    """An error of the run-history services."""
    return Refused(
        answer(
            {
                "error": {"code": code, "message": message, "details": []},
                "correlation": {"operation": uuid.uuid4().hex, "request": uuid.uuid4().hex[:16]},
                "environment": LOCATION,
                "location": LOCATION,
                "time": timestamp(),
                "componentName": "run-history",
            },
            status,
        )
    )


def storage_error(status: int, code: str, message: str, detail: str = "", **headers: str) -> Refused:
    """An error of the storage service: XML, and the code in ``x-ms-error-code`` too."""
    number = str(uuid.uuid4())
    more = f"<AuthenticationErrorDetail>{escape(detail)}</AuthenticationErrorDetail>" if detail else ""
    text = (
        '\ufeff<?xml version="1.0" encoding="utf-8"?><Error>'
        f"<Code>{code}</Code><Message>{escape(message)}\nRequestId:{number}\nTime:{timestamp()}</Message>"
        f"{more}</Error>"
    )
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Refused(
        Reply(
            status,
            CIMultiDict(
                {
                    "Content-Type": "application/xml",
                    "x-ms-error-code": code,
                    "x-ms-request-id": number,
                    "x-ms-version": "2025-11-05",
                    **named,
                }
            ),
            text.encode(),
        )
    )


def timestamp(seconds: float | None = None) -> str:
    """Return a moment in the format of Azure's bodies; by default now."""
    moment = datetime.datetime.now(datetime.UTC)
    if seconds is not None:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
