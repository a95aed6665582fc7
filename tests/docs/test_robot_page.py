"""The page "From a run to a robot": its commands run in order and print what the page shows.

``UPDATE_PAGES=1`` writes the outputs into the page.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from builders.evaluations import lerobot
from builders.program import Call
from builders.runs import huggingface_run

PAGE = Path(__file__).parents[2] / "entrypoint" / "robot.md"
_BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
# Time and user differ on every run and machine.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
_PERSON = re.compile(r"\S+@(?!production)\S+")
WRITTEN = 1_793_500_000  # seconds since the epoch; when the evaluations ended


def plain(text: str) -> list[str]:
    """The text without the parts that differ from run to run."""
    text = _PERSON.sub("lab@gate", _MOMENT.sub("2026-11-30T08:00:00+00:00", text))
    return [re.sub(r" +", " ", line).strip() for line in text.splitlines()]


def commands(page: str) -> list[str]:
    return [
        line[2:] for block in _BLOCK.findall(page) for line in block.splitlines() if line.startswith("$ ")
    ]


def outputs(page: str) -> list[str]:
    found = []
    for block in _BLOCK.findall(page):
        found += [part.partition("\n")[2] for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return found


@pytest.fixture
def printed(aml_mirror: Call, database: str, tmp_path: Path) -> list[str]:
    """What each command of the page prints."""
    page = PAGE.read_text()
    for at, (number, won, episodes) in enumerate(((7, 9, 10), (8, 95, 100))):
        huggingface_run(tmp_path / "runs" / f"act-{number}", steps=(20 + at,), points=20 + at)
        result = tmp_path / f"eval-{number}" / "eval_info.json"
        result.parent.mkdir()
        result.write_text(json.dumps(lerobot(won, episodes)))
        os.utime(result, (WRITTEN, WRITTEN))
    (gate,) = re.findall(r"```yaml\n# gate.yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "gate.yaml").write_text(gate)
    found = []
    for command in commands(page):
        words = shlex.split(command.removesuffix(" > /dev/null"))
        assert words.pop(0) == "aml-mirror"
        done = aml_mirror(*words, code=None, MLFLOW_TRACKING_URI=database)
        assert done.code in (0, 65), done.err
        errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
        shown = "" if command.endswith(" > /dev/null") else done.out
        found.append("".join([shown, *(f"{line}\n" for line in errors)]))
    return found


def test_each_command_prints_what_the_page_says(printed: list[str]) -> None:
    page = PAGE.read_text()
    if os.environ.get("UPDATE_PAGES"):
        texts = iter(zip(commands(page), printed, strict=True))

        def block(match: re.Match[str]) -> str:
            lines = [line for line in match[1].splitlines() if line.startswith("$ ")]
            parts = []
            for _ in lines:
                command, text = next(texts)
                parts.append(f"$ {command}\n" + _PERSON.sub("lab@gate", text))
            return "```console\n" + "\n".join(parts).rstrip("\n") + "\n```"

        PAGE.write_text(_BLOCK.sub(block, page))
        return
    stated = [plain(text.rstrip("\n")) for text in outputs(page)]
    assert stated == [plain(text) for text in printed]
