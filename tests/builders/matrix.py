"""Tables of what a matrix of trouble came to, printed when the tests have ended.

A test notes each cell with :func:`note`; the notes travel with its report, also from another process of
pytest-xdist, and :func:`summary` prints one table a matrix: a row a stage, a column a kind of trouble, and in
each cell how often it came to what.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

_KEY = "matrix"
MOMENTS = ("before", "after")
WHOLE = os.environ.get("KILL") == "all"
# How many tests share the cells of a kill matrix, so that several workers have some.
PARTS = range(4 if WHOLE else 1)


@dataclass(frozen=True)
class Moment:
    """When a process is killed: at a request, from 1, ``before`` the server hears of it or ``after``."""

    number: int
    moment: str


def sample(requests: int, cells: int, part: int = 0) -> list[Moment]:
    """Cells of a kill matrix: with ``KILL=all`` those of a part, else so many, spread over all of them."""
    found = [Moment(number, moment) for number in range(1, requests + 1) for moment in MOMENTS]
    if WHOLE:
        return found[part :: len(PARTS)]
    if len(found) <= cells:
        return found
    # An odd distance goes through both moments.
    step = max(1, len(found) // cells) | 1
    return found[step // 2 :: step]


def note(request: pytest.FixtureRequest, matrix: str, row: str, column: str, outcome: str) -> None:
    """Note one cell."""
    request.node.user_properties.append((_KEY, (matrix, row, column, outcome)))


def summary(terminal: pytest.TerminalReporter) -> None:
    """Print the tables of all tests that have ended."""
    cells: dict[str, dict[str, dict[str, Counter[str]]]] = {}
    for reports in terminal.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()):
                if key == _KEY and getattr(report, "when", "") == "call":
                    matrix, row, column, outcome = value
                    rows = cells.setdefault(matrix, {})
                    rows.setdefault(row, {}).setdefault(column, Counter())[outcome] += 1
    for matrix, rows in sorted(cells.items()):
        _print(terminal, matrix, rows)


def _print(terminal: Any, matrix: str, rows: dict[str, dict[str, Counter[str]]]) -> None:
    columns = sorted({column for row in rows.values() for column in row})
    total = sum((counter for row in rows.values() for counter in row.values()), Counter[str]())
    terminal.section(f"{matrix}: {total.total()} cells, {len(rows)} stages")
    table = [["stage", *columns]]
    for row, found in sorted(rows.items()):
        table.append([row, *(_cell(found.get(column, Counter())) for column in columns)])
    table.append(["all", *(_cell(_sum(rows, column)) for column in columns)])
    widths = [max(len(line[at]) for line in table) for at in range(len(table[0]))]
    for line in table:
        terminal.write_line("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))
    terminal.write_line(", ".join(f"{outcome} {count}" for outcome, count in total.most_common()))


def _sum(rows: dict[str, dict[str, Counter[str]]], column: str) -> Counter[str]:
    return sum((row.get(column, Counter()) for row in rows.values()), Counter[str]())


def _cell(counter: Counter[str]) -> str:
    return ", ".join(
        f"{outcome} {count}" if count > 1 else outcome for outcome, count in counter.most_common()
    )
