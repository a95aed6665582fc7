"""``python tests/bench/blob_sink.py``: a blob server that accepts everything and stores only sizes.

It runs in a process of its own and supports what uploads need: Put Blob, Put Block, Put Block List, Get Block
List, Get Blob Properties, List Blobs, Create Container, and Copy Blob and Put Block From URL within the
account. It delays each answer by ``--delay`` seconds. So the bench measures the client, above all its
parallelism. Bytes are read and dropped. A CRC-64 that comes with a block is checked, an MD5 is not, and SAS
are ignored. Plain HTTP, because TLS in Python would be slower than the clients. The addresses have Azurite's
form, ``http://127.0.0.1:PORT/ACCOUNT/CONTAINER/NAME``. The server prints its port, and ends when its standard
input is closed.

``GET /__stats`` returns what was received, ``POST /__reset`` forgets it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import re
import sys
import threading
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import count
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from aiohttp import web
from awscrt.checksums import crc64nvme

_READ_BUFFER = 4 << 20
_VERSION = "2025-11-05"
_etags = count(1)


@dataclass
class Blob:
    """What the server remembers about a blob."""

    size: int
    blocks: list[tuple[str, int]]
    metadata: dict[str, str]
    etag: str
    content_md5: str | None


@dataclass
class Sink:
    """Everything that was received."""

    delay: float
    blobs: dict[str, Blob] = field(default_factory=dict)
    # Path -> blocks that are not committed.
    staged: dict[str, dict[str, int]] = field(default_factory=dict)
    requests: int = 0
    # Bytes of blocks that were copied from other blobs.
    taken: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Handle any request."""
        if request.path == "/__stats":
            return web.json_response(
                {
                    "requests": self.requests,
                    "taken": self.taken,
                    "blobs": {name: blob.size for name, blob in self.blobs.items()},
                }
            )
        if request.path == "/__reset":
            self.blobs.clear()
            self.staged.clear()
            self.requests = self.taken = 0
            return web.Response()
        self.requests += 1
        taken = await self._take(request)
        if self.delay:
            await asyncio.sleep(self.delay)
        return taken

    async def _take(self, request: web.Request) -> web.StreamResponse:
        query, path = request.query, request.path
        if query.get("restype") == "container":
            if query.get("comp") == "list":
                return self._list(path, query.get("prefix", ""))
            return _reply(201 if request.method == "PUT" else 200)
        comp = query.get("comp")
        if request.method == "PUT" and "x-ms-copy-source" in request.headers:
            return self._copy(path, request)
        if request.method == "PUT" and comp == "block":
            size, crc = await _drop(request)
            if request.headers.get("x-ms-content-crc64", crc) != crc:
                return _reply(400, **{"x-ms-error-code": "Crc64Mismatch"})
            self.staged.setdefault(path, {})[query["blockid"]] = size
            return _reply(201)
        if request.method == "PUT" and comp == "blocklist":
            return self._commit(path, (await request.read()).decode(), request)
        if request.method == "PUT" and comp is None:
            size, _ = await _drop(request)
            self.blobs[path] = _blob(size, [], request)
            return _reply(201, ETag=self.blobs[path].etag)
        if request.method == "GET" and comp == "blocklist":
            return self._block_list(path, query.get("blocklisttype", "committed"))
        blob = self.blobs.get(path)
        if blob is None:
            return _reply(404, **{"x-ms-error-code": "BlobNotFound"})
        if request.method == "HEAD":
            return _properties(blob)
        if request.method == "DELETE":
            del self.blobs[path]
            return _reply(202)
        return _reply(501)

    def _commit(self, path: str, text: str, request: web.Request) -> web.StreamResponse:
        before = self.blobs.get(path)
        staged = {**dict(before.blocks if before else ()), **self.staged.pop(path, {})}
        names = re.findall(r"<(?:Latest|Uncommitted|Committed)>([^<]*)</", text)
        if missing := [name for name in names if name not in staged]:
            return _reply(400, **{"x-ms-error-code": "InvalidBlockList", "missing": missing[0]})
        blocks = [(name, staged[name]) for name in names]
        self.blobs[path] = _blob(sum(size for _, size in blocks), blocks, request)
        return _reply(201, ETag=self.blobs[path].etag)

    def _copy(self, path: str, request: web.Request) -> web.StreamResponse:
        """Handle Copy Blob (which finishes at once) and Put Block From URL, with a source in the same
        account.
        """
        source = self.blobs.get(unquote(urlsplit(request.headers["x-ms-copy-source"]).path))
        if source is None:
            return _reply(404, **{"x-ms-error-code": "CannotVerifyCopySource"})
        if request.headers.get("x-ms-source-if-match", source.etag) != source.etag:
            return _reply(412, **{"x-ms-error-code": "SourceConditionNotMet"})
        if request.query.get("comp") == "block":
            first, last = request.headers["x-ms-source-range"].removeprefix("bytes=").split("-")
            self.staged.setdefault(path, {})[request.query["blockid"]] = int(last) + 1 - int(first)
            self.taken += int(last) + 1 - int(first)
            return _reply(201)
        self.blobs[path] = _blob(source.size, source.blocks, request)
        return _reply(202, ETag=self.blobs[path].etag, **{"x-ms-copy-id": "0", "x-ms-copy-status": "success"})

    def _block_list(self, path: str, which: str) -> web.StreamResponse:
        blob, staged = self.blobs.get(path), self.staged.get(path)
        if blob is None and staged is None:
            return _reply(404, **{"x-ms-error-code": "BlobNotFound"})
        parts = []
        for kind, blocks in (
            ("Committed", blob.blocks if blob else []),
            ("Uncommitted", list((staged or {}).items())),
        ):
            if which in (kind.lower(), "all"):
                inner = "".join(
                    f"<Block><Name>{name}</Name><Size>{size}</Size></Block>" for name, size in blocks
                )
                parts.append(f"<{kind}Blocks>{inner}</{kind}Blocks>")
        return _xml(f"<BlockList>{''.join(parts)}</BlockList>")

    def _list(self, container: str, prefix: str) -> web.StreamResponse:
        start = container.rstrip("/") + "/"
        items = []
        for path, blob in sorted(self.blobs.items()):
            name = path.removeprefix(start)
            if path.startswith(start) and name.startswith(prefix):
                metadata = "".join(f"<{key}>{escape(text)}</{key}>" for key, text in blob.metadata.items())
                md5 = f"<Content-MD5>{blob.content_md5}</Content-MD5>" if blob.content_md5 else ""
                items.append(
                    f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{_now()}</Last-Modified>"
                    f"<Etag>{escape(blob.etag)}</Etag><Content-Length>{blob.size}</Content-Length>{md5}"
                    f"<BlobType>BlockBlob</BlobType></Properties><Metadata>{metadata}</Metadata></Blob>"
                )
        return _xml(f"<EnumerationResults><Blobs>{''.join(items)}</Blobs><NextMarker/></EnumerationResults>")


