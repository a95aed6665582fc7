"""scripts/replay.py: what it submits, and how it handles OSMO's answers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import replay

from builders.runs import huggingface_run
from osmo_world import OsmoWorld
from replay_calls import IMAGE, Replay, submitted, values_of

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
    # The printed command is exact: a shell that runs it submits the same.
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
        assert f"{place.resolve() / '.env'} is in the run" in capsys.readouterr().err
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
    """A flag, the environment, .env. The workspace only from a place that names all of it."""

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
    """The real terraform, with an output like the module's."""
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
    assert "is not a folder" in capsys.readouterr().err


# The status of the run, queried before the submission.


def test_a_run_that_osmo_does_not_know(
    call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run may be on a volume, so the script prints a note and submits."""
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


# How OSMO and its program can fail.


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
        ({"exit": 10, "code": 502, "message": "Status Code: 502\nHeader:\n  a: b\nBody:\nbad"}, 75, "(bad)"),
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

    def fail(*given: object) -> None:
        raise ValueError("AccountKey=abcdefgh12345678==")

    monkeypatch.setattr(replay, "_command", fail)
    assert call("train-7", "--debug") == 70
    err = capsys.readouterr().err
    assert err.count("ValueError: AccountKey=***") == 2 and "abcdefgh" not in err


def test_a_dry_run_masks_secrets(call: Replay, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "sv=2024-11-04&sig=abcdefghijklmnopqrstuvwxyz0123456789"
    more = ["--", "--tag", "token=hf_abcdefghijklmnopqrstuvwx", "--tag", f"link=https://a.example/x?{secret}"]
    assert call("0017", "--model-name", "m", "--source", "azure://acct/runs/0017", "--dry-run", *more) == 0
    out, err = capsys.readouterr()
    assert "link=https://a.example/x?" in out
    for hidden in ("abcdefghijklmnopqrstuvwx", "hf_abc"):
        assert hidden not in out + err
