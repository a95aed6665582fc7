"""scripts/replay.py: what it refuses, what it submits, and what it ends with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders.program import PROGRAM, clean_environment
from builders.runs import huggingface_run
from osmo_world import OsmoWorld

SCRIPTS = Path(__file__).parents[2] / "scripts"
SCRIPT = SCRIPTS / "replay.py"
IMAGE = "registry.example/aml-mirror@sha256:" + "ab" * 32
sys.path.insert(0, str(SCRIPTS))

import replay  # noqa: E402
import replay_follow  # noqa: E402

Replay = Callable[..., int]


@pytest.fixture
def call(osmo: OsmoWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replay:
    """Call the script in this process, in an empty folder, with the stub on PATH."""
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


def values_of(command: str) -> dict[str, str]:
    """The values in a printed or recorded command."""
    import shlex

    words = command if isinstance(command, list) else shlex.split(command)
    return dict(word.partition("=")[::2] for word in words[words.index("--set-string") + 1 :])


def submitted(osmo: OsmoWorld) -> list[list[str]]:
    return [call for call in osmo.calls if call[:2] == ["workflow", "submit"]]


# What is submitted.


def test_a_run_is_submitted(call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str]) -> None:
    osmo.add("train-7")
    assert call("train-7", "--model-name", "0017", "--pool", "default", "--platform", "cpu") == 0
    out, err = capsys.readouterr()
    assert out == "azureml-replay-8\n"
    assert "osmo workflow logs azureml-replay-8" in err
    (command,) = submitted(osmo)
    assert command[3:5] == ["--pool", "default"]
    assert values_of(command) == {
        "run_id": "train-7",
        "model_name": "0017",
        "platform": "cpu",
        "image": IMAGE,
    }
    (task,) = osmo.state["workflows"]["azureml-replay-8"]["tasks"]
    assert "--model-name=0017" in task["run"]["command"]


def test_a_dry_run_submits_nothing(call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str]) -> None:
    odd = "it's a model"
    arguments = ["0017", "--source", "azure://acct/runs/0017", "--model-name", odd, "--checkpoint", "0200"]
    assert call(*arguments, "--dry-run", "--", "--tag", "robot=ur5e") == 0
    out, _ = capsys.readouterr()
    *notes, command = out.splitlines()
    assert osmo.calls == []
    assert f"# image = {IMAGE}  (AML_MIRROR_IMAGE)" in notes
    assert "# run_id = 0017  (RUN_ID)" in notes
    assert values_of(command) == {
        "run_id": "0017",
        "source": "azure://acct/runs/0017",
        "checkpoint": "0200",
        "model_name": odd,
        "image": IMAGE,
        "flags": "--tag robot=ur5e",
    }
    # The command is the very one: a shell that runs it submits the same.
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert json.loads(done.stdout)["name"] == "azureml-replay-1", done.stdout + done.stderr
    (task,) = osmo.state["workflows"]["azureml-replay-1"]["tasks"]
    words = task["run"]["command"]
    assert f"--model-name={odd}" in words
    assert words[-2:] == ["--tag", "robot=ur5e"]


def test_a_dotenv_of_a_run_says_neither_workspace_nor_image(
    call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    osmo.add("train-7")
    run = huggingface_run(Path("run"), steps=(10,), points=3)
    for place in (run, run / "logs"):
        place.mkdir(exist_ok=True)
        (place / ".env").write_text("AML_MIRROR_IMAGE=evil.example/x@sha256:" + "0" * 63 + "1\n")
        with monkeypatch.context() as inside:
            inside.chdir(place)
            inside.delenv("AML_MIRROR_IMAGE")
            assert call("train-7", "--model-name", "m") == 78
        assert f"{place.resolve() / '.env'} lies in the run" in capsys.readouterr().err
    assert submitted(osmo) == []


@pytest.mark.parametrize(
    ("content", "line"), [("A=1\n=x\n", 2), ("\n# a\nB='open\n", 3), ("A='x\ny'\nB=1\n? C\n", 4)]
)
def test_a_dotenv_line_that_is_wrong_is_named(
    call: Replay, capsys: pytest.CaptureFixture[str], content: str, line: int
) -> None:
    Path(".env").write_text(content)
    assert call("train-7", "--dry-run", "--model-name", "m") == 78
    assert f".env, line {line}: not NAME=value" in capsys.readouterr().err


def test_where_values_come_from(
    call: Replay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag, the environment, .env; the workspace only where it is named wholly."""

    def printed(*arguments: str) -> dict[str, str]:
        assert call("train-7", "--dry-run", *arguments) == 0
        return values_of(capsys.readouterr().out.splitlines()[-1])

    assert "flags" not in printed()
    Path(".env").write_text(
        "# coordinates\nexport AZURE_SUBSCRIPTION_ID='sub-1'\nAZUREML_RESOURCE_GROUP = \"rg-1\" # why\n"
        "AZUREML_MODEL_NAME=from-file  # x\nAML_MIRROR_IMAGE=other:1\nEMPTY=\nnonsense\n"
    )
    found = printed()
    assert (found["model_name"], found["image"]) == ("from-file", IMAGE)
    assert "flags" not in found, "two of three are none"
    with Path(".env").open("a") as file:
        file.write("AZUREML_WORKSPACE_NAME=ws-1\n")
    flags = "--subscription-id=sub-1 --resource-group=rg-1 --workspace-name=ws-1"
    assert printed()["flags"] == flags
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "sub-2")
    assert printed()["flags"] == flags, "one variable for something else is no workspace"
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", "rg-2")
    monkeypatch.setenv("AZUREML_WORKSPACE_NAME", "ws-2")
    monkeypatch.setenv("AZUREML_MODEL_NAME", "from-environment")
    found = printed()
    assert found["flags"] == "--subscription-id=sub-2 --resource-group=rg-2 --workspace-name=ws-2"
    assert found["model_name"] == "from-environment"
    found = printed("--model-name", "from-flag", "--", "--workspace-name", "ws-3")
    assert found["model_name"] == "from-flag"
    assert found["flags"] == "--workspace-name ws-3"


