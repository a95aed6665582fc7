"""`make accept` is for real workspaces. Here it runs in the emulated one."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from azure_emulator.client import Azure
from mirroring import Mirroring
from this_process import InThisProcess, here, in_this_process  # noqa: F401 - fixtures

SCRIPTS = Path(__file__).parents[2] / "scripts"


class Accept:
    """Run the script in this process. Each aml-mirror that it starts is a fork that has loaded the
    clients.
    """

    def __init__(
        self, mirroring: Mirroring, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._mirroring, self._capfd, self._monkeypatch = mirroring, capfd, monkeypatch

    def __call__(self, code: int) -> str:
        with self._monkeypatch.context() as patch:
            patch.syspath_prepend(SCRIPTS)
            patch.setattr(sys, "argv", ["accept.py", str(self._mirroring.folder / "accept")])
            found = importlib.import_module("accept").main(self._mirroring.start)
        out, err = self._capfd.readouterr()
        assert found == code, out + err
        return out


@pytest.fixture
def accept(
    in_this_process: InThisProcess,  # noqa: F811
    mirroring: Mirroring,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Accept:
    return Accept(mirroring, capfd, monkeypatch)


def test_everything_is_tried_and_removed(azure: Azure, accept: Accept) -> None:
    azure.set_workspace(artifact_sas="key", changed_properties="accepted")
    out = accept(0)
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("| ")]
    said = {row[0]: row[1] for row in rows}
    assert said["mirror a run, and kill the mirror"] == "killed when its first file was there"
    assert said["mirror it: go on"].endswith("each of 400 points once")
    assert said["its log grows"] == "updated, each of 450 points once"
    assert said["repair, verify"].startswith("repaired and verified")
    assert said["rows sent twice"] == "a metric row that is sent twice is kept twice"
    assert "ACCEPTED" in said["model version"]
    assert said["artifacts by reference"].startswith("are accepted")
    assert said["remove what was made"] == "all removed"
    # Only the probe's findings about the workspace are left, and nothing reveals which workspace it was.
    assert list(azure.blobs("aml-mirror/")) == ["aml-mirror/workspace.json"]
    assert not any(azure.models().values())
    for secret in (azure.facts["subscription"], azure.facts["workspace"], azure.account):
        assert secret not in out


def test_a_step_that_fails_is_told_and_all_is_removed(azure: Azure, accept: Accept) -> None:
    azure.fault("status", match=r"PUT https://management.*/versions/", status=403, times=0, body="{}")
    out = accept(1)
    assert "| mirror it: go on | FAILED: exit code 77, not 0" in out
    assert list(azure.blobs("aml-mirror/")) == []


def test_without_a_workspace(mirroring: Mirroring) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPTS / "accept.py", mirroring.folder / "accept"],
        env=mirroring.environment(AZUREML_WORKSPACE_NAME=""),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 64
    assert done.stderr == "AZUREML_WORKSPACE_NAME not set\n"
