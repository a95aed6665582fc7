"""Progress: lines while a single call takes long, a bar on a terminal, and no secret in either."""

from __future__ import annotations

import io
import time

import pytest

from aml_mirror.support import progress
from aml_mirror.support.progress import Console, amount


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_line_is_logged_while_one_call_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.05)
    stream = io.StringIO()
    with Console(stream).stage("checkpoint", 4096) as advance:
        advance(1024)
        deadline = time.monotonic() + 600
        while "25 %" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "checkpoint: 1.0 KiB of 4.0 KiB (25 %)" in stream.getvalue().splitlines()[-1]


def test_nothing_is_logged_when_it_is_quick() -> None:
    stream = io.StringIO()
    with Console(stream).stage("hashing", 10) as advance:
        advance(10)
    assert stream.getvalue() == ""


def test_a_bar_on_a_terminal() -> None:
    stream = Terminal()
    with Console(stream).stage("hashing", 10, "points") as advance:
        advance(10)
    assert "hashing" in stream.getvalue()


def test_secrets_are_masked() -> None:
    stream = io.StringIO()
    Console(stream).warn("https://acct.blob.example/c?sv=1&sig=planted")
    assert stream.getvalue() == "warning: https://acct.blob.example/c?sv=1&sig=***\n"


@pytest.mark.parametrize(
    ("count", "unit", "words"),
    [(0, "B", "0 B"), (1536, "B", "1.5 KiB"), (3 << 40, "B", "3.0 TiB"), (12345, "points", "12,345 points")],
)
def test_amounts(count: int, unit: str, words: str) -> None:
    assert amount(count, unit) == words
