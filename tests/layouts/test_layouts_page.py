"""entrypoint/layouts.md: one row per layout, in the order in which they are tried."""

from __future__ import annotations

import re
from pathlib import Path

from aml_mirror.layouts.known_layouts import BUILT_IN
from builders.program import Call

PAGE = Path(__file__).parents[2] / "entrypoint" / "layouts.md"


def test_the_table_has_a_row_for_every_layout() -> None:
    rows = re.findall(r"^\| `([a-z0-9_]+)` \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == [layout.name for layout in BUILT_IN]
    for name, cells in rows:
        assert len(re.split(r"(?<!\\)\|", cells)) == 4, name


def test_every_layout_says_what_inference_loads() -> None:
    folder = PAGE.parent / "aml_mirror" / "layouts"
    for layout in BUILT_IN:
        if layout.name == "generic":
            continue
        module = folder / f"{layout.name}.py"
        text = (module if module.exists() else folder / layout.name / "layout.py").read_text()
        docstring = text.split('"""')[1]
        assert re.search(r"\bWhat inference loads: ", docstring), layout.name


def test_the_error_is_what_the_program_prints(aml_mirror: Call) -> None:
    run = Path(__file__).parents[1] / "data/cases/fasttd3-two-seeds/run"
    shown = re.findall(r"^```text\n(.*)\n```$", PAGE.read_text(), re.MULTILINE)
    assert [aml_mirror("plan", "--source", run, code=64).err.strip()] == shown
