"""Print one SHA-256 over a file tree: ``docker export CONTAINER | python tree_digest.py``.

It covers everything that a program can see of each file except its times: name, kind, mode, owner, link
target, bytes. With ``--list FILE``, one line per file is written to FILE, for a diff of two trees that should
be equal.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tarfile
from pathlib import Path
from typing import BinaryIO

PIECE = 1 << 20  # bytes


def lines(stream: BinaryIO) -> list[str]:
    """One line per file of the tar archive, sorted by name.

    Raises ``tarfile.TarError`` if the archive is not complete.
    """
    found = []
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            digest = hashlib.sha256()
            if content := archive.extractfile(member) if member.isfile() else None:
                while piece := content.read(PIECE):
                    digest.update(piece)
            name = member.name.removeprefix("./")
            found.append(
                f"{name!r} {member.type.decode()} {member.mode:04o} {member.uid}:{member.gid} "
                f"{member.linkname!r} {digest.hexdigest()}"
            )
    return sorted(found)


def main() -> None:
    """Read the archive from stdin and print its digest."""
    parser = argparse.ArgumentParser(
        description="print one SHA-256 over the file tree on stdin, a tar archive"
    )
    parser.add_argument("--list", type=Path, help="write one line a file here")
    options = parser.parse_args()
    try:
        found = lines(sys.stdin.buffer)
    except tarfile.TarError as error:
        raise SystemExit(f"error: stdin is no whole tar archive: {error}") from None
    text = "".join(f"{line}\n" for line in found)
    if options.list:
        options.list.write_text(text)
    print(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}")


if __name__ == "__main__":
    main()
