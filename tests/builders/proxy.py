"""A proxy in front of a real server: counts requests, and can interfere with any one of them.

Interference is a function that is called with the number of the request (from 1) and the moment: ``before``
the request reaches the server, or ``after`` the server has acted but before the client gets the answer. Its
result is sent to the client instead: ``None`` for the normal answer, an integer for that status, ``DROP`` to
close the connection without an answer, ``CUT`` to close it in the middle of the body, a :class:`Length` to
change the Content-Length, a :class:`Page` for that answer.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

DROP = "drop"
CUT = "cut"


@dataclass(frozen=True)
class Page:
    """An answer of the proxy itself."""

    status: int
    body: str = ""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/html; charset=utf-8"})


@dataclass(frozen=True)
class Length:
    """The answer with a Content-Length that is off by this many bytes; then the connection is closed."""

    delta: int


What = int | str | Page | Length | None
Interference = Callable[[int, str, str, str], What]


class Proxy:
    """A context manager. ``url`` is where it listens, ``seen`` the (method, path) of each request."""

    def __init__(self, target: str, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self.seen: list[tuple[str, str]] = []
        self.sent_bytes = 0
        self.interfere: Interference = lambda number, moment, method, path: None
        self.headers: dict[str, str] = {}
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Otherwise a body waits 40 ms until the client acknowledges the headers.
            disable_nagle_algorithm = True

            def handle_any(self) -> None:
                proxy._handle(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that was killed on purpose

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, client: BaseHTTPRequestHandler) -> None:
        if client.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(client.rfile.readline().strip() or b"0", 16):
                body += client.rfile.read(size)
                client.rfile.readline()
            client.rfile.readline()
        else:
            body = client.rfile.read(int(client.headers.get("Content-Length") or 0))
        with self._lock:
            self.seen.append((client.command, client.path))
            number = len(self.seen)
            self.sent_bytes += len(body)
        if self._answer(client, self.interfere(number, "before", client.command, client.path)):
            return
        upstream = http.client.HTTPConnection(*self._target, timeout=600)
        dropped = ("host", "transfer-encoding", "content-length", "connection")
        headers = {name: value for name, value in client.headers.items() if name.lower() not in dropped}
        upstream.request(client.command, client.path, body, {**headers, "Content-Length": str(len(body))})
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        what = self.interfere(number, "after", client.command, client.path)
        if what == CUT or isinstance(what, Length):
            delta = what.delta if isinstance(what, Length) else 0
            client.send_response(answer.status)
            client.send_header("Content-Length", str(len(data) + delta))
            client.end_headers()
            client.wfile.write(data[: len(data) // 2] if what == CUT else data)
            self._close(client)
            return
        if self._answer(client, what):
            return
        client.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "server", "date"):
                client.send_header(name, value)
        client.send_header("Content-Length", str(len(data)))
        client.end_headers()
        client.wfile.write(data)

    def _answer(self, client: BaseHTTPRequestHandler, what: What) -> bool:
        if what is None or what == CUT or isinstance(what, Length):
            return False
        if what == DROP:
            self._close(client)
            return True
        if isinstance(what, Page):
            client.send_response(what.status)
            body = what.body.encode()
            for name, value in {**what.headers, "Content-Length": str(len(body))}.items():
                client.send_header(name, value)
            client.end_headers()
            client.wfile.write(body)
            return True
        assert isinstance(what, int)
        data = b'{"error_code": "TEST", "message": "made by the proxy"}'
        client.send_response(what)
        for name, value in self.headers.items():
            client.send_header(name, value)
        client.send_header("Content-Type", "application/json")
        client.send_header("Content-Length", str(len(data)))
        client.end_headers()
        client.wfile.write(data)
        return True

    def _close(self, client: BaseHTTPRequestHandler) -> None:
        client.close_connection = True
        with suppress(OSError):
            client.wfile.flush()
        with suppress(OSError):
            client.connection.shutdown(socket.SHUT_RDWR)
