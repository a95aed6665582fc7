"""The word list of `make lint`: it finds words, it allows exceptions, and it finds nothing in the tree."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SPEC = importlib.util.spec_from_file_location("check_words", Path(__file__).with_name("check_words.py"))
assert SPEC and SPEC.loader
check_words = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(check_words)


def test_each_word_is_found_and_a_line_can_be_excepted() -> None:
    bad = "an earlier try mends it\nit prints a line a check\nLearnt nevertheless\n"
    found = check_words.findings("page.md", bad)
    assert [line.split(": write")[0] for line in found] == [
        "page.md:1: 'mends'",
        "page.md:1: 'earlier try'",
        "page.md:2: 'a line a'",
        "page.md:3: 'Learnt'",
        "page.md:3: 'nevertheless'",
    ]
    assert check_words.findings("page.md", "# an earlier try  (words: ok)\nwe try again\n") == []


def test_the_tree_has_none() -> None:
    assert check_words.main() == 0
