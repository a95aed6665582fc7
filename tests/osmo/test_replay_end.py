"""scripts/replay.py: its exit codes and its final output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from builders.program import PROGRAM, clean_environment
from builders.runs import huggingface_run
from osmo_world import OsmoWorld
from replay_calls import IMAGE, SCRIPT, Replay

# The end of a workflow.


@pytest.mark.parametrize(
    ("status", "exit_code", "code", "words"),
    [
        ("COMPLETED", 0, 0, ""),
        ("FAILED", 65, 65, ""),
        ("FAILED_CANCELED", None, 75, "FAILED_CANCELED"),
        ("FAILED", 2, 78, "no program aml-mirror"),
    ],
)
def test_the_exit_code_at_the_end(
    call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str],
    status: str, exit_code: int | None, code: int, words: str,
) -> None:  # fmt: skip
    """test_replay_rules.py tests what each end means."""
    task = {"name": "mirror", "group": "g", "status": status, "exit_code": exit_code, "task_uuid": "u"}
    with osmo.changed() as state:
        state["workflows"]["azureml-replay-5"] = {
            "uuid": "0" * 32, "status": status, "spec": "", "logs": [], "tasks": [task],
        }  # fmt: skip
    osmo.fault("workflow submit", raw='{"name": "azureml-replay-5"}\n')
    assert call("train-7", "--source", "/mnt/x", "--wait") == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "no receipt in the log" in err


def test_receipts_in_a_log(call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str]) -> None:
    """One receipt per version, each after a date and a task's name, among lines that only look like
    receipts.
    """
    first = '{"schema":"aml-mirror/receipt/v1","outcome":"mirrored","exit_code":0,"model_version":"1"}'
    second = first.replace('"1"', '"2"')
    lines = [
        "2026/11/24 10:00:00 [mirror][osmo] Downloading",
        "2026/11/24 10:00:01 [mirror] hashing: 5 %",
        f"2026/11/24 10:00:02 [mirror] {first}",
        f"2026/11/24 10:00:02 [mirror] said: {first}",
        f"2026/11/24 10:00:03 [train] {first}",
        "2026/11/24 10:00:03 [mirror] " + first[:40],
        f"2026/11/24 10:00:04 [mirror retry-1] {second}",
    ]
    task = {"name": "mirror", "group": "g", "status": "COMPLETED", "exit_code": 0, "task_uuid": "u"}
    with osmo.changed() as state:
        state["workflows"]["azureml-replay-5"] = {
            "uuid": "0" * 32, "status": "COMPLETED", "spec": "", "tasks": [task],
            "logs": [],
        }  # fmt: skip
    osmo.fault("workflow submit", raw='{"name": "azureml-replay-5"}\n')
    osmo.fault("workflow logs", raw="Workflow azureml-replay-5 has logs:\n" + "\n".join(lines) + "\n")
    assert call("train-7", "--source", "/mnt/x", "--wait") == 0
    assert capsys.readouterr().out.splitlines() == [first, second]


def test_a_log_that_osmo_cannot_read(
    call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    """OSMO 6.2 with a workload identity: the exit code comes from the query."""
    task = {"name": "mirror", "group": "g", "status": "FAILED", "exit_code": 65, "task_uuid": "u"}
    with osmo.changed() as state:
        state["workflows"]["azureml-replay-5"] = {
            "uuid": "0" * 32, "status": "FAILED", "spec": "", "logs": [], "tasks": [task],
        }  # fmt: skip
    osmo.fault("workflow submit", raw='{"name": "azureml-replay-5"}\n')
    message = "Status Code: 500\nHeader:\n  x: y\nBody:\nConnection string is either blank or malformed."
    osmo.fault("workflow logs", exit=10, code=500, message=message)
    assert call("train-7", "--source", "/mnt/x", "--wait") == 65
    assert "the receipt cannot be had: OSMO failed in `osmo workflow logs`" in capsys.readouterr().err


@pytest.fixture
def pods(osmo: OsmoWorld, mlflow_url: str) -> OsmoWorld:
    """Pods that contain the program and mirror into a real MLflow server."""
    with osmo.changed() as state:
        state["pod_path"] = os.pathsep.join((str(Path(PROGRAM).parent), os.environ["PATH"], str(osmo.bin)))
        state["pod_env"] = {"MLFLOW_TRACKING_URI": mlflow_url}
    return osmo


def test_from_the_command_to_the_version(
    pods: OsmoWorld, tmp_path: Path, model_name: str, client: Any
) -> None:
    """The script with only the standard library, together with the stub, the program and MLflow."""
    run = huggingface_run(tmp_path / "train-7")
    environment = clean_environment(**pods.environment, AML_MIRROR_IMAGE=IMAGE)
    command = [sys.executable, "-E", "-s", "-S", str(SCRIPT), "train-7", "--source", str(run)]
    done = subprocess.run(
        [*command, "--model-name", model_name, "--wait", "--", "--tag", "robot=ur5e"],
        env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    receipt = json.loads(done.stdout)
    assert (receipt["outcome"], receipt["run_id"]) == ("mirrored", "train-7")
    (version,) = client.search_model_versions(f"name = '{model_name}'")
    assert version.tags["robot"] == "ur5e"
    assert version.tags["osmo.replay_source"] == "train-7"


def test_the_mirrors_own_failure_comes_back(
    pods: OsmoWorld, tmp_path: Path, call: Replay, capsys: Any
) -> None:
    assert call("train-7", "--source", tmp_path, "--wait") == 64
    out, err = capsys.readouterr()
    receipt = json.loads(out)
    assert (receipt["outcome"], receipt["exit_code"]) == ("failed", 64)
    assert f"error: {receipt['error']}; {receipt['hint']}" in err


def test_ctrl_c_while_it_waits(osmo: OsmoWorld, tmp_path: Path) -> None:
    """The workflow continues, and the script says so. No process of ours is left running."""
    osmo.add("train-7", status="RUNNING")
    process = subprocess.Popen(
        [sys.executable, "-S", str(SCRIPT), "train-7", "--after"],
        env=clean_environment(**osmo.environment, AML_MIRROR_IMAGE=IMAGE),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A test suite that runs in the background ignores this signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        text=True,
    )
    assert process.stderr
    assert process.stderr.readline() == "train-7 is RUNNING\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert (process.returncode, out) == (130, "")
    assert err.startswith("stopped; ")
    assert "Traceback" not in err
