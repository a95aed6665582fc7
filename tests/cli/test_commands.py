"""The program from a user's view: help, plan, doctor, status, exit codes, one line per error."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builders.program import PROGRAM, Call, clean_environment
from builders.proxy import Proxy
from builders.runs import huggingface_run, write_events

TARGET = ("--tracking-uri", "sqlite:///unused.db")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small Hugging Face run."""
    return huggingface_run(tmp_path / "run-1")


# --- help ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--help"], ["mirror", "--help"], ["plan", "-h"], ["status", "-h"], ["doctor", "-h"]]
)
def test_help_has_an_example(aml_mirror: Call, arguments: list[str]) -> None:
    assert "example" in aml_mirror(*arguments, fork=False).out


def test_version(aml_mirror: Call) -> None:
    assert aml_mirror("--version", fork=False).out.startswith("aml-mirror 0.")


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "--source", "{run}"]])
def test_help_and_plan_do_not_wait_for_heavy_imports(run: Path, tmp_path: Path, arguments: list[str]) -> None:
    program = f"""
import sys
from aml_mirror.cli.main import main
code = main({[part.format(run=run) for part in arguments]!r})
heavy = [name for name in ("mlflow", "azure", "numpy", "requests", "rich") if name in sys.modules]
print("heavy", heavy, file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=clean_environment()
    )
    assert done.returncode == 0, done.stderr
    assert "heavy []" in done.stderr


# --- plan ---------------------------------------------------------------------------------------------


def test_plan_says_what_the_issue_names(run: Path, aml_mirror: Call) -> None:
    plan = aml_mirror("plan", "--source", run, "--json").json
    assert plan["framework"] == "huggingface"
    assert plan["run_root"] == "."
    assert plan["checkpoint"] == {"path": "checkpoint-20", "step": 20, "role": "final", "complete": True}
    assert plan["best"] is None
    assert [item["path"] for item in plan["files"]] == [
        "checkpoint-20/config.json",
        "checkpoint-20/model.safetensors",
    ]
    assert all(set(item) == {"path", "bytes"} and item["bytes"] > 0 for item in plan["files"])
    assert {item["path"] for item in plan["left_out_files"]} == {
        "checkpoint-20/optimizer.pt",
        "checkpoint-20/trainer_state.json",
    }
    metrics = plan["metrics"]
    assert (metrics["series"], metrics["points"], metrics["points_read"]) == (1, 30, 30)
    assert (metrics["tags"], metrics["skipped_records"]) == (["train/loss"], 0)
    assert metrics["sources"][0]["path"].startswith("runs/")
    assert plan["params"]["config.hidden_size"] == "64"
    assert len(plan["identity"]) == 64
    assert plan["model_name"] is None
    assert plan["warnings"] == []


def test_plan_and_mirror_have_one_identity(run: Path, aml_mirror: Call, database: str) -> None:
    from mlflow import MlflowClient

    plan = aml_mirror("plan", "--source", run, "--json").json
    receipt = aml_mirror("--source", run, "--model-name", "m", "--tracking-uri", database).json
    tags = MlflowClient(database, database).get_run(receipt["mlflow_run_id"]).data.tags
    assert tags["identity"] == plan["identity"]


def test_plan_writes_nothing(run: Path, aml_mirror: Call, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    aml_mirror("plan", "--source", run, "--model-name", "m", "--tracking-uri", "http://127.0.0.1:9")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_plan_for_people_fits_one_screen(run: Path, aml_mirror: Call) -> None:
    for index in range(100):
        (run / "checkpoint-20" / f"tokenizer_{index}.json").write_text("{}")
        (run / f"dangling-{index}").symlink_to("nowhere")
    out = aml_mirror("plan", "--source", run).out
    assert "checkpoint-20" in out
    assert "train" not in out or len(out.splitlines()) <= 40
    assert len(out.splitlines()) <= 40


def test_a_run_nested_below_the_path_is_found(aml_mirror: Call, tmp_path: Path) -> None:
    huggingface_run(tmp_path / "outer" / "a" / "b" / "run-1")
    plan = aml_mirror("plan", "--source", tmp_path / "outer", "--json").json
    assert plan["run_root"] == "a/b/run-1"
    assert plan["run_id"] == "outer"
    assert plan["checkpoint"]["path"] == "checkpoint-20"


def test_two_runs_are_named(aml_mirror: Call, tmp_path: Path) -> None:
    huggingface_run(tmp_path / "both" / "one")
    huggingface_run(tmp_path / "both" / "two")
    done = aml_mirror("mirror", "--source", tmp_path / "both", "--model-name", "m", *TARGET, code=64)
    assert "one (huggingface)" in done.err
    assert "two (huggingface)" in done.err


def test_plan_of_a_folder_lists_each_run(aml_mirror: Call, tmp_path: Path) -> None:
    for name in ("short", "a-long-name", "cut"):
        huggingface_run(tmp_path / "both" / name)
    for weights in (tmp_path / "both" / "cut").rglob("model.safetensors"):
        weights.write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    done = aml_mirror("plan", tmp_path / "both", "--model-name", "m-{name}", code=64)
    *rows, last, receipt = done.out.splitlines()
    assert json.loads(receipt)["exit_code"] == 64
    planned = [row for row in rows if row.startswith("will be mirrored")]
    assert [row.split()[3:7] for row in planned] == [
        ["a-long-name", "checkpoint-20", "step", "20"], ["short", "checkpoint-20", "step", "20"]
    ]  # fmt: skip
    assert planned[0].index("checkpoint-20") == planned[1].index("checkpoint-20")
    assert planned[0].endswith("huggingface  into m-a-long-name")
    assert "cut" in rows[-1] and "65  " in rows[-1] and "no complete checkpoint" in rows[-1]
    assert last.startswith("3 run(s): 2 will be mirrored, 0 skipped, 1 failed")
    assert "error: " in done.err and "aml-mirror backfill" in done.err
    lines = [
        json.loads(line) for line in aml_mirror("plan", tmp_path / "both", "--json", code=64).out.splitlines()
    ]
    assert {line["run_id"]: line["outcome"] for line in lines[:-2]} == {
        "a-long-name": "planned", "cut": "failed", "short": "planned"
    }  # fmt: skip
    assert (lines[-2]["planned"], lines[-2]["failed"]) == (2, 1)
    # The whole folder is refused, as by mirror.
    assert (lines[-1]["outcome"], lines[-1]["exit_code"]) == ("failed", 64)
    assert sorted(tmp_path.rglob("*")) == before
    # mirror refuses it under one id, so plan does, too.
    aml_mirror("plan", tmp_path / "both", "--run-id", "one", code=64)


def test_checkpoints_can_be_named(run: Path, aml_mirror: Call) -> None:
    for wanted in ("10", "checkpoint-10", "checkpoint-10/"):
        plan = aml_mirror("plan", "--source", run, "--checkpoint", wanted, "--json").json
        assert plan["checkpoint"]["step"] == 10
    assert "10, 20" in aml_mirror("plan", "--source", run, "--checkpoint", "15", code=64).err
    assert "checkpoint-20" in aml_mirror("plan", "--source", run, "--checkpoint", "nope", code=64).err
    assert "no best" in aml_mirror("plan", "--source", run, "--checkpoint", "best", code=65).err


def test_incomplete_is_passed_over_and_said(run: Path, aml_mirror: Call) -> None:
    weights = run / "checkpoint-20" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    plan = aml_mirror("plan", "--source", run, "--json").json
    assert plan["checkpoint"]["step"] == 10
    assert any("checkpoint-20" in warning and "its header says" in warning for warning in plan["warnings"])
    done = aml_mirror("plan", "--source", run, "--strict", "--json", code=65)
    assert "checkpoint-20" in done.json["error"]
    (run / "checkpoint-10" / "model.safetensors").write_bytes(b"")
    assert "no complete checkpoint" in aml_mirror("plan", "--source", run, "--json", code=65).json["error"]


def test_include_and_exclude(run: Path, aml_mirror: Call) -> None:
    (run / "checkpoint-20" / "notes.txt").write_text("x")
    plan = aml_mirror("plan", "--source", run, "--exclude", "*.txt", "--json").json
    assert not any(item["path"].endswith(".txt") for item in plan["files"])
    assert {"path": "checkpoint-20/notes.txt", "reason": "named by --exclude"} in plan["left_out_files"]
    only = aml_mirror("plan", "--source", run, "--include", "*.safetensors", "--json").json
    assert [item["path"] for item in only["files"]] == ["checkpoint-20/model.safetensors"]
    assert only["identity"] != plan["identity"]
    assert "leave no weights" in aml_mirror("plan", "--source", run, "--exclude", "*", code=64).err


def test_links_out_of_the_run_are_left_out(run: Path, aml_mirror: Call, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"secret": 1}')
    (run / "checkpoint-20" / "extra.json").symlink_to(tmp_path / "secret.json")
    (run / "checkpoint-30").symlink_to(run / "checkpoint-20")
    plan = aml_mirror("plan", "--source", run, "--json").json
    assert plan["checkpoint"]["step"] == 20
    assert not any("extra" in item["path"] for item in plan["files"])
    reasons = {item["path"]: item["reason"] for item in plan["left_out_files"]}
    assert reasons["checkpoint-20/extra.json"] == "it is a link that leaves the run"


def test_memory_of_a_plan_with_140_000_points(tmp_path: Path) -> None:
    """Less than 80 MB more than the bare interpreter. Uses VmHWM, because a child's ru_maxrss starts at its
    parent's.
    """
    rows = [(f"tag/{index % 20}", index // 20, float(index)) for index in range(140_000)]
    run = huggingface_run(tmp_path / "run", points=1)
    write_events(next((run / "runs").rglob("events*")), rows)

    def peak(program: str) -> int:
        ending = "\nfor s in open('/proc/self/status'):\n  if 'VmHWM' in s: print(s, file=sys.stderr)"
        done = subprocess.run(
            [sys.executable, "-c", "import sys\n" + program + ending],
            capture_output=True, text=True, cwd=tmp_path, env=clean_environment(), check=True,
        )  # fmt: skip
        return int(done.stderr.split()[-2])

    bare = peak("pass")
    planned = peak(
        "from aml_mirror.cli.main import main\n"
        f"assert main(['plan', '--source', {str(run)!r}, '--json']) == 0"
    )
    assert planned - bare < 80_000  # kB


# --- errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--source", "{run}", *TARGET], 64, "--model-name"),
        (["--source", "{run}", "--model-name", "m"], 78, "--tracking-uri"),
        (["--model-name", "m", *TARGET], 64, "--source"),
        (["--source", "{run}/nowhere", "--model-name", "m", *TARGET], 66, "does not exist"),
        (["--source", "{run}/checkpoint-20/config.json", "--model-name", "m", *TARGET], 66, "directory"),
        (["--source", "{empty}", "--model-name", "m", *TARGET], 65, "no checkpoint was found"),
        (["--source", "{run}", "--model-name", "a/b", *TARGET], 64, "'/'"),
        (["--source", "{run}", "--model-name", "m", "--tag", "novalue", *TARGET], 64, "KEY=VALUE"),
        (["--source", "{run}", "--model-name", "m", "--tag", "identity=x", *TARGET], 64, "identity"),
        (["--source", "{run}", "--model-name", "m", "--retry-for", "soon", *TARGET], 64, "duration"),
        (["--source", "{run}", "--model-name", "m", "--framework", "nope", *TARGET], 64, "lerobot"),
        (["--source", "{run}", "--model-name", "m", "--framework", "lerobot", *TARGET], 65, "lerobot"),
        (["--source", "{run}", "--model-name", "m", "--tracking-uri", "htp://x"], 78, "htp://x"),
        (["--source", "{run}", "--model-name", "m", "--tracking-uri", "mlflow:5000"], 78, "put http:// or"),
        (["--source", "{run}", "--model-name", "m", "--tracking-uri", "/mlruns"], 78, "put http:// or"),
        (["--source", "{run}", "--model-name", "m", "--tracking-uri", "arn:aws:sagemaker:a:1:b"], 78, "pip"),
        (["--source", "{run}", "--model-name", "m", "--tracking-uri", "databricks"], 78, "DATABRICKS_TOKEN"),
        (["--source", "{run}", "--model-name", "m", "--tracking-uri", "https://"], 78, "names no host"),
        (["--source", "{run}", "--model-name", "m", "--tracking-uri", "http://[::1"], 78, "not the address"),
        (["--source", "{run}", "--model-name", "m", "--tracking-uri", "azureml://e"], 78, "--workspace-name"),
        (["--source", "{run}", "--model-name", "m", "--tracking-uri", "sqlite:////proc/x/m.db"], 78, "m.db"),
        (["--unknown-flag"], 64, "--unknown-flag"),
        (["frobnicate"], 64, "frobnicate"),
    ],
)  # fmt: skip
def test_errors_are_one_line_with_the_right_code(
    run: Path, aml_mirror: Call, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    done = aml_mirror(*[part.format(run=run, empty=tmp_path / "empty") for part in arguments], code=code)
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    receipt = done.json
    assert next(iter(receipt)) == "schema"
    assert (receipt["outcome"], receipt["exit_code"]) == ("failed", code)
    assert words in receipt["error"] + str(receipt["hint"])


def test_debug_shows_the_traceback(run: Path, aml_mirror: Call) -> None:
    given = ("--source", run, "--model-name", "a/b", *TARGET)
    assert "Traceback" not in aml_mirror(*given, code=64).err
    assert "Traceback" in aml_mirror(*given, "--debug", code=64).err


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, 77, "MLFLOW_TRACKING_TOKEN"),
        (403, 77, "MLFLOW_TRACKING"),
        (404, 78, "not an MLflow server"),
        (429, 75, "run the same command again"),
        (503, 75, "run the same command again"),
    ],
)
def test_what_the_server_refuses(
    run: Path, aml_mirror: Call, mlflow_url: str, model_name: str, status: int, code: int, words: str
) -> None:
    with Proxy(mlflow_url) as proxy:
        proxy.interfere = lambda number, moment, method, path: status
        done = aml_mirror(
            "--source",
            run,
            "--model-name",
            model_name,
            "--tracking-uri",
            proxy.url,
            "--retry-for",
            "1s",
            code=code,
        )
    assert words in done.err
    assert "Traceback" not in done.err


def test_nobody_answers(run: Path, aml_mirror: Call) -> None:
    given = (
        "--source",
        run,
        "--model-name",
        "m",
        "--tracking-uri",
        "http://127.0.0.1:9",
        "--retry-for",
        "1s",
    )
    done = aml_mirror(*given, code=75)
    assert "the connection was refused" in done.json["error"]


def test_https_in_front_of_a_server_that_speaks_http(run: Path, aml_mirror: Call, mlflow_url: str) -> None:
    target = mlflow_url.replace("http://", "https://")
    done = aml_mirror("--source", run, "--model-name", "m", "--tracking-uri", target, code=78)
    assert "does not speak TLS; use http://" in done.err


def test_credentials_in_the_address_are_masked(run: Path, aml_mirror: Call) -> None:
    target = "http://user:planted@127.0.0.1:9"
    done = aml_mirror(
        "--source", run, "--model-name", "m", "--tracking-uri", target, "--retry-for", "0", "--debug", code=75
    )
    assert "planted" not in done.out + done.err


# --- what is where --------------------------------------------------------------------------------


def test_on_a_terminal_people_read_words(run: Path, tmp_path: Path, database: str) -> None:
    given = ["--source", str(run), "--model-name", "m", "--tracking-uri", database]
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, *given], cwd=tmp_path, stdout=slave, stderr=slave, env=clean_environment(TERM="xterm")
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:
            break
        shown += part
        if not part:
            break
    assert process.wait() == 0
    text = shown.decode()
    assert "mirrored run-1 as m version 1" in text
    assert "schema" not in text


def in_a_shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which ``$mirror`` is the program."""
    variables = clean_environment(mirror=PROGRAM, **environment)
    return subprocess.run(["bash", "-c", line], cwd=folder, env=variables, capture_output=True, check=False)


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- 2>&-", "<&-"])
def test_a_stream_that_is_closed_changes_no_exit_code(tmp_path: Path, closed: str) -> None:
    done = in_a_shell(f'"$mirror" plan --source /nowhere {closed}', tmp_path)
    assert done.returncode == 66
    assert (b'"exit_code":66' in done.stdout) is (">&- " not in closed)
    assert b"Traceback" not in done.stderr


