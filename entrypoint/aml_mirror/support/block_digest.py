"""The digest by which a block of a file is recognised in an earlier version: BLAKE3, 32 bytes.

A block is taken from an earlier version because its digest is the same. So the digest has to be one for
which nobody can make two blocks. SHA-256 is another, and takes four times as long with the processor's SHA
extensions (1.1 against 4.9 GiB a second on one core), twelve times as long without (0.28 against 3.6).
Source: https://github.com/BLAKE3-team/BLAKE3-specs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blake3 import blake3

NAME = "blake3"


def block_hasher() -> blake3:
    """Return what takes the bytes of one block."""
    # Late: only large files are worth loading it.
    from blake3 import blake3

    return blake3()
