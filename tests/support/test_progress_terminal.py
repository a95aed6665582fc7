"""What a terminal shows during the work: the current run, and a bar in binary units."""

from __future__ import annotations

import io
import re

from aml_mirror.support.columns import aligned
from aml_mirror.support.progress import Console


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_what_is_said_meanwhile_is_not_mixed_up_with_the_run_at_work() -> None:
    stream = Terminal()
    console = Console(stream)
    console.doing("1 of 2: a\x1b[2J" + "x" * 200)
    console.say("a line")
    console.doing("")
    first, second, last = stream.getvalue().split("\r\x1b[K")
    assert first.startswith("1 of 2: a\\x1b[2Jxxx") and len(first) == 79
    assert (second, last) == ("a line\n" + first, "")
    silent = io.StringIO()
    Console(silent).doing("1 of 2: a")
    assert silent.getvalue() == ""


def test_a_bar_names_the_run_and_counts_in_binary_units() -> None:
    stream = Terminal()
    console = Console(stream)
    console.doing("1 of 2: a")
    with console.stage("sending", 3 << 20) as advance:
        advance(3 << 20)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "1 of 2: a: sending" in shown
    assert "3.0/3.0 MiB" in shown and "MB" not in shown
    assert stream.getvalue().endswith("1 of 2: a")


def test_columns_are_aligned_for_wide_letters_too() -> None:
    rows = aligned([("run", "5", "x"), ("走る", "10", "y\x1b"), ("a" * 70, "1", "")], right=frozenset({1}))
    assert rows == [
        "run" + " " * 59 + " 5  x",
        "走る" + " " * 58 + "10  y\\x1b",
        "a" * 70 + "   1",
    ]
