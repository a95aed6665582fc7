"""Tables of the results of a matrix of faults, printed after the tests.

A test records each cell with :func:`note`. The notes are part of its report, even from another process of
pytest-xdist. :func:`summary` prints one table per matrix: a row per stage, a column per kind of fault, and in
each cell how often each result occurred.
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
# The number of tests that share the cells of a kill matrix, so that several workers get some.
PARTS = range(4 if WHOLE else 1)


@dataclass(frozen=True)
class Moment:
    """When a process is killed: at the nth request, ``before`` the server receives it or ``after``."""

    number: int
    moment: str


def sample(requests: int, cells: int, part: int = 0) -> list[Moment]:
    """Return cells of a kill matrix: with ``KILL=all`` all of a part, else this many, spread evenly."""
    found = [Moment(number, moment) for number in range(1, requests + 1) for moment in MOMENTS]
    if WHOLE:
        return found[part :: len(PARTS)]
    if len(found) <= cells:
        return found
    # An odd distance covers both moments.
    step = max(1, len(found) // cells) | 1
    return found[step // 2 :: step]


def note(request: pytest.FixtureRequest, matrix: str, row: str, column: str, outcome: str) -> None:
    """Record one cell."""
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
