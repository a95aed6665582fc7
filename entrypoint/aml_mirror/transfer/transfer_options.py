"""How checkpoint bytes are sent: limits and defaults. Loads no client."""

from __future__ import annotations

from aml_mirror.core.option_values import MIB
from aml_mirror.core.options import BLOCK_BYTES, CONCURRENCY

__all__ = ["BLOCK_BYTES", "CONCURRENCY", "HELD_BLOCKS", "HELD_BLOCK_BYTES", "MIB"]

# The largest number if blocks are held in memory, because the file is itself a blob.
HELD_BLOCKS = 12
HELD_BLOCK_BYTES = 2 * MIB
