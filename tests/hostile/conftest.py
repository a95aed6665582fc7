"""The emulated Azure, and the program in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from azure_emulator.client import Azure
from azure_emulator.fixtures import azure, azure_emulator  # noqa: F401
from mirroring import Mirroring


@pytest.fixture
def mirroring(azure: Azure, tmp_path: Path) -> Mirroring:  # noqa: F811
    """Calls of the program in a scope of its own, in an empty folder."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    return Mirroring(azure, folder)
