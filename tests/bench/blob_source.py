"""``python tests/bench/blob_source.py``: a blob server with generated files to download.

It supports what downloads need (List Blobs, Get Blob with ranges, Get Blob Properties) and delays each answer
by ``--delay`` seconds. Like :mod:`bench.blob_sink`, it uses plain HTTP and Azurite's addresses. The container
``files`` has ``--count`` blobs ``model/NNNN.bin`` of ``--size`` bytes. The server prints its port and the
SHA-256 of a blob, and ends when its standard input is closed.

Each connection has a thread, and the kernel sends the bytes from a file in memory. So the bench measures the
client, not how fast the server's Python handles a gigabyte.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import socket
import socketserver
import sys
import threading
import time
from email.utils import formatdate
from http.client import responses
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

_PIECE = 32 << 20
_PATTERN = bytes(range(256)) * (_PIECE // 256)


class Source(socketserver.ThreadingTCPServer):
    """All blobs have the same bytes."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, count: int, size: int, delay: float) -> None:
        self.count, self.size, self.delay = count, size, delay
        self.file = os.memfd_create("pattern")
        os.write(self.file, _PATTERN)
        super().__init__(("127.0.0.1", 0), Connection)

    def listing(self, prefix: str) -> bytes:
        names = [f"model/{number:04d}.bin" for number in range(self.count)]
        date = formatdate(0, usegmt=True)
        rows = "".join(
            f"<Blob><Name>{name}</Name><Properties><Last-Modified>{date}</Last-Modified>"
            f"<Etag>0x1</Etag><Content-Length>{self.size}</Content-Length><BlobType>BlockBlob</BlobType>"
            "</Properties></Blob>"
            for name in names
            if name.startswith(prefix)
        )
        found = f"<EnumerationResults><Blobs>{rows}</Blobs><NextMarker/></EnumerationResults>"
        return f'<?xml version="1.0"?>{found}'.encode()


class Connection(socketserver.StreamRequestHandler):
    """Handle requests, one after the other."""

    server: Source
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        try:
            while line := self.rfile.readline().decode("latin-1"):
                method, target, _ = line.split(" ", 2)
                headers = {}
                while text := self.rfile.readline().decode("latin-1").strip():
                    name, _, value = text.partition(":")
                    headers[name.strip().lower()] = value.strip()
                time.sleep(self.server.delay)
                self.answer(method, urlsplit(target), headers)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def answer(self, method: str, address: SplitResult, headers: dict[str, str]) -> None:
        """Handle any request."""
        query = parse_qs(address.query)
        if query.get("comp") == ["list"]:
            body = self.server.listing(query.get("prefix", [""])[0])
            self.begin(200, {"Content-Type": "application/xml", "Content-Length": str(len(body))})
            self.wfile.write(body)
            return
        # azcopy encodes the slash in a blob's name.
        if not re.search(r"/files/model/\d{4}\.bin$", unquote(address.path)):
            self.begin(404, {"x-ms-error-code": "BlobNotFound", "Content-Length": "0"})
            return
        size = self.server.size
        asked = headers.get("x-ms-range") or headers.get("range") or ""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        start = int(match[1]) if match else 0
        end = min(int(match[2]) + 1 if match and match[2] else size, size)
        found = {
            "Content-Length": str(end - start), "ETag": '"0x1"', "Last-Modified": formatdate(0, usegmt=True),
            "x-ms-blob-type": "BlockBlob", "x-ms-version": "2021-12-02", "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream", "x-ms-creation-time": formatdate(0, usegmt=True),
        }  # fmt: skip
        if match:
            found["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self.begin(206 if match else 200, found)
        while method != "HEAD" and start < end:
            at = start % _PIECE
            start += os.sendfile(
                self.connection.fileno(), self.server.file, at, min(end - start, _PIECE - at)
            )

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """Send the status and the headers."""
        lines = [f"HTTP/1.1 {status} {responses[status]}", *(f"{key}: {headers[key]}" for key in headers)]
        self.wfile.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


def digest(size: int) -> str:
    """Return the SHA-256 of a blob."""
    found = hashlib.sha256()
    for start in range(0, size, _PIECE):
        found.update(_PATTERN[: min(_PIECE, size - start)])
    return found.hexdigest()


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    for name, kind in (("count", int), ("size", int), ("delay", float)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    given = parser.parse_args()
    source = Source(given.count, given.size, given.delay)
    threading.Thread(target=source.serve_forever, daemon=True).start()
    print(source.server_address[1], digest(given.size), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
