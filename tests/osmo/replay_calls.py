"""Calls of the script replay.py for its tests."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from osmo_world import OsmoWorld

SCRIPTS = Path(__file__).parents[2] / "scripts"
SCRIPT = SCRIPTS / "replay.py"
IMAGE = "registry.example/aml-mirror@sha256:" + "ab" * 32
sys.path.insert(0, str(SCRIPTS))

Replay = Callable[..., int]


def values_of(command: str | list[str]) -> dict[str, str]:
    """The values in a printed or recorded command."""
    words = command if isinstance(command, list) else shlex.split(command)
    return dict(word.partition("=")[::2] for word in words[words.index("--set-string") + 1 :])


def submitted(osmo: OsmoWorld) -> list[list[str]]:
    """Every call that submits a workflow."""
    return [call for call in osmo.calls if call[:2] == ["workflow", "submit"]]
