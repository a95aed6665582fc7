"""``python tests/bench/blob_source.py``: a blob server that has files of one pattern and hands them out.

It answers what downloads need (List Blobs, Get Blob with ranges, Get Blob Properties), each request
``--delay`` seconds later than it could. Plain HTTP, and the addresses of Azurite, as :mod:`bench.blob_sink`.
The container ``files`` has ``--count`` blobs ``model/NNNN.bin`` of ``--size`` bytes. It prints its port and
the SHA-256 of a blob, and ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
import sys
import threading
from email.utils import formatdate

from aiohttp import web

_PIECE = 1 << 20
_PATTERN = bytes(range(256)) * (_PIECE // 256)


class Source:
    """All blobs have the same bytes."""

    def __init__(self, count: int, size: int, delay: float) -> None:
        self.count, self.size, self.delay = count, size, delay

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        await asyncio.sleep(self.delay)
        if request.query.get("comp") == "list":
            return web.Response(
                text=self._listing(request.query.get("prefix", "")), content_type="application/xml"
            )
        if not re.search(r"/files/model/\d{4}\.bin$", request.path):
            return web.Response(status=404, headers={"x-ms-error-code": "BlobNotFound"})
        asked = request.headers.get("x-ms-range") or request.headers.get("Range") or ""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        start = int(match[1]) if match else 0
        end = min(int(match[2]) + 1 if match and match[2] else self.size, self.size)
        headers = {
            "Content-Length": str(end - start), "ETag": '"0x1"', "Last-Modified": formatdate(0, usegmt=True),
            "x-ms-blob-type": "BlockBlob", "x-ms-version": "2021-12-02", "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream", "x-ms-creation-time": formatdate(0, usegmt=True),
        }  # fmt: skip
        if match:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{self.size}"
        response = web.StreamResponse(status=206 if match else 200, headers=headers)
        await response.prepare(request)
        if request.method != "HEAD":
            while start < end:
                at = start % _PIECE
                piece = _PATTERN[at : at + min(end - start, _PIECE - at)]
                await response.write(piece)
                start += len(piece)
        return response

    def _listing(self, prefix: str) -> str:
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
        return f'<?xml version="1.0"?>{found}'


def digest(size: int) -> str:
    """SHA-256 of a blob."""
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

    async def serve() -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", source.answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], digest(given.size), flush=True)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait() -> None:
            sys.stdin.read()
            loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=wait, daemon=True).start()
        await ended.wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
