"""`make accept` is what a person runs in a real workspace: here it runs in the emulated one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from azure_emulator.client import Azure
from mirroring import Mirroring

SCRIPT = Path(__file__).parents[2] / "scripts" / "accept.py"


def accept(mirroring: Mirroring, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, mirroring.folder / "accept"],
        env=mirroring.environment(**environment),
        capture_output=True,
        text=True,
        timeout=840,
    )


def test_everything_is_tried_and_removed(azure: Azure, mirroring: Mirroring) -> None:
    azure.set_workspace(artifact_sas="key", changed_properties="accepted")
    done = accept(mirroring)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    said = {row[0]: row[1] for row in rows}
    assert said["mirror a run, and kill the mirror"] == "killed when its first file was there"
    assert said["mirror it: go on"].endswith("each of 400 points once")
    assert said["its log grows"] == "updated, each of 450 points once"
    assert said["repair, verify"].startswith("repaired and verified")
    assert said["rows sent twice"] == "a metric row that is sent twice is kept twice"
    assert "TAKEN" in said["model version"]
    assert said["artifacts by reference"].startswith("are taken")
    assert said["remove what was made"] == "all removed"
    # Nothing is left but what a probe found of the workspace, and nothing tells which one it was.
    assert list(azure.blobs("aml-mirror/")) == ["aml-mirror/workspace.json"]
    assert not any(azure.models().values())
    for secret in (azure.facts["subscription"], azure.facts["workspace"], azure.account):
        assert secret not in done.stdout


def test_a_step_that_fails_is_told_and_all_is_removed(azure: Azure, mirroring: Mirroring) -> None:
    azure.fault("status", match=r"PUT https://management.*/versions/", status=403, times=0, body="{}")
    done = accept(mirroring)
    assert done.returncode == 1
    assert "| mirror it: go on | FAILED: exit code 77, not 0" in done.stdout
    assert list(azure.blobs("aml-mirror/")) == []


def test_without_a_workspace(mirroring: Mirroring) -> None:
    done = accept(mirroring, AZUREML_WORKSPACE_NAME="")
    assert done.returncode == 64
    assert done.stderr == "AZUREML_WORKSPACE_NAME not set\n"
