"""The Data Lake endpoint of a storage account (``abfss://``), which Azurite does not have.

It implements what Microsoft's client sends for MLflow: create, append, flush, list, read and delete of paths
(Learn, "Path - Create", "Path - Update", "Path - List", "Get Blob"). As documented, to list a folder that
does not exist is an error.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from azure_emulator.certificates import write_certificates

FILE_SYSTEM = "container"
# A signature that every request must have: without one, the service does not answer.
SIGNATURE = "sv=2026-02-06&sig=c2lnbmVk"


@dataclass
class DataLake:
    """The files by path, the root for MLflow, and the variables that make its client use it."""

    files: dict[str, bytes] = field(default_factory=dict)
    pending: dict[str, bytes] = field(default_factory=dict)
    root: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    is_down: bool = False
    asked: int = 0

    def listed(self, folder: str) -> list[dict[str, object]] | None:
        """The entries directly in a folder; None if there is no such folder."""
        prefix = f"{folder}/" if folder else ""
        below = [path for path in self.files if path.startswith(prefix)]
        if folder in self.files:
            # A file is listed as its own entry: MLflow's repository expects that.
            below, prefix = [folder], folder[: len(folder) - len(folder.rpartition("/")[2])]
        if folder and not below:
            return None
        names: dict[str, dict[str, object]] = {}
        for path in below:
            first, _, rest = path.removeprefix(prefix).partition("/")
            more = {"isDirectory": "true"} if rest else {"contentLength": str(len(self.files[path]))}
            names[first] = {"name": prefix + first, "lastModified": formatdate(usegmt=True), **more}
        return list(names.values())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    lake: DataLake

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        system, _, path = unquote(parts.path).lstrip("/").partition("/")
        self.lake.asked += 1
        if self.lake.is_down:
            self.refuse(503, "ServerBusy")
        elif "sig" not in query:
            self.refuse(401, "NoAuthenticationInformation")
        elif system != FILE_SYSTEM:
            self.refuse(404, "FilesystemNotFound")
        elif query.get("resource") == "filesystem":
            self.list(query.get("directory", ""))
        elif self.command == "PUT" and query.get("resource") == "file":
            self.lake.files[path] = self.lake.pending[path] = b""
            self.answer(201)
        elif self.command == "PATCH":
            self.update(path, query, body)
        elif path not in self.lake.files:
            self.refuse(404, "PathNotFound")
        elif self.command == "DELETE":
            del self.lake.files[path]
            self.answer(200)
        else:
            self.read(path)

    do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = handle_any

    def list(self, folder: str) -> None:
        found = self.lake.listed(folder.strip("/"))
        if found is None:
            self.refuse(404, "PathNotFound")
        else:
            self.answer(200, json.dumps({"paths": found}).encode(), {"Content-Type": "application/json"})

    def update(self, path: str, query: dict[str, str], body: bytes) -> None:
        written, position = self.lake.pending.get(path), int(query["position"])
        if written is None:
            self.refuse(404, "PathNotFound")
        elif len(written) != position:
            self.refuse(400, "InvalidFlushPosition")
        elif query["action"] == "append":
            self.lake.pending[path] = written + body
            self.answer(202)
        else:
            self.lake.files[path] = written
            self.answer(200)

    def read(self, path: str) -> None:
        data = self.lake.files[path]
        wanted = self.headers.get("x-ms-range") or self.headers.get("Range") or ""
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        if not wanted:
            self.answer(200, data)
        elif int(first) >= len(data):
            self.refuse(416, "InvalidRange")
        else:
            part = data[int(first) : int(last or len(data)) + 1]
            end = int(first) + len(part) - 1
            self.answer(206, part, {"Content-Range": f"bytes {first}-{end}/{len(data)}"})

    def refuse(self, status: int, code: str) -> None:
        said = json.dumps({"error": {"code": code, "message": f"{code}."}}).encode()
        self.answer(status, said, {"x-ms-error-code": code, "Content-Type": "application/json"})

    def answer(self, status: int, data: bytes = b"", more: dict[str, str] | None = None) -> None:
        own = {"ETag": '"0x1"', "Last-Modified": formatdate(usegmt=True), "Content-Length": str(len(data))}
        self.send_response(status)
        for name, value in {**own, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def data_lake(folder: Path) -> Iterator[DataLake]:
    """Run the endpoint, with a file system ``container``. ``folder`` is for its certificates."""
    write_certificates(folder)
    lake = DataLake()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"lake": lake}))
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    # MLflow takes the part before the first dot for the account's name.
    lake.root = f"abfss://{FILE_SYSTEM}@127.0.0.1:{server.server_address[1]}"
    lake.variables = {"AZURE_STORAGE_SAS_TOKEN": SIGNATURE, "REQUESTS_CA_BUNDLE": str(folder / "ca.pem")}
    try:
        yield lake
    finally:
        server.shutdown()
        server.server_close()