def test_the_workspace_from_terraform(
    call: Replay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real terraform, on an output as the module has it."""
    folder = tmp_path / "deployment"
    folder.mkdir()
    assert call("train-7", "--terraform", folder, "--dry-run") == 78
    assert "has no output azureml_env" in capsys.readouterr().err
    state: dict[str, Any] = {
        "version": 4,
        "terraform_version": "1.9.0",
        "serial": 1,
        "lineage": "x",
        "resources": [],
    }
    coordinates = {
        "AZURE_SUBSCRIPTION_ID": "sub-9",
        "AZURE_RESOURCE_GROUP": "rg-9",
        "AZUREML_WORKSPACE_NAME": "ws-9",
    }
    for value, code in ((coordinates, 0), ({}, 78)):
        kind = ["object", dict.fromkeys(value, "string")]
        state["outputs"] = {"azureml_env": {"value": value, "type": kind}}
        (folder / "terraform.tfstate").write_text(json.dumps(state))
        assert call("train-7", "--terraform", folder, "--dry-run") == code
        out, err = capsys.readouterr()
        if code:
            assert "the mirror is off" in err
        else:
            flags = "--subscription-id=sub-9 --resource-group=rg-9 --workspace-name=ws-9"
            assert values_of(out.splitlines()[-1])["flags"] == flags
            assert "the workspace from terraform in" in out
    assert call("train-7", "--terraform", tmp_path / "nowhere", "--dry-run") == 78
    assert "is no folder" in capsys.readouterr().err


# What is refused before OSMO sees it.


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 64, "RUN_ID"),
        (["train-7", "--sauce", "x"], 64, "unrecognized arguments"),
        (["../train-7"], 64, "cannot be the id"),
        (["-t"], 64, "error"),
        (["train-7", "--source", "s3://bucket/x"], 64, "s3:// URI"),
        (["train-7", "--source", "file:///runs/x"], 64, "file:// URI"),
        (["train-7", "--source", "azure://acct"], 64, "no account and container"),
        (["train-7", "--source", "azure:///c/p"], 64, "no account and container"),
        (["train-7", "--source", "outputs/x"], 64, "relative path"),
        (
            ["train-7", "--source", "https://acct.blob.core.windows.net/c/p?sv=1&sig=SECRETSECRET"],
            64,
            "a SAS",
        ),
        (["train-7", "--source", "https://example.com/c/p"], 64, "https:// URI"),
        (["train-7", "--model-name", "{{ x }}"], 64, "braces"),
        (["train-7", "--model-name", "a\nb"], 64, "newline"),
        (["train-7", "--checkpoint", "{% x %}"], 64, "braces"),
        (["train-7", "--image", "registry.example/aml-mirror@sha256:" + "0" * 64], 78, "placeholder"),
        (["train-7", "--image", "aml mirror"], 64, "no image's name"),
        (["train-7", "--image", "UPPER/Case:1"], 64, "no image's name"),
        (["train-7", "--", "--tag", "site=lab two"], 64, "has a blank"),
    ],
)
def test_what_is_refused_before_it_is_submitted(
    call: Replay,
    osmo: OsmoWorld,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    assert call(*arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert "SECRETSECRET" not in err
    assert submitted(osmo) == []


def test_the_placeholder_of_the_workflow_is_refused(
    call: Replay,
    osmo: OsmoWorld,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("AML_MIRROR_IMAGE")
    workflow = tmp_path / "replay-azureml.yaml"
    text = replay.WORKFLOW.read_text()
    released = text.replace(replay.default_image(replay.WORKFLOW), IMAGE)
    monkeypatch.setattr(replay, "WORKFLOW", workflow)
    workflow.write_text(released.replace("ab" * 32, "0" * 64))
    assert call("train-7") == 78
    assert "the placeholder" in capsys.readouterr().err
    assert submitted(osmo) == []
    # A released one is taken as it stands.
    workflow.write_text(released)
    assert call("train-7", "--dry-run") == 0
    assert "image=" not in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("azure://acct/runs/a b/c", "azure://acct/runs/a b/c"),
        ("https://acct.blob.core.windows.net/runs/x", "azure://acct/runs/x"),
        ("abfss://runs@acct.dfs.core.windows.net/x/y", "azure://acct/runs/x/y"),
        ("/mnt/outputs/x", "/mnt/outputs/x"),
    ],
)
def test_sources_that_can_be_meant(
    call: Replay, capsys: pytest.CaptureFixture[str], given: str, taken: str
) -> None:
    assert call("train-7", "--source", given, "--dry-run") == 0
    assert values_of(capsys.readouterr().out.splitlines()[-1])["source"] == taken


# How the run stands, asked before it is submitted.


def test_a_run_that_osmo_does_not_know(
    call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be one of a volume: the person is told, and it is submitted."""
    assert call("train-99") == 0
    assert "OSMO knows no run train-99; going on" in capsys.readouterr().err
    assert len(submitted(osmo)) == 1


def test_a_run_that_goes_on_or_failed(
    call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    osmo.add("train-7", status="RUNNING")
    osmo.add("train-8", status="FAILED")
    assert call("train-7") == 75
    assert "run train-7 is RUNNING: it has not ended; pass --after" in capsys.readouterr().err
    assert call("train-8") == 65
    assert "run train-8 is FAILED" in capsys.readouterr().err
    assert submitted(osmo) == []
    assert call("train-8", "--", "--allow-failed") == 0
    assert call("train-7", "--source", "/mnt/x") == 0, "who names the place is not asked"


def test_after_the_run(call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str]) -> None:
    osmo.add("train-7", status="PENDING", next=[{"status": "RUNNING"}, {}, {}, {"status": "COMPLETED"}])
    osmo.fault("workflow query", times=2, exit=10, code=503, message="Status Code: 503\nHeader:\nBody:\nx")
    assert call("train-7", "--after") == 0
    out, err = capsys.readouterr()
    said = [line for line in err.splitlines() if line.startswith("train-7 is ")]
    assert said == ["train-7 is PENDING", "train-7 is RUNNING", "train-7 is COMPLETED"]
    assert out == "azureml-replay-8\n"
    order = [" ".join(call[1:3]) for call in osmo.calls]
    assert order.index(next(one for one in order if one.startswith("submit"))) == len(order) - 1

    osmo.add("train-20", status="RUNNING", next=[{"status": "FAILED_EVICTED"}])
    assert call("train-20", "--after") == 65
    assert call("train-99", "--after") == 66
    assert len(submitted(osmo)) == 1


# What OSMO and its program can do.


def test_no_program(
    call: Replay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert call("train-7") == 78
    assert "no osmo program on PATH" in capsys.readouterr().err


def test_nobody_is_logged_in(call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str]) -> None:
    osmo.log_out()
    assert call("train-7", "--source", "/mnt/x") == 77
    assert "osmo login URL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (
            {"exit": 1, "code": 400, "message": "Workflow  submit failed:\nRegistry says no"},
            78,
            "Registry says no",
        ),
        ({"exit": 2, "code": 400, "message": "Pool x not found"}, 64, "Pool x not found"),
        ({"exit": 2, "code": 403, "message": "RBAC: access denied"}, 77, "access denied"),
        ({"exit": 10, "code": 502, "message": "Status Code: 502\nHeader:\n  a: b\nBody:\nbad"}, 75, "(bad)"),
        ({"exit": 10, "code": 500, "message": "Status Code: 500\nHeader:\n  a: b\nBody:\noops"}, 78, "oops"),
        ({"exit": 75, "code": 429, "message": "slow down"}, 75, "slow down"),
        ({"raw": "done\n"}, 78, "printed no workflow's name"),
    ],
)
def test_a_submission_that_is_refused(
    call: Replay,
    osmo: OsmoWorld,
    capsys: pytest.CaptureFixture[str],
    fault: dict[str, Any],
    code: int,
    words: str,
) -> None:
    osmo.fault("workflow submit", **fault)
    assert call("train-7", "--source", "/mnt/x") == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def test_a_bug_is_one_line(
    call: Replay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replay, "_command", lambda *given: 1 / 0)
    assert call("train-7") == 70
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err
    assert call("train-7", "--debug") == 70
    assert "Traceback" in capsys.readouterr().err


