"""The stub ``osmo``, and the emulated Azure that stores declared outputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from azure_emulator.fixtures import azure, azure_emulator  # noqa: F401
from builders.program import clean_environment
from osmo_world import OsmoWorld
from replay_calls import IMAGE, Replay


@pytest.fixture
def osmo(tmp_path: Path) -> OsmoWorld:
    """A separate control plane for this test."""
    return OsmoWorld(tmp_path)


@pytest.fixture
def call(osmo: OsmoWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replay:
    """Call the script in this process, in an empty folder, with the stub on PATH."""
    import replay
    import replay_follow

    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in os.environ:
        if name not in clean_environment():
            monkeypatch.delenv(name)
    for name, value in osmo.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AML_MIRROR_IMAGE", IMAGE)
    monkeypatch.setattr(replay_follow, "FIRST_POLL", 0.01)
    monkeypatch.setattr(replay_follow, "LONGEST_POLL", 0.1)
    return lambda *arguments: replay.main([*map(str, arguments)])
