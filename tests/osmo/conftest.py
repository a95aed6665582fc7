"""The stub ``osmo``, and the emulated Azure that declared outputs lie in."""

from __future__ import annotations

from pathlib import Path

import pytest

from azure_emulator.fixtures import azure, azure_emulator  # noqa: F401
from osmo_world import OsmoWorld


@pytest.fixture
def osmo(tmp_path: Path) -> OsmoWorld:
    """A control plane of this test's own."""
    return OsmoWorld(tmp_path)