async def _drop(request: web.Request) -> tuple[int, str]:
    """Read the body; return its size and, if the request has a checksum, the body's checksum."""
    size = crc = 0
    checked = "x-ms-content-crc64" in request.headers
    while chunk := await request.content.readany():
        size += len(chunk)
        if checked:
            crc = crc64nvme(chunk, crc)
    return size, base64.b64encode(crc.to_bytes(8, "little")).decode()


def _blob(size: int, blocks: list[tuple[str, int]], request: web.Request) -> Blob:
    metadata = {
        name[len("x-ms-meta-") :]: value
        for name, value in request.headers.items()
        if name.lower().startswith("x-ms-meta-")
    }
    return Blob(size, blocks, metadata, f'"0x{next(_etags):X}"', request.headers.get("x-ms-blob-content-md5"))


def _properties(blob: Blob) -> web.StreamResponse:
    found = _reply(200, ETag=blob.etag, **{"x-ms-blob-type": "BlockBlob", "Content-Length": str(blob.size)})
    for name, text in blob.metadata.items():
        found.headers[f"x-ms-meta-{name}"] = text
    if blob.content_md5:
        found.headers["Content-MD5"] = blob.content_md5
    return found


def _reply(status: int, **headers: str) -> web.Response:
    common = {
        "x-ms-version": _VERSION,
        "x-ms-request-id": "0",
        "x-ms-request-server-encrypted": "true",
        "Last-Modified": _now(),
    }
    return web.Response(status=status, headers={**common, **headers})


def _xml(text: str) -> web.Response:
    found = _reply(200)
    found.content_type = "application/xml"
    found.body = ('<?xml version="1.0" encoding="utf-8"?>' + text).encode()
    return found


def _now() -> str:
    return formatdate(usegmt=True)


async def _serve(delay: float) -> None:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", Sink(delay).answer)
    runner = web.AppRunner(app, access_log=None, read_bufsize=_READ_BUFFER)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=wait, daemon=True).start()
    await over.wait()
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.03, help="seconds")
    asyncio.run(_serve(parser.parse_args().delay))


if __name__ == "__main__":
    main()
