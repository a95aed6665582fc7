"""OSMO's REST API on the world of the stub program: the token exchange, the list, a workflow, its spec.

The answers are those of NVIDIA/OSMO, ``src/service/core`` (main of August 2026, 1da31e19e): see README.md.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import osmo_stub

TOKEN = "t0k3n-of-a-service-account-0123456789abcdef"
# Lifetime of the tokens that OSMO issues, in seconds (ACCESS_TOKEN_TIMEOUT in src/lib/utils/common.py).
LIFETIME = 300

State = Callable[[], AbstractContextManager[dict[str, Any]]]


class OsmoRest:
    """A running server. ``requests`` records the method and path of each request. ``fault`` may answer
    instead of the server.
    """

    def __init__(self, state: State) -> None:
        self.requests: list[str] = []
        self.state = state
        self.valid: set[str] = set()
        self.fault: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
        """Given method and path; the status and body to answer with, or None. It may sleep."""
        rest = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Otherwise a body waits 40 ms until the client acknowledges the headers.
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                rest.answer(self, "GET", b"")

            def do_POST(self) -> None:
                rest.answer(self, "POST", self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, method: str, body: bytes) -> None:
        """Answer one request."""
        self.requests.append(f"{method} {request.path}")
        place = urlsplit(request.path)
        try:
            status, text = self.fault(method, request.path) or self._answer(
                method, place.path, parse_qs(place.query), body, request.headers.get("Authorization", "")
            )
        except osmo_stub.Failure as failure:
            message = {"message": str(failure), "error_code": "USER", "workflow_id": None}
            status, text = failure.code or 400, json.dumps(message)
        data = text.encode()
        try:
            request.send_response(status)
            request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data)
        except OSError:
            pass  # The client was killed.

    def _answer(
        self, method: str, path: str, query: dict[str, list[str]], body: bytes, authorization: str
    ) -> tuple[int, str]:
        if (method, path) == ("POST", "/api/auth/jwt/access_token"):
            given = json.loads(body)["token"]
            if len(given) != len(TOKEN):
                raise osmo_stub.Failure(f"Access token has invalid length {len(given)}")
            if given != TOKEN:
                raise osmo_stub.Failure("Access Token is invalid")
            token = f"jwt-{len(self.valid)}"
            self.valid.add(token)
            return 200, json.dumps({"token": token, "expires_at": int(time.time()) + LIFETIME})
        if authorization.removeprefix("Bearer ") not in self.valid:
            # The gateway's own answer, which is not JSON.
            return 401, "Jwt is missing"
        with self.state() as state:
            if path == "/api/workflow":
                return 200, json.dumps(osmo_stub.list_answer(state, _asked(query)))
            if match := re.fullmatch(r"/api/workflow/([^/]+)(/spec)?", path):
                name = match[1]
                found = state["workflows"].get(name) or next(
                    (one for one in state["workflows"].values() if one["uuid"] == name), None
                )
                if found is None:
                    raise osmo_stub.Failure(f"Workflow {name} is not found.")
                if match[2]:
                    return 200, str(found["spec"])
                return 200, json.dumps(osmo_stub.query_answer(name, found, state.get("version")))
        return 404, json.dumps({"detail": "Not Found"})


def _asked(query: dict[str, list[str]]) -> dict[str, Any]:
    several = {key: query[key] for key in ("users", "pools", "statuses") if key in query}
    return {key: values[0] for key, values in query.items()} | several


@contextmanager
def osmo_rest(state: State) -> Iterator[OsmoRest]:
    """Run a server during the block."""
    rest = OsmoRest(state)
    try:
        yield rest
    finally:
        rest.stop()
