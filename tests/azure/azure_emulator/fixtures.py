"""Pytest fixtures: ``azure_emulator``, one for the whole session and all workers, and ``azure``, one scope
per test.

Register them with ``pytest_plugins = ["azure_emulator.fixtures"]``, with ``tests/azure`` on the path.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from .__main__ import down, up
from .client import Azure, Control


@pytest.fixture(scope="session")
def azure_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """The running emulator; AZURE_EMULATOR names one that was started by hand."""
    if running := os.environ.get("AZURE_EMULATOR"):
        yield Control(running)
        return
    base = tmp_path_factory.getbasetemp()
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    shared = base.parent if is_worker else base
    # A worker may end before the others.
    owner = os.getppid() if is_worker else os.getpid()
    folder, count = shared / "azure-emulator", shared / "azure-emulator.users"
    lock = FileLock(shared / "azure-emulator.lock")
    # The first worker that asks starts it, the last one to leave stops it.
    with lock:
        users = int(count.read_text()) if count.exists() else 0
        found = (
            json.loads((folder / "emulator.json").read_text())
            if users
            else up(folder, owner=owner, in_memory=True)
        )
        count.write_text(str(users + 1))
    yield Control(found["url"])
    with lock:
        users = int(count.read_text()) - 1
        count.write_text(str(users))
        if not users:
            down(folder)


@pytest.fixture
def azure(azure_emulator: Control, request: pytest.FixtureRequest) -> Iterator[Azure]:
    """A tenant, workspace, identity and storage account that no other test uses."""
    scope = azure_emulator.new_scope(f"t{uuid.uuid4().hex[:10]}")
    yield scope
    if path := os.environ.get("AZURE_EMULATOR_REQUESTS"):
        # To see what a test sent: one file per test.
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / f"{request.node.name[:80].replace('/', '_')}.json").write_text(
            json.dumps(scope.requests(), indent=1)
        )
    scope.call("DELETE")
