"""One port on loopback: an HTTPS proxy for the hosts of the emulated Azure, and plain HTTP for control.

A client connects, sends ``CONNECT host:443`` with the scope as user name, and continues with TLS to what it
believes is that host. Nothing has to be resolved. For unknown hosts the answer is 502, like from a proxy that
cannot resolve the name. aiohttp's low-level server reads the requests. It streams bodies both ways and gives
access to the connection itself, which faults need.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import logging
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from . import arm, container_registry, control, entra, faults, history, mlflow_front, registries, storage
from .blobs import Blobs, Pieces
from .names import ARM, AZUREML, LOGIN, REGISTRY_SUFFIX, account_of
from .state import Account, Scope
from .web import Refused, Reply, Request

LOG = logging.getLogger("azure_emulator")
HEAD_LIMIT = 64 * 1024


@dataclass
class Connection:
    """The client of a connection, and the host that it is for."""

    scope: str
    host: str
    client_port: int


@dataclass
class Emulator:
    """The whole emulator."""

    folder: Path
    blobs: Blobs
    mlflow_url: str
    mlflow: Any = None
    scopes: dict[str, Scope] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    port: int = 0
    # Requests that were answered but are still to be carried out. The loop itself keeps no task alive.
    later: list[asyncio.Task[None]] = field(default_factory=list)

    async def dispatch(self, request: Request) -> Reply:
        """Let the service of the request's host answer."""
        name = account_of(request.host)
        try:
            if name:
                return await storage.serve(self, self.accounts[name], request)
            if request.host == LOGIN:
                return await entra.serve(request)
            if request.host == ARM:
                return await arm.serve(self, request)
            if request.host.endswith(f".{REGISTRY_SUFFIX}"):
                return await container_registry.serve(request)
            if request.path.startswith(("/registrymanagement/", "/mferp/")):
                return await registries.serve(self, request)
            if request.path.startswith("/history/"):
                return await history.serve(self, request)
            if request.path.startswith("/artifact/"):
                return await history.serve_artifacts(self, request)
            return await mlflow_front.serve(self, request)
        except Refused as refused:
            return refused.reply

    def knows(self, host: str) -> bool:
        """Tell whether such a host exists."""
        known = host in (LOGIN, ARM, AZUREML) or host.endswith(f".{REGISTRY_SUFFIX}")
        return known or account_of(host) in self.accounts

    async def handle(self, connection: Connection, raw: web.BaseRequest) -> web.StreamResponse:
        """Handle one request: count it, apply faults, answer it, log it."""
        _acknowledge(raw)
        scope = self.scopes[connection.scope]
        target = raw.raw_path
        request = Request(scope, raw.method, connection.host, target, CIMultiDict(raw.headers), raw)
        entry: dict[str, Any] = {
            "number": len(scope.requests) + 1,
            "time": time.time(),
            "method": raw.method,
            "host": connection.host,
            "path": target,
            "agent": raw.headers.get("User-Agent", ""),
            "status": None,
            "bytes_in": 0,
            "bytes_out": 0,
            "identity": None,
            "faults": [],
        }
        scope.requests.append(entry)
        text = f"{raw.method} https://{connection.host}{target}"
        ports = (connection.client_port, self.port)
        spoiled = faults.Spoiled()
        reply: Reply | None = None
        try:
            early, done = await faults.interfere(scope, "before", text, ports, spoiled)
            entry["faults"] += done
            if spoiled.damaged:
                await request.damage()
            if early:
                reply = early
                if spoiled.late is not None:
                    await request.body()
                    self.later.append(asyncio.create_task(self._act(request, spoiled.late)))
                async for _ in request.pieces():
                    pass
            else:
                reply = await self.dispatch(request)
                late, done = await faults.interfere(scope, "after", text, ports, spoiled)
                entry["faults"] += done
                if late:
                    _discard(reply)
                    reply = late
            entry["status"] = reply.status
            return await _send(raw, reply, spoiled, entry)
        except faults.Dropped:
            entry["faults"].append("closed")
            if reply:
                _discard(reply)
            _abort(raw)
            return web.Response()
        except (ConnectionError, asyncio.IncompleteReadError):
            entry["faults"].append("client gone")
            if reply:
                _discard(reply)
            return web.Response()
        except Exception:
            LOG.exception("%s", text)
            return web.Response(status=500, text="the emulator failed, see its log")
        finally:
            entry["bytes_in"] = request.bytes_in
            entry["identity"] = request.identity
            entry["seconds"] = time.time() - entry["time"]

    async def _act(self, request: Request, seconds: float) -> None:
        """Carry out a request whose client already has its answer."""
        await asyncio.sleep(seconds)
        _discard(await self.dispatch(request))

    async def handle_plain(self, raw: web.BaseRequest) -> web.StreamResponse:
        """Handle a request without CONNECT: control, and access to MLflow."""
        try:
            reply = await control.serve(self, raw)
        except Exception as error:
            LOG.exception("%s %s", raw.method, raw.path)
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
        return await _send(raw, reply, faults.Spoiled(), {"bytes_out": 0})