# How it ends.


@pytest.mark.parametrize(
    ("status", "exit_code", "code", "words"),
    [
        ("COMPLETED", 0, 0, ""),
        ("FAILED", 65, 65, ""),
        ("FAILED", 77, 77, ""),
        ("FAILED", 255, 75, "exit code 255"),
        ("FAILED_EVICTED", 3004, 75, "FAILED_EVICTED"),
        ("FAILED_EXEC_TIMEOUT", 255, 75, "FAILED_EXEC_TIMEOUT"),
        ("FAILED_CANCELED", None, 75, "FAILED_CANCELED"),
        ("FAILED_CANCELED", 0, 75, "FAILED_CANCELED"),
        ("FAILED_IMAGE_PULL", 3003, 78, "could not be pulled"),
        ("FAILED", 2, 78, "no program aml-mirror"),
        ("FAILED", 1, 70, "none of the mirror's"),
        ("FAILED_SUBMISSION", None, 70, "FAILED_SUBMISSION"),
    ],
)
def test_the_exit_code_at_the_end(
    call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str],
    status: str, exit_code: int | None, code: int, words: str,
) -> None:  # fmt: skip
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
    """One a version; with a date and a task before each, and among lines that only look like one."""
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
    """OSMO 6.2 under workload identity: the exit code comes from the query."""
    task = {"name": "mirror", "group": "g", "status": "FAILED", "exit_code": 65, "task_uuid": "u"}
    with osmo.changed() as state:
        state["workflows"]["azureml-replay-5"] = {
            "uuid": "0" * 32, "status": "FAILED", "spec": "", "logs": [], "tasks": [task],
        }  # fmt: skip
    osmo.fault("workflow submit", raw='{"name": "azureml-replay-5"}\n')
    message = "Status Code: 500\nHeader:\n  x: y\nBody:\nConnection string is either blank or malformed."
    osmo.fault("workflow logs", exit=10, code=500, message=message)
    assert call("train-7", "--source", "/mnt/x", "--wait") == 65
    assert "the receipt cannot be had: OSMO failed over `osmo workflow logs`" in capsys.readouterr().err


@pytest.fixture
def pods(osmo: OsmoWorld, mlflow_url: str) -> OsmoWorld:
    """Pods that have the program and mirror into a real MLflow server."""
    with osmo.changed() as state:
        state["pod_path"] = os.pathsep.join((str(Path(PROGRAM).parent), os.environ["PATH"], str(osmo.bin)))
        state["pod_env"] = {"MLFLOW_TRACKING_URI": mlflow_url}
    return osmo


def test_from_the_command_to_the_version(
    pods: OsmoWorld, tmp_path: Path, model_name: str, client: Any
) -> None:
    """The script with nothing but the standard library, the stub, the program, MLflow."""
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
    """The workflow goes on, and the person is told so; nothing of ours is left running."""
    osmo.add("train-7", status="RUNNING")
    process = subprocess.Popen(
        [sys.executable, "-S", str(SCRIPT), "train-7", "--after"],
        env=clean_environment(**osmo.environment, AML_MIRROR_IMAGE=IMAGE),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A suite that was started in the background was told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        text=True,
    )
    assert process.stderr
    assert process.stderr.readline() == "train-7 is RUNNING\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.startswith("stopped; ")
    assert "Traceback" not in err
