"""Runs the clients, or the whole program, in this process and in the scope of the test."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aml_mirror.cli import program
from aml_mirror.storage import azure_cloud, azure_login
from azure_emulator.client import Azure


@pytest.fixture
def here(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """Set the scope's environment, and clear everything cached from an earlier one."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or "AZURE" in name]:
        if name != "AZURE_EMULATOR":
            monkeypatch.delenv(name)
    for name, value in azure.env().items():
        monkeypatch.setenv(name, value)
    azure_login.credential.cache_clear()
    azure_cloud._from_metadata.cache_clear()
    yield azure
    azure_login.credential.cache_clear()
    azure_cloud._from_metadata.cache_clear()


class InThisProcess:
    """Calls of the program in this process, so that a test can change a client at an exact request."""

    def __init__(self, azure: Azure, capfd: pytest.CaptureFixture[str]) -> None:
        self._azure, self._capfd = azure, capfd

    def __call__(self, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
        """Run the program to its end, and return the last JSON object on stdout."""
        self._capfd.readouterr()
        # As in Mirroring, a call waits until the previous ones are visible.
        self._azure.settle()
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            found = program.run([str(argument) for argument in arguments])
        finally:
            for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
                signal.signal(number, handler)
        out, err = self._capfd.readouterr()
        assert found == code, f"exit {found}\n{out}\n{err}"
        answer = json.loads(out.splitlines()[-1])
        assert isinstance(answer, dict)
        return answer


@pytest.fixture
def in_this_process(
    here: Azure, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> InThisProcess:
    """The program in this process, in an empty folder."""
    from azureml.mlflow._common._cloud import cloud

    # The plugin requests the clouds when it is loaded, which another test may have done in another scope.
    monkeypatch.setattr(cloud, "KNOWN_CLOUDS", cloud.get_known_clouds())
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return InThisProcess(here, capfd)
