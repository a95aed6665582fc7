"""A control plane that answers over REST and through the stub program, and volumes with runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from osmo_rest import TOKEN, OsmoRest, osmo_rest
from osmo_world import OsmoWorld


@pytest.fixture
def osmo(tmp_path: Path) -> OsmoWorld:
    """A separate control plane for this test."""
    return OsmoWorld(tmp_path, "6.4")


@pytest.fixture
def rest(osmo: OsmoWorld) -> Iterator[OsmoRest]:
    """Its REST API."""
    with osmo_rest(osmo.changed) as server:
        yield server


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with the access token."""
    path = tmp_path / "osmo-token"
    path.write_text(TOKEN + "\n")
    return path
