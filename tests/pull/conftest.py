"""The emulated Azure, for versions that are pulled from Azure ML."""

from __future__ import annotations

from pathlib import Path

import pytest

from azure_emulator.client import Azure
from azure_emulator.fixtures import azure, azure_emulator  # noqa: F401
from mirroring import Mirroring
from this_process import here  # noqa: F401


@pytest.fixture
def mirroring(azure: Azure, tmp_path: Path) -> Mirroring:  # noqa: F811
    """The program in this test's scope, in an empty folder."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    return Mirroring(azure, folder)
