"""tests/osmo/README.md: checks the differences between OSMO's versions against the grammar and the stub."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import osmo_grammar as grammar
from osmo_stub import list_answer
from osmo_world import OsmoWorld

README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
PLAIN = "workflow:\n  name: w\n  tasks:\n    - {name: t, image: i, command: [c]}\n"


def rows(heading: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def taken(version: str, workflow: dict[str, Any] | None = None, **task: Any) -> bool:
    document = {"workflow": {"name": "w", "tasks": [{"name": "t", "image": "i", "command": ["c"], **task}]}}
    document["workflow"] |= workflow or {}
    try:
        grammar.check(document, version)
    except grammar.Refused:
        return False
    return True


@pytest.fixture
def submit(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Submit a workflow with the program of a version, under a policy that warns about a missing label."""

    def call(version: str, *flags: str) -> subprocess.CompletedProcess[str]:
        osmo = OsmoWorld(tmp_path / str(len(list(tmp_path.iterdir()))), version)
        with osmo.changed() as state:
            state["labels"] = [{"key": "team", "enforcement": "warn"}] if version == "6.4" else []
        (tmp_path / "w.yaml").write_text(PLAIN)
        return subprocess.run(
            ["osmo", "workflow", "submit", tmp_path / "w.yaml", "-t", "json", *flags],
            env=osmo.environment,
            capture_output=True,
            text=True,
        )

    return call


DIFFERENT = {row[0]: row[1:4] for row in rows("What differs between versions")}


def test_every_row_is_asked(submit: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    def answer(version: str) -> Any:
        return json.loads(submit(version).stdout)

    def listed(version: str) -> Any:
        state = {"version": version, "workflows": {"w-1": {"uuid": "u", "status": "RUNNING"}}}
        (entry,) = list_answer(state, {"all_users": True, "all_pools": True})["workflows"]
        return entry

    an_hour = {"timeout": {"exec_timeout": "PT1H"}}
    found: dict[str, Callable[[str], bool]] = {
        "`labels` of a workflow": lambda version: taken(version, {"labels": {"team": "arms"}}),
        "`submit --label K=V`": lambda version: submit(version, "--label", "a=b").returncode == 0,
        "`warnings` in the answer to `submit`": lambda version: "warnings" in answer(version),
        "`labels` of an entry in `workflow list`": lambda version: "labels" in listed(version),
        "timeouts as ISO 8601 (`PT1H`)": lambda version: taken(version, an_hour),
        "`dataset` inputs and outputs": lambda version: (
            taken(version, inputs=[{"dataset": {"name": "runs"}}])
            and taken(version, outputs=[{"dataset": {"name": "runs"}}])
        ),
    }
    assert {
        what: ["yes" if ask(version) else "no" for version in grammar.VERSIONS] for what, ask in found.items()
    } == DIFFERENT


def test_the_answers_of_the_client(submit: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    codes = {row[0]: int(row[1]) for row in rows("The client's answers")}
    done = submit("6.3", "--set-string", "nonsense")
    assert done.returncode == codes["a refused submission"]
    assert json.loads(done.stdout)["code"] == 400
    done = submit("6.3", "--label", "a=b")
    assert done.returncode == codes["an argument that the client does not know"]
    assert (done.stdout, "unrecognized arguments" in done.stderr) == ("", True)


def test_what_the_page_names_is_here() -> None:
    """Each file and each function in this folder that a row names."""
    for file, name in re.findall(r"`(osmo_\w+\.py)`(?:, `(\w+)`)?", README):
        text = Path(__file__).with_name(file).read_text(encoding="utf-8")
        assert not name or re.search(rf"^(?:def |class )?{name}\b", text, re.MULTILINE), (file, name)
