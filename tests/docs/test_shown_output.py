"""The output blocks of the pages match what the program prints."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

from builders.program import Call

ROOT = Path(__file__).parents[2]


def test_the_recording_shows_what_the_program_prints(aml_mirror: Call, database: str, tmp_path: Path) -> None:
    """The recording (scripts/record_terminal.py) wraps lines, so the test compares words, not lines."""
    svg = (ROOT / "entrypoint" / "terminal.svg").read_text()
    rows = [html.unescape(text).replace("\xa0", " ") for text in re.findall(r"<text[^>]*>(.*?)</text>", svg)]
    shown = " ".join(" ".join(rows).split())
    run = tmp_path / "runs" / "pendulum-7"
    shutil.copytree(ROOT / "tests" / "data" / "runs" / "stable_baselines3", run)
    target = ("--tracking-uri", database)
    outputs = [
        aml_mirror("plan", "runs/pendulum-7", "--model-name", "pendulum", *target).out,
        aml_mirror("runs/pendulum-7", "--model-name", "pendulum", *target).err,
        aml_mirror("verify", "pendulum:1", *target).out,
    ]
    for output in outputs:
        for line in output.replace(str(tmp_path), "/lab").splitlines():
            if not line.startswith("{"):
                assert " ".join(line.split()) in shown, line
    for command in ("plan runs/pendulum-7 --model-name pendulum", "runs/pendulum-7 --model-name pendulum"):
        assert f"$ aml-mirror {command}" in shown
    assert "already mirrored: pendulum version 1" in shown
    # The picture loads nothing from the network.
    assert not re.search(r"url\((?!#)|href=|@import|@font-face", svg)


def test_the_choices_that_the_page_on_layouts_shows(aml_mirror: Call, tmp_path: Path) -> None:
    page = (ROOT / "entrypoint" / "layouts.md").read_text()
    (shown,) = re.findall(r"```text\n(error: .*?)\n```", page, re.DOTALL)
    (source,) = (ROOT / "tests" / "data" / "cases").glob("fasttd3-two-seeds/run")
    shutil.copytree(source, tmp_path / "run")
    done = aml_mirror("plan", tmp_path / "run", code=64)
    assert shown in done.err.splitlines()
