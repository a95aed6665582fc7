"""Aligns cells in columns."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import combining, east_asian_width

from aml_mirror.support.progress import one_line

# The largest width of a column. Wider cells push the next cell to the right.
WIDEST = 60


def aligned(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Return one line per row, with its cells in columns two spaces apart.

    Args:
        rows: of equal length.
        right: the columns that are aligned to the right, like numbers.
    """
    plain = [[one_line(cell) for cell in row] for row in rows]
    widths = [min(WIDEST, max(map(_width, column))) for column in zip(*plain, strict=True)]
    return [
        "  ".join(
            _padding(cell, width) + cell if place in right else cell + _padding(cell, width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in plain
    ]


def _padding(cell: str, width: int) -> str:
    return " " * (width - _width(cell))


def _width(text: str) -> int:
    """Return the width of a text on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 1 + (east_asian_width(char) in "WF") for char in text)
