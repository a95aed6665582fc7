"""A run given only by its id: the program asks OSMO through the pod's ``osmo``. Covers every way in which
that can end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aml_mirror.cli.arguments import parser
from aml_mirror.core.errors import (
    ConfigurationError,
    DataError,
    Interrupted,
    MirrorError,
    NotAllowed,
    ServiceUnavailable,
    SourceNotFound,
    UsageError,
)
from aml_mirror.core.settings import Settings, resolve
from aml_mirror.osmo import client
from aml_mirror.osmo.run_location import LONGEST_POLL, OsmoRun
from aml_mirror.sources.registry import open_source
from osmo_world import OsmoWorld

OUTPUT = "azure://acct/runs/{{workflow_id}}"
UNKNOWN_HOST = "another-host"


@pytest.fixture(autouse=True)
def pod(osmo: OsmoWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process look like a pod, with ``osmo`` on PATH and logged in."""
    for name, value in osmo.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("OUTPUT_DIR", "OUTPUT_BASE", "RUN_ID", "REPLAY_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def settings(run_id: str = "train-7", *flags: str, **environment: str) -> Settings:
    """Settings for mirroring a run, without retries of a failing service."""
    given = parser().parse_args(["mirror", "--run-id", run_id, "--retry-for", "0", *flags])
    return resolve(given, environment, Path("/nowhere"))


class Clock:
    """A clock that only advances while the program sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def ask(
    given: Settings, said: list[str] | None = None, clock: Clock | None = None, host: str = UNKNOWN_HOST
) -> str:
    clock = clock or Clock()
    notice: Callable[[str], None] = (said if said is not None else []).append
    return OsmoRun(given, notice, clock, clock.sleep, host).output()


def refused(given: Settings, kind: type[MirrorError], *words: str) -> MirrorError:
    """Return the error after checking that its text has all of the words and its type has the exit code."""
    with pytest.raises(kind) as caught:
        ask(given)
    text = f"{caught.value.message}; {caught.value.hint}"
    assert type(caught.value) is kind, text
    for word in words:
        assert word in text, text
    assert caught.value.hint
    assert "\n" not in text
    return caught.value


# What a run declared.


def test_the_declared_output_with_the_id_filled_in(osmo: OsmoWorld) -> None:
    osmo.add("train-7", {"train": [OUTPUT]})
    assert ask(settings()) == "azure://acct/runs/train-7"
    assert osmo.calls == [
        ["workflow", "query", "train-7", "-t", "json"],
        ["workflow", "spec", "train-7"],
    ]


def test_a_run_given_by_its_uuid_gets_its_name(osmo: OsmoWorld) -> None:
    identifier = osmo.add("train-7", {"train": [OUTPUT]})
    assert ask(settings(identifier)) == "azure://acct/runs/train-7"
    clock = Clock()
    run = OsmoRun(settings(identifier), lambda text: None, clock, clock.sleep, UNKNOWN_HOST)
    assert run.ended().name == "train-7"


def test_a_place_that_is_named_more_than_once(osmo: OsmoWorld) -> None:
    """Declared by several tasks: with and without a slash, below another output, filtered by a regex, as a
    checkpoint.
    """
    osmo.add(
        "train-7",
        {
            "train": [OUTPUT, {"url": OUTPUT + "/", "regex": r".*\.pt"}],
            "train-2": [OUTPUT + "/logs", {"path": "/x", "url": OUTPUT + "/checkpoints", "frequency": 60}],
        },
    )
    assert ask(settings()).rstrip("/") == "azure://acct/runs/train-7"


def test_an_output_comes_before_the_checkpoints_of_the_way(osmo: OsmoWorld) -> None:
    checkpoint = {"path": "/x", "url": "azure://acct/other/{{ workflow_id }}", "frequency": 60}
    osmo.add("train-7", {"train": [OUTPUT, checkpoint]})
    osmo.add("train-8", {"train": [checkpoint]})
    assert ask(settings("train-7")) == "azure://acct/runs/train-7"
    assert ask(settings("train-8")) == "azure://acct/other/train-8"


def test_the_one_that_can_be_read(osmo: OsmoWorld) -> None:
    osmo.add("train-7", {"train": [OUTPUT], "video": ["s3://bucket/videos"]})
    assert ask(settings()) == "azure://acct/runs/train-7"


def test_several_outputs_are_named(osmo: OsmoWorld) -> None:
    osmo.add("train-7", {"train": [OUTPUT + "/a"], "eval": [OUTPUT + "/b"]})
    words = (
        "azure://acct/runs/train-7/a (task train)",
        "azure://acct/runs/train-7/b (task eval)",
        "--source",
    )
    refused(settings(), UsageError, "declared 2 outputs", *words, "--task")
    assert ask(settings("train-7", "--task", "eval")) == "azure://acct/runs/train-7/b"
    assert ask(settings("train-7", "--task", "EVAL")) == "azure://acct/runs/train-7/b"


def test_no_output(osmo: OsmoWorld) -> None:
    osmo.add("train-7")
    refused(settings(), SourceNotFound, "run train-7 declared no output", "outputs: - url:", "--source")
    osmo.add("train-8", {"train": [], "eval": [OUTPUT]})
    refused(
        settings("train-8", "--task", "train"), SourceNotFound, "task train of run train-8 declared no output"
    )


def test_no_output_where_osmo_shows_its_default_place(osmo: OsmoWorld) -> None:
    osmo.add("train-7", outputs="https://acct.blob.core.windows.net/osmo/data/train-7?sig=SECRETSECRET")
    error = refused(settings(), SourceNotFound, "declared no output", "azure://acct/osmo/data/train-7")
    assert "SECRETSECRET" not in error.hint


@pytest.mark.parametrize("url", ["s3://bucket/{{workflow_id}}", "gs://b/x", "swift://h/a/c", "tos://h/b/c"])
def test_an_output_that_cannot_be_read(osmo: OsmoWorld, url: str) -> None:
    osmo.add("train-7", {"train": [url]})
    filled = url.replace("{{workflow_id}}", "train-7")
    refused(settings(), SourceNotFound, filled, "only Azure Blob storage", "--source")


def test_an_output_with_what_only_osmo_knows(osmo: OsmoWorld) -> None:
    osmo.add("train-7", {"train": ["azure://acct/runs/{{uuid}}"]})
    refused(settings(), SourceNotFound, "{{uuid}}", "filled in", "--source azure://")


def test_a_dataset_of_older_versions(osmo: OsmoWorld) -> None:
    osmo.add("train-7", {"train": [{"dataset": {"name": "runs"}}, {"update_dataset": {"name": "x"}}]})
    refused(settings(), SourceNotFound, "as dataset and update_dataset", "--source")


# The status of the run.


def test_a_run_that_is_not_there(osmo: OsmoWorld) -> None:
    refused(settings("train-99"), SourceNotFound, "OSMO knows no run train-99", "osmo workflow list")


@pytest.mark.parametrize(
    "run_id", ["-t", "--help", "../train-7", "a b", "a/b", "x" * 257, "é-1", "a?b=c", "a-"]
)
def test_what_cannot_be_an_id_never_reaches_the_program(osmo: OsmoWorld, run_id: str) -> None:
    given = replace(settings(), run_id=run_id)
    refused(given, SourceNotFound, "cannot be the id of a run")
    assert osmo.calls == []


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "WAITING", "SOMETHING_NEW"])
def test_a_run_that_goes_on(osmo: OsmoWorld, status: str) -> None:
    osmo.add("train-7", {"train": [OUTPUT]}, status=status)
    refused(settings(), ServiceUnavailable, f"run train-7 is {status}", "--wait-for 12h")


def test_a_run_is_waited_for(osmo: OsmoWorld) -> None:
    goes_on: list[dict[str, Any]] = [{"status": "RUNNING"}] * 20
    osmo.add("train-7", {"train": [OUTPUT]}, status="PENDING", next=[*goes_on, {"status": "COMPLETED"}])
    said: list[str] = []
    clock = Clock()
    assert ask(settings("train-7", "--wait-for", "12h"), said, clock) == "azure://acct/runs/train-7"
    assert clock.sleeps[0] < 10
    assert max(clock.sleeps) == LONGEST_POLL
    assert said[0] == "run train-7 is PENDING; waiting for its end, at most 12 h (--wait-for)"
    assert len(said) == 2, "a line every ten minutes, not one a question"


def test_the_waiting_ends(osmo: OsmoWorld) -> None:
    osmo.add("train-7", {"train": [OUTPUT]}, status="RUNNING")
    clock = Clock()
    with pytest.raises(ServiceUnavailable, match="run train-7 is RUNNING"):
        ask(settings("train-7", "--wait-for", "10m"), clock=clock)
    assert clock.now == pytest.approx(600)


def test_osmo_may_be_away_while_a_run_is_waited_for(osmo: OsmoWorld) -> None:
    osmo.add("train-7", {"train": [OUTPUT]}, status="RUNNING", next=[{"status": "COMPLETED"}])
    osmo.fault(
        "workflow query", times=3, exit=10, message="\nCannot connect to OSMO service, with error:\nx\n"
    )
    said: list[str] = []
    assert ask(settings("train-7", "--wait-for", "1h"), said) == "azure://acct/runs/train-7"
    assert "Cannot connect to OSMO service" in said[0]


def test_a_run_that_ends_badly_while_it_is_waited_for(osmo: OsmoWorld) -> None:
    osmo.add("train-7", {"train": [OUTPUT]}, status="RUNNING", next=[{"status": "FAILED_EVICTED"}])
    with pytest.raises(DataError, match="run train-7 is FAILED_EVICTED"):
        ask(settings("train-7", "--wait-for", "1h"))


@pytest.mark.parametrize("status", ["FAILED", "FAILED_CANCELED", "FAILED_EXEC_TIMEOUT", "FAILED_SUBMISSION"])
def test_a_failed_run(osmo: OsmoWorld, status: str) -> None:
    osmo.add("train-7", {"train": [OUTPUT]}, status=status)
    refused(settings(), DataError, f"run train-7 is {status}", "--allow-failed")
    assert ask(settings("train-7", "--allow-failed")) == "azure://acct/runs/train-7"


def test_a_task_that_is_complete_in_a_run_that_failed(osmo: OsmoWorld) -> None:
    tasks = {"train": [OUTPUT], "eval": []}
    osmo.add("train-7", tasks, status="FAILED", task_status={"train": "COMPLETED"})
    refused(settings(), DataError, "run train-7 is FAILED", "--task train")
    assert ask(settings("train-7", "--task", "train")) == "azure://acct/runs/train-7"
    refused(settings("train-7", "--task", "eval"), DataError, "task eval of run train-7 is FAILED")
    refused(settings("train-7", "--task", "test"), UsageError, "no task test", "train, eval")


def test_a_task_of_the_workflow_that_the_mirror_itself_is_in(osmo: OsmoWorld) -> None:
    """The workflow runs as long as the mirror in it. Only the training's status counts."""
    osmo.add(
        "train-7",
        {"train": [OUTPUT], "mirror": []},
        status="RUNNING",
        next=[
            {"tasks": {"train": "RESCHEDULED"}},
            {"tasks": {"train": "RUNNING"}},
            {"tasks": {"train": "COMPLETED"}},
        ],
    )
    given = settings("train-7", "--task", "train", "--wait-for", "3d")
    assert ask(given) == "azure://acct/runs/train-7"
    assert len(osmo.calls) == 5


def test_the_mirror_does_not_wait_for_itself(osmo: OsmoWorld) -> None:
    """Also without --task, because OSMO gives a pod's host the name of its task."""
    osmo.add(
        "train-7",
        {"train": [OUTPUT], "mirror": []},
        status="RUNNING",
        next=[{"tasks": {"train": "COMPLETED"}}],
    )
    (host,) = [
        task["task_uuid"] for task in osmo.state["workflows"]["train-7"]["tasks"] if task["name"] == "mirror"
    ]
    said: list[str] = []
    assert ask(settings("train-7", "--wait-for", "1h"), said, host=host) == "azure://acct/runs/train-7"
    assert said[0].startswith("run train-7, apart from this task, is RUNNING")
    osmo.add("train-8", {"train": [OUTPUT], "mirror": []}, status="RUNNING", task_status={"train": "FAILED"})
    (host,) = [
        task["task_uuid"] for task in osmo.state["workflows"]["train-8"]["tasks"] if task["name"] == "mirror"
    ]
    with pytest.raises(DataError, match="apart from this task, is FAILED"):
        ask(settings("train-8", "--wait-for", "1h"), host=host)


# How the program and its service can fail.


def test_nobody_is_logged_in(osmo: OsmoWorld) -> None:
    osmo.log_out()
    refused(settings(), NotAllowed, "not logged in", "Must login first", "OSMO_CONFIG_FILE_DIR", "--source")


@pytest.mark.parametrize(("code", "word"), [(401, "not logged in"), (403, "does not let the submitter")])
def test_a_login_that_is_refused(osmo: OsmoWorld, code: int, word: str) -> None:
    osmo.fault("workflow query", exit=2, code=code, message="RBAC: access denied")
    refused(settings(), NotAllowed, word, "access denied")


def test_the_spec_of_osmo_6_2_under_workload_identity(osmo: OsmoWorld) -> None:
    """The message contains the headers of the answer, with a cookie. The user sees only its text."""
    osmo.add("train-7", {"train": [OUTPUT]})
    body = json.dumps({"message": "Internal server error: Connection string is either blank or malformed."})
    message = f"Status Code: 500\nHeader:\n  set-cookie: session=SECRETSECRET\n  date: today\nBody:\n{body}"
    osmo.fault("workflow spec", exit=10, code=500, message=message)
    words = ("Connection string is either blank", "OSMO 6.2", "workload identity", "--source azure://")
    error = refused(settings(), ConfigurationError, *words)
    assert "SECRETSECRET" not in error.message
    assert "Header" not in error.message


@pytest.mark.parametrize(
    "fault",
    [
        {"exit": 10, "message": "Failed to fetch spec: Response ended prematurely"},
        {"raw": "", "exit": 0},
        {"raw": "\n", "exit": 0},
    ],
)
def test_a_spec_that_breaks_off(osmo: OsmoWorld, fault: dict[str, Any]) -> None:
    osmo.add("train-7", {"train": [OUTPUT]})
    osmo.fault("workflow spec", **fault)
    refused(settings(), ConfigurationError, "cannot read its stored spec of run train-7", "--source azure://")


@pytest.mark.parametrize(
    "fault",
    [
        {"exit": 10, "code": 503, "message": "Status Code: 503\nHeader:\nBody:\nupstream connect error"},
        {"exit": 75, "code": 429, "message": "Too many requests"},
        {"exit": 10, "message": "\nCannot connect to OSMO service, connection refused with errno 111"},
        {"exit": 10, "code": 500, "message": "Status Code: 500\nHeader:\nBody:\n{}"},
    ],
)
def test_what_passes(osmo: OsmoWorld, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The program retries until its patience ends. Then it reports the error and exits with 75."""
    osmo.add("train-7", {"train": [OUTPUT]})
    osmo.fault("workflow query", **fault)
    refused(settings(), ServiceUnavailable, "OSMO does not answer at the moment")
    osmo.fault("workflow query", **fault)
    monkeypatch.setattr("aml_mirror.support.retry.FIRST_PAUSE", 0.01)
    assert ask(settings("train-7", "--retry-for", "60s")) == "azure://acct/runs/train-7"


@pytest.mark.parametrize("on", ["workflow query", "workflow spec"])
@pytest.mark.parametrize(
    "raw",
    [
        "<html>sign in</html>",
        "[]",
        "{}",
        '{"name": 7, "status": true}',
        '{"name": "x"',
        "[" * 100_000,
        "\x00\xff\x1b[2J",
        "workflow: [",
        "workflow:\n  groups: 7\n",
        "workflow: text",
        "a: &a [*a]\nworkflow: *a",
        "workflow: 2026-99-99",
    ],
)
def test_garbage(osmo: OsmoWorld, on: str, raw: str) -> None:
    """Whatever ``osmo`` prints, there is no traceback: the error says what to do and has its own exit
    code.
    """
    osmo.add("train-7", {"train": [OUTPUT]})
    osmo.fault(on, raw=raw)
    with pytest.raises(MirrorError) as caught:
        ask(settings())
    assert type(caught.value) in (DataError, SourceNotFound)
    assert "train-7" in caught.value.message
    assert caught.value.hint


def test_a_spec_whose_parts_have_other_shapes(osmo: OsmoWorld) -> None:
    spec = (
        "version: 2\nworkflow:\n  groups:\n  - null\n  - tasks: {}\n  - tasks:\n    - 3\n    - outputs: x\n"
    )
    spec += "    - outputs: [7, {url: 3}, {url: 'azure://acct/runs/a'}]\n      checkpoint: [{path: a}]\n"
    osmo.add("train-7", spec=spec)
    assert ask(settings()) == "azure://acct/runs/a"


def test_a_notice_before_the_answer(osmo: OsmoWorld) -> None:
    osmo.add("train-7", {"train": [OUTPUT]})
    answer = json.dumps({"name": "train-7", "status": "COMPLETED", "groups": None}, indent=2)
    osmo.fault(
        "workflow query", raw=f"A new version of the client is there: 6.4\n{answer}\n", stderr="WARNING"
    )
    assert ask(settings()) == "azure://acct/runs/train-7"


def test_too_much_is_printed(osmo: OsmoWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    osmo.add("train-7", {"train": [OUTPUT]})
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 1 << 20)
    osmo.fault("workflow query", raw="x" * (3 << 20))
    refused(settings(), DataError, "printed more than 1 MiB")


def test_a_lot_on_stderr_stops_nothing(osmo: OsmoWorld) -> None:
    osmo.add("train-7", {"train": [OUTPUT]})
    answer = json.dumps({"name": "train-7", "status": "COMPLETED"})
    osmo.fault("workflow query", stderr="x" * (1 << 20), raw=answer)
    assert ask(settings()) == "azure://acct/runs/train-7"


def test_the_program_hangs(osmo: OsmoWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real program works in a child process: both are ended, and the exit code 75 comes in time."""
    monkeypatch.setattr(client, "CALL_SECONDS", 2.0)
    program = osmo.bin / "osmo"
    program.write_text(f'#!/bin/sh\ntail -f "{program}" >/dev/null 2>&1 &\nwait\n')
    refused(settings(), ServiceUnavailable, "gave no answer in 2 s")
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert not [line for line in running.splitlines() if str(osmo.bin) in line]


def test_the_program_is_killed(osmo: OsmoWorld) -> None:
    osmo.fault("workflow query", signal=int(signal.SIGKILL))
    refused(settings(), ServiceUnavailable, "ended by signal 9", "memory")


def test_the_program_falls(osmo: OsmoWorld) -> None:
    osmo.fault(
        "workflow query", raw="", exit=255, stderr="[PYI-7:ERROR] Could not create temporary directory!"
    )
    refused(settings(), ConfigurationError, "exit code 255", "Could not create temporary directory!")


@pytest.mark.parametrize("secret", ["eyJhbGciOiJI.eyJzdWIiOiJh.c2lnbmF0dXJl", "Bearer abc123def456ghi789"])
def test_no_token_is_repeated(osmo: OsmoWorld, secret: str) -> None:
    osmo.fault("workflow query", exit=2, code=400, message=f"refresh failed for token={secret}")
    error = refused(settings(), ConfigurationError, "refresh failed")
    assert secret.split()[-1] not in error.message


def test_no_program(osmo: OsmoWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(client, "POD_PROGRAM", "/nowhere/osmo")
    with pytest.raises(ConfigurationError) as caught:
        open_source(settings())
    assert "no osmo program on PATH" in caught.value.message
    assert "/osmo/usr/bin" in caught.value.hint
    # Its path in a pod is known, whatever PATH is.
    osmo.add("train-7", {"train": ["s3://b/x"]})
    monkeypatch.setattr(client, "POD_PROGRAM", str(osmo.bin / "osmo"))
    with pytest.raises(SourceNotFound, match="s3://b/x"):
        open_source(settings())


def test_a_program_that_cannot_be_run(osmo: OsmoWorld) -> None:
    (osmo.bin / "osmo").write_bytes(b"\x7fELF nonsense")
    refused(settings(), ConfigurationError, "cannot be run", "Exec format error")


def test_the_program_gets_no_credentials(osmo: OsmoWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    osmo.add("train-7", {"train": [OUTPUT]})
    for name in ("AZURE_CLIENT_SECRET", "MLFLOW_TRACKING_TOKEN", "HF_TOKEN", "SSH_AUTH_SOCK", "RUN_ID"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    ask(settings())
    for call in osmo.state["calls"]:
        names = set(call["environment"])
        assert names >= {"PATH", "OSMO_CONFIG_FILE_DIR", "OSMO_LOG_FILE_DIR", "HTTPS_PROXY"}
        assert not [name for name in names if "TOKEN" in name or "SECRET" in name or "AUTH" in name]
        assert "RUN_ID" not in names


def test_the_log_of_the_program_is_not_left_behind(
    osmo: OsmoWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    osmo.add("train-7", {"train": [OUTPUT]})
    scratch, home = tmp_path / "scratch", tmp_path / "home"
    scratch.mkdir()
    home.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("tempfile.tempdir", None)
    ask(settings())
    assert os.listdir(scratch) == os.listdir(home) == []


def test_a_signal_ends_the_waiting_and_the_program(osmo: OsmoWorld) -> None:
    osmo.fault("workflow query", sleep=600)

    def stop(signum: int, frame: object) -> None:
        raise Interrupted(signum)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 2.0)
    try:
        with pytest.raises(Interrupted):
            ask(settings())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert not [line for line in running.splitlines() if str(osmo.bin) in line]


# When the program asks OSMO at all.


def test_a_source_that_is_given_is_taken_as_it_is(osmo: OsmoWorld, tmp_path: Path) -> None:
    assert open_source(settings("train-7", "--source", str(tmp_path))).uri == str(tmp_path)
    assert open_source(settings("train-7", OUTPUT_DIR=str(tmp_path))).uri == str(tmp_path)
    (tmp_path / "train-7").mkdir()
    assert open_source(settings("train-7", OUTPUT_BASE=str(tmp_path))).uri == str(tmp_path / "train-7")
    assert osmo.calls == []


def test_a_mounted_base_without_the_run(osmo: OsmoWorld, tmp_path: Path) -> None:
    osmo.add("train-7", {"train": ["s3://b/x"]})
    said: list[str] = []
    with pytest.raises(SourceNotFound, match="s3://b/x"):
        open_source(settings("train-7", OUTPUT_BASE=str(tmp_path)), said.append)
    assert said == [f"there is no {tmp_path}/train-7; asking OSMO where run train-7 is"]


def test_waiting_for_a_run_whose_source_is_given(osmo: OsmoWorld, tmp_path: Path) -> None:
    osmo.add("train-7", status="RUNNING", next=[{"status": "FAILED"}])
    osmo.add("train-8")
    flags = ("--source", str(tmp_path), "--wait-for", "1h")
    with pytest.raises(DataError, match="run train-7 is FAILED"):
        open_source(settings("train-7", *flags))
    assert open_source(settings("train-8", *flags)).uri == str(tmp_path)
    assert [call[1] for call in osmo.calls] == ["query", "query", "query"]
    given = replace(settings("x", *flags), run_id="")
    with pytest.raises(UsageError, match="--wait-for needs to know the run"):
        open_source(given)


def test_durations_in_days() -> None:
    assert settings("a", "--wait-for", "3d").wait_seconds == 3 * 86400
    with pytest.raises(UsageError, match="--wait-for 'long' is not a duration"):
        settings("a", "--wait-for", "long")