def test_a_reader_that_left_changes_no_exit_code(run: Path, tmp_path: Path) -> None:
    for command, code in ((f"plan --source '{run}'", 0), ("plan --source /nowhere", 66), ("doctor", 64)):
        done = in_a_shell(f'(sleep 0.2; "$mirror" {command}; echo code=$? >&2) | true', tmp_path)
        assert f"code={code}\n".encode() in done.stderr
        assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr


def test_a_result_that_cannot_be_written_is_75_and_what_was_done_stays(
    run: Path, tmp_path: Path, database: str
) -> None:
    command = f"\"$mirror\" --source '{run}' --model-name m --tracking-uri {database}"
    done = in_a_shell(f"{command} >/dev/full", tmp_path)
    assert done.returncode == 75
    assert b"cannot be written to stdout: No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr
    assert b'"already-mirrored"' in in_a_shell(command, tmp_path).stdout


def test_a_name_that_the_output_cannot_hold_is_escaped(run: Path, tmp_path: Path) -> None:
    named = run.rename(run.parent / "rün ☃")
    done = in_a_shell(f"\"$mirror\" plan --source '{named}'", tmp_path, PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert "rün \\u2603".encode("latin-1") in done.stdout


def test_names_are_utf8_whatever_the_locale_says(run: Path, tmp_path: Path) -> None:
    """Otherwise the run's id, and so its identity, would depend on who mirrors it."""
    named = run.rename(run.parent / "rün ☃")
    line = f"\"$mirror\" plan --json --source '{named}'"
    usual = in_a_shell(line, tmp_path)
    assert json.loads(usual.stdout)["run_id"] == "rün ☃"
    assert in_a_shell(line, tmp_path, LC_ALL="C").stdout == usual.stdout
    other = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    refused = in_a_shell(line, tmp_path, **other)
    assert refused.returncode == 78
    assert b"PYTHONUTF8=1" in refused.stderr
    assert in_a_shell(line, tmp_path, **{**other, "PYTHONUTF8": "1"}).stdout == usual.stdout


def test_dotenv_and_environment(run: Path, aml_mirror: Call, tmp_path: Path, database: str) -> None:
    (tmp_path / ".env").write_text(
        f"AZUREML_MODEL_NAME=from-dotenv\nMLFLOW_TRACKING_URI={database}\nOUTPUT_DIR={run}\n"
    )
    assert aml_mirror().json["model_name"] == "from-dotenv"
    assert aml_mirror(AZUREML_MODEL_NAME="from-env").json["model_name"] == "from-env"
    assert aml_mirror("--model-name", "flag", AZUREML_MODEL_NAME="from-env").json["model_name"] == "flag"
    # Empty variables count as unset, because workflows declare them empty.
    assert aml_mirror(AZUREML_MODEL_NAME="", OUTPUT_DIR="").json["model_name"] == "from-dotenv"


def test_output_base(run: Path, aml_mirror: Call, database: str) -> None:
    given = ("--model-name", "m", "--tracking-uri", database)
    receipt = aml_mirror(*given, OUTPUT_BASE=str(run.parent), RUN_ID="run-1").json
    assert (receipt["run_id"], receipt["source"]) == ("run-1", str(run))
    assert "run-2" in aml_mirror(*given, OUTPUT_BASE=str(run.parent), RUN_ID="run-2", code=66).err
    aml_mirror(*given, OUTPUT_BASE=str(run.parent), RUN_ID="../run-1", code=64)


def test_doctor(run: Path, aml_mirror: Call, mlflow_url: str, model_name: str) -> None:
    good = ("doctor", "--source", run, "--model-name", model_name, "--tracking-uri", mlflow_url)
    lines = aml_mirror(*good).out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * 5
    assert "artifact store" in lines[4]
    assert "(--model-name)" in lines[0]
    bad = aml_mirror("doctor", "--source", run, "--tracking-uri", "http://127.0.0.1:9", code=64)
    failed = [line for line in bad.out.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 2
    assert "--model-name" in failed[0]
    assert "check the address" in failed[1]
    objects = [json.loads(line) for line in aml_mirror(*good, "--json").out.splitlines()]
    assert all(item["ok"] for item in objects)


def test_status(run: Path, aml_mirror: Call, mlflow_url: str, model_name: str) -> None:
    given = ("--model-name", model_name, "--tracking-uri", mlflow_url)
    never = aml_mirror("status", "--run-id", "run-1", *given, "--json", code=65).json
    assert "never mirrored" in never["missing"]
    aml_mirror("--source", run, *given)
    found = aml_mirror("status", "--source", run, *given, "--json").json
    assert [item["uri"] for item in found["versions"]] == [f"models:/{model_name}/1"]
    assert found["missing"] is None
    assert "checkpoint-20 (step 20), complete" in aml_mirror("status", "--run-id", "run-1", *given).out
    # A mirrored run may have been deleted since. What mirror refuses, status refuses, too.
    gone = aml_mirror("status", "--source", run / "gone", "--run-id", "run-1", *given, "--json").json
    assert gone["versions"] == found["versions"]
    unnamed = ("--source", run, "--model-name", "a/b", "--tracking-uri", mlflow_url)
    refused = [aml_mirror(command, *unnamed, code=64).err for command in ("mirror", "status")]
    assert refused[0] == refused[1] and "a/b" in refused[0]


def test_a_bug_is_one_line_too(run: Path, aml_mirror: Call, tmp_path: Path, database: str) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import sys\n"
        "sys.addaudithook(lambda event, args: event == 'open' and 'config.json' in str(args[0]) and 1 / 0)\n"
    )
    given = ("--source", run, "--model-name", "m", "--tracking-uri", database)
    done = aml_mirror(*given, code=70, fork=False, PYTHONPATH=str(hook))
    assert "ZeroDivisionError" in done.json["error"]
    assert "report it" in done.json["hint"]
    assert "Traceback" not in done.err


# --- words --------------------------------------------------------------------------------------------


def test_what_a_run_does_not_have_is_said_once(run: Path, aml_mirror: Call, database: str) -> None:
    shutil.rmtree(run / "runs")
    plan = aml_mirror("plan", run).out
    assert "without     best checkpoint" in plan and plan.count("no metrics were found") == 1
    assert "0 series" not in plan and "none is kept" not in plan and "will be mirrored" in plan
    done = aml_mirror("mirror", run, "--checkpoint=all", "--model-name", "m", "--tracking-uri", database)
    assert done.err.count("run-1 has no metrics, no best checkpoint") == 1
    assert len(done.out.splitlines()) == 2


def test_a_receipt_and_status_have_the_same_types(run: Path, aml_mirror: Call, database: str) -> None:
    target = ("--model-name", "m", "--tracking-uri", database)
    receipt = aml_mirror("mirror", run, *target).json
    (version,) = aml_mirror("status", run, *target, "--json").json["versions"]
    pairs = {"version": "model_version", "uri": "model_uri", "run_id": "run_id"}
    shared = [(key, pairs.get(key, key)) for key in version if pairs.get(key, key) in receipt]
    assert len(shared) >= 5
    assert {key: version[key] for key, _ in shared} == {key: receipt[other] for key, other in shared}
