"""How checkpoint bytes are sent: the two options, their limits and defaults. Loads no client."""

from __future__ import annotations

import re

from aml_mirror.core.errors import UsageError

MIB = 1 << 20
CONCURRENCY = 16
BLOCK_BYTES = 8 * MIB  # the size whose blocks are noted as a file is hashed
# The most of them where blocks are held in memory, since the file is itself a blob.
HELD_BLOCKS = 12
HELD_BLOCK_BYTES = 2 * MIB
MOST_SENDERS = 64
MOST_BLOCK_BYTES = 100 * MIB


def parse_concurrency(text: str) -> int:
    """Read ``--concurrency``: how many requests run at the same time.

    Raises:
        UsageError: not a whole number from 1 to ``MOST_SENDERS``.
    """
    if not re.fullmatch(r"\d{1,3}", text.strip()) or not 1 <= int(text) <= MOST_SENDERS:
        raise UsageError(
            f"--concurrency {text!r} is not a number from 1 to {MOST_SENDERS}",
            "for example: --concurrency 16",
        )
    return int(text)


def parse_block_size(text: str) -> int:
    """Read ``--block-size``: ``8MiB``, ``8M`` or a number of bytes.

    Raises:
        UsageError: not a size from 1 MiB to ``MOST_BLOCK_BYTES``.
    """
    match = re.fullmatch(r"(\d{1,12})\s*(k|ki|kib|m|mi|mib|b|)", text.strip().lower())
    size = int(match[1]) * {"k": 1 << 10, "m": MIB}.get(match[2][:1], 1) if match else 0
    if not MIB <= size <= MOST_BLOCK_BYTES:
        raise UsageError(
            f"--block-size {text!r} is not a size from 1MiB to {MOST_BLOCK_BYTES >> 20}MiB",
            "for example: --block-size 8MiB",
        )
    return size
