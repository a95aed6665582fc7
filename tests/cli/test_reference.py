"""entrypoint/README.md: the reference matches the table of options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aml_mirror.cli.commands import COMMANDS
from aml_mirror.cli.reference import BEGIN, END, updated
from aml_mirror.core import errors
from aml_mirror.core.options import TABLE

PAGE = Path(__file__).parents[2] / "entrypoint" / "README.md"


def test_the_reference_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert updated(text) == text, "run: make reference"


def test_everything_is_in_it() -> None:
    text = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    for option in TABLE:
        assert f"`{option.flag}" in text or not option.flag
        assert all(f"`{name}`" in text for name in option.variables)
    for command in COMMANDS:
        assert f"| `aml-mirror {command.name}` |" in text
        assert all(example in text for example in command.examples)
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.MirrorError)
    }
    assert codes <= {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)}


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        updated("# A page")