def _discard(reply: Reply) -> None:
    if isinstance(reply.body, Pieces):
        reply.body.close()


def _abort(raw: web.BaseRequest) -> None:
    if raw.transport:
        raw.transport.abort()


async def _send(
    raw: web.BaseRequest, reply: Reply, spoiled: faults.Spoiled, entry: dict[str, Any]
) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.headers["Server"] = "Azure-Emulator"
    data = reply.body if isinstance(reply.body, bytes) else None
    length = len(data) if data is not None and reply.length is None else reply.length
    if raw.method == "HEAD" or reply.status in (204, 304):
        _discard(reply)
        data = b""
    if length is not None and reply.status not in (204, 304):
        response.content_length = max(0, length + spoiled.delta)
    if spoiled.cut and not length:
        _discard(reply)
        _abort(raw)
        return response
    await response.prepare(raw)
    # How much may be sent: half of it if it is cut, and no more than promised.
    left = length // 2 if spoiled.cut and length else length
    if left is not None:
        left = min(left, max(0, (length or 0) + spoiled.delta))
    async for piece in _pieces(data if data is not None else reply.body):
        part = piece if left is None else piece[:left]
        if left is not None:
            left -= len(part)
        if part:
            await response.write(part)
            entry["bytes_out"] += len(part)
        if left == 0 and len(part) < len(piece):
            break
    if spoiled.cut or spoiled.delta:
        _discard(reply)
        # First the written bytes are sent; then the connection ends, whatever was promised.
        if raw.transport:
            raw.transport.close() if spoiled.cut else None
        if spoiled.delta > 0 and raw.transport:
            raw.transport.close()
        return response
    await response.write_eof()
    return response


def _acknowledge(raw: web.BaseRequest) -> None:
    """Acknowledge the headers at once.

    Through a proxy, urllib3 sends the body only after that. Linux would wait 40 ms before acknowledging.
    """
    if hasattr(socket, "TCP_QUICKACK") and raw.transport:
        raw.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


async def _pieces(body: Any) -> Any:
    if isinstance(body, bytes):
        if body:
            yield body
        return
    async for piece in body:
        yield piece


class Handover(asyncio.Protocol):
    """Buffers what arrives in TLS until aiohttp's protocol is in place."""

    def __init__(self) -> None:
        self.early: list[bytes] = []
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.early.append(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True


class Front(asyncio.Protocol):
    """The first bytes of a connection: CONNECT, or a plain request."""

    def __init__(self, emulator: Emulator, context: ssl.SSLContext) -> None:
        self._emulator, self._context = emulator, context
        self._head = b""
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport
        self._head += data
        if len(self._head) > HEAD_LIMIT:
            self._transport.abort()
        elif b"\r\n\r\n" in self._head:
            if self._head.startswith(b"CONNECT "):
                self._transport.pause_reading()
                self._task = asyncio.ensure_future(self._connect())
            else:
                self._take_over(
                    self._transport, web.Server(self._emulator.handle_plain, access_log=None), [self._head]
                )

    @staticmethod
    def _take_over(transport: asyncio.Transport, server: web.Server, early: list[bytes]) -> None:
        protocol = server()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        for data in early:
            protocol.data_received(data)

    async def _connect(self) -> None:
        transport = self._transport
        assert transport
        head = self._head.decode("latin-1")
        host = head.split()[1].rpartition(":")[0].lower()
        found = re.search(r"^proxy-authorization: basic (\S+)", head, re.IGNORECASE | re.MULTILINE)
        name = base64.b64decode(found[1]).decode().partition(":")[0] if found else "main"
        scope = self._emulator.scopes.get(name)
        status = 407 if not scope else scope.proxy_status or (0 if self._emulator.knows(host) else 502)
        if status:
            if scope:
                # In the log, so a test can see which other hosts a client wanted to reach.
                scope.requests.append(
                    {
                        "number": len(scope.requests) + 1,
                        "time": time.time(),
                        "method": "CONNECT",
                        "host": host,
                    }
                    | {"path": "", "status": status, "bytes_in": 0, "bytes_out": 0, "identity": None}
                    | {"agent": "", "faults": []}
                )
            transport.write(f"HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\n\r\n".encode())
            transport.close()
            return
        port = transport.get_extra_info("peername")[1]
        transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        handover = Handover()
        try:
            secure = await asyncio.get_running_loop().start_tls(
                transport, handover, self._context, server_side=True
            )
        except (OSError, ssl.SSLError):
            # A client that does not trust the certificate disconnects here.
            transport.abort()
            return
        if secure is None or handover.lost:
            return
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] = functools.partial(
            self._emulator.handle, Connection(name, host, port)
        )
        self._take_over(secure, web.Server(answer, access_log=None), handover.early)


async def listen(emulator: Emulator, port: int) -> asyncio.Server:
    """Open the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(emulator.folder / "server.pem", emulator.folder / "server-key.pem")
    context.set_alpn_protocols(["http/1.1"])
    return await asyncio.get_running_loop().create_server(
        lambda: Front(emulator, context), "127.0.0.1", port, backlog=512
    )
