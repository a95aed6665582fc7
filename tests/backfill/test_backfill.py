"""Many runs in one call, into a real MLflow server: which are mirrored, with how many requests, and the
output.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from aml_mirror.backfill import backfill as module
from aml_mirror.backfill import outcomes
from aml_mirror.core.errors import UsageError
from aml_mirror.pipeline.receipt import SCHEMA
from aml_mirror.registries import mlflow_runs
from aml_mirror.registries.mlflow import tracking_server
from builders.backfills import backfill
from builders.permissions import public_folder, somebody_else
from builders.program import PROGRAM, Call, clean_environment
from builders.proxy import Proxy
from builders.runs import huggingface_run, small_run


def cut(run: Path) -> None:
    """Leave no complete checkpoint in a run."""
    for weights in run.rglob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-5])


@pytest.fixture
def proxy(mlflow_url: str) -> Iterator[Proxy]:
    with Proxy(mlflow_url) as found:
        yield found


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Three runs by id, two of them in a group, and other folders that are not runs."""
    base = tmp_path / "base"
    for seed, path in enumerate(("one", "sweep/seed0", "sweep/seed1")):
        small_run(base / path, seed)
    (base / "empty").mkdir()
    (base / "notes").mkdir()
    (base / "notes" / "read.me").write_text("x")
    for skipped in ("lost+found", ".snapshot/one"):
        small_run(base / skipped)
    (base / "latest").symlink_to("one")
    return base


# How a backfill finds out which runs of a model's versions exist: from the experiment, the names in its
# artifact folder, and a page of its runs.
RUNS_ASKED = ("experiments/get-by-name", "artifacts", "runs/search")


def asked(proxy: Proxy) -> Counter[str]:
    """The number of requests to each part of MLflow's API."""
    paths = (urlsplit(path).path for _, path in proxy.seen)
    return Counter(re.sub(r"^/api/2\.0/mlflow(-artifacts)?/", "", path) for path in paths)


def versions(client: MlflowClient, model: str) -> dict[str, str]:
    """Number -> run id of each version."""
    found = client.search_model_versions(f"name = '{model}'")
    assert all(item.tags["mirror.state"] == "complete" for item in found)
    return {str(item.version): item.tags["osmo.run_id"] for item in found}


def test_a_dry_run_shows_what_would_be_done_and_writes_nothing(
    base: Path, proxy: Proxy, client: MlflowClient, model_name: str
) -> None:
    given = ("--source", base, "--model-name", model_name, "--tracking-uri", proxy.url)
    backfill(*given, "--match", "one")
    small_run(base / "bad", 9)
    cut(base / "bad")
    before = versions(client, model_name)
    proxy.seen.clear()
    found = backfill(*given, "--dry-run")
    assert found.outcomes == {
        "bad": "failed",
        "one": "already-mirrored",
        "sweep/seed0": "planned",
        "sweep/seed1": "planned",
    }
    receipt = found.receipt("sweep/seed0")
    assert (receipt.checkpoint, receipt.model_name) == ("checkpoint-1", model_name)
    assert receipt.bytes > 0 and receipt.files >= 2 and receipt.manifest_sha256 is None
    assert (found.summary.planned, found.summary.mirrored, found.summary.exit_code) == (2, 0, 65)
    table = found.summary.table()
    assert "2 will be mirrored, 1 already there, 0 skipped, 1 failed" in table
    rows = [line for line in table.splitlines() if line.startswith("will be mirrored  sweep/seed")]
    assert len(rows) == 2 and all(f"  huggingface  into {model_name}" in row for row in rows)
    assert {method for method, path in proxy.seen if "search" not in path} <= {"GET"}
    assert versions(client, model_name) == before
    assert backfill(*given, "--dry-run", "--limit", "1").summary.planned == 1


def test_a_pattern_that_matches_no_run_is_an_error_with_the_nearest_names(
    base: Path, mlflow_url: str, model_name: str
) -> None:
    given = ("--source", base, "--model-name", model_name, "--tracking-uri", mlflow_url)
    found = backfill(*given, "--match", "sweep/sede*")
    assert (found.summary.exit_code, found.summary.outcome) == (66, "stopped")
    assert found.summary.error == "no run matches --match sweep/sede*"
    assert str(found.summary.hint).startswith("there are: sweep/seed")
    # The matching runs may be in another shard.
    assert backfill(*given, "--match", "one", "--shard", "0/2", "--dry-run").summary.exit_code == 0
    assert backfill(*given, "--match", "one", "--shard", "1/2", "--dry-run").summary.exit_code == 0


# --- what is mirrored ---------------------------------------------------------------------------------


def test_what_is_not_there_is_mirrored_once(
    base: Path, proxy: Proxy, client: MlflowClient, model_name: str
) -> None:
    small_run(base / "bad", 9)
    cut(base / "bad")
    given = ("--source", base, "--model-name", model_name, "--tracking-uri", proxy.url)
    first = backfill(*given)
    assert first.outcomes == {
        "bad": "failed", "one": "mirrored", "sweep/seed0": "mirrored", "sweep/seed1": "mirrored",
    }  # fmt: skip
    assert first.summary.exit_code == 65
    bad = first.receipt("bad")
    assert (bad.exit_code, bad.source) == (65, str(base / "bad"))
    assert "no complete checkpoint" in str(bad.error)
    assert (first.summary.no_run, first.summary.mirrored, first.summary.failed) == (2, 3, 1)
    assert sorted(versions(client, model_name).values()) == ["one", "sweep/seed0", "sweep/seed1"]

    proxy.seen.clear()
    again = backfill(*given)
    assert set(again.outcomes.values()) == {"failed", "already-mirrored"}
    one, before = again.receipt("one"), first.receipt("one")
    for key in ("model_version", "mlflow_run_id", "manifest_sha256", "checkpoint", "step", "files", "bytes"):
        assert getattr(one, key) == getattr(before, key), key
    # One page of versions and one of runs for all; and the versions of the failing run, which it requests
    # itself.
    assert asked(proxy) == Counter(["model-versions/search", *RUNS_ASKED, "model-versions/search"])
    assert sorted(versions(client, model_name).values()) == ["one", "sweep/seed0", "sweep/seed1"]


def test_already_there_costs_pages_not_requests(
    tmp_path: Path, proxy: Proxy, model_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(5):
        small_run(tmp_path / "base" / f"run-{index}", index)
    given = ("--source", tmp_path / "base", "--model-name", model_name, "--tracking-uri", proxy.url)
    backfill(*given)
    proxy.seen.clear()
    assert set(backfill(*given).outcomes.values()) == {"already-mirrored"}
    assert asked(proxy) == Counter(["model-versions/search", *RUNS_ASKED])
    # Three pages of versions, two pages of the five runs, and the experiment and its folder once.
    monkeypatch.setattr(tracking_server, "VERSIONS_PAGE", 2)
    monkeypatch.setattr(mlflow_runs, "PAGE", 3)
    proxy.seen.clear()
    assert set(backfill(*given).outcomes.values()) == {"already-mirrored"}
    assert asked(proxy) == Counter(["model-versions/search"] * 3 + [*RUNS_ASKED, "runs/search"])


def test_what_a_single_mirror_did_is_recognised(
    base: Path, aml_mirror: Call, mlflow_url: str, client: MlflowClient, model_name: str
) -> None:
    given = ("--model-name", model_name, "--tracking-uri", mlflow_url)
    # By its folder, like a run in OUTPUT_BASE. A member of a group has only its own name.
    aml_mirror(*given, OUTPUT_BASE=str(base), RUN_ID="one")
    aml_mirror("--source", base / "sweep" / "seed0", *given)
    found = backfill("--source", base, *given)
    assert found.outcomes == {
        "one": "already-mirrored", "seed0": "already-mirrored", "sweep/seed1": "mirrored",
    }  # fmt: skip
    # A backfill of the group itself and a single mirror see the same runs.
    inside = backfill("--source", base / "sweep", *given)
    assert inside.outcomes == {"seed0": "already-mirrored", "sweep/seed1": "already-mirrored"}
    assert sorted(versions(client, model_name).values()) == ["one", "seed0", "sweep/seed1"]


def test_two_runs_of_one_name_are_two(
    tmp_path: Path, mlflow_url: str, client: MlflowClient, model_name: str
) -> None:
    base = tmp_path / "base"
    for index in range(2):
        small_run(base / "a" / f"seed{index}", 1)
        small_run(base / "b" / f"seed{index}", 1)
    found = backfill("--source", base, "--model-name", model_name, "--tracking-uri", mlflow_url)
    assert sorted(found.outcomes) == ["a/seed0", "a/seed1", "b/seed0", "b/seed1"]
    assert sorted(versions(client, model_name).values()) == sorted(found.outcomes)


def test_ids_and_models_do_not_depend_on_what_is_beside_a_run(
    tmp_path: Path, mlflow_url: str, client: MlflowClient, model_name: str
) -> None:
    base = tmp_path / "base"
    small_run(base / "logs" / "rsl_rl" / "h1_flat" / "1", 0)
    template = f"{model_name}-{{parent}}"
    given = ("--source", base, "--model-name", template, "--tracking-uri", mlflow_url)
    assert backfill(*given).outcomes == {"logs/rsl_rl/h1_flat/1": "mirrored"}
    small_run(base / "logs" / "rsl_rl" / "h1_flat" / "2", 1)
    small_run(base / "logs" / "rsl_rl" / "spot" / "1", 2)
    assert backfill(*given).outcomes == {
        "logs/rsl_rl/h1_flat/1": "already-mirrored",
        "logs/rsl_rl/h1_flat/2": "mirrored",
        "logs/rsl_rl/spot/1": "mirrored",
    }
    shutil.rmtree(base / "logs" / "rsl_rl" / "h1_flat" / "2")
    assert set(backfill(*given).outcomes.values()) == {"already-mirrored"}
    assert sorted(versions(client, f"{model_name}-h1_flat").values()) == [
        "logs/rsl_rl/h1_flat/1", "logs/rsl_rl/h1_flat/2",
    ]  # fmt: skip
    assert list(versions(client, f"{model_name}-spot").values()) == ["logs/rsl_rl/spot/1"]


@pytest.mark.parametrize(("old", "model"), [("logs", "{}-base"), ("logs/rsl_rl/h1_flat", "{}-rsl_rl")])
def test_versions_that_an_earlier_release_made_under_other_names_are_recognised(
    tmp_path: Path,
    aml_mirror: Call,
    mlflow_url: str,
    client: MlflowClient,
    model_name: str,
    old: str,
    model: str,
) -> None:
    """Earlier releases named a run, and with a template its model, after the topmost folder with no other run
    in it.
    """
    base = tmp_path / "base"
    small_run(base / "logs" / "rsl_rl" / "h1_flat" / "1", 0)
    named = model.format(model_name)
    aml_mirror("--source", base / old, "--run-id", old, "--model-name", named, "--tracking-uri", mlflow_url)
    given = ("--source", base, "--model-name", f"{model_name}-{{parent}}", "--tracking-uri", mlflow_url)
    found = backfill(*given)
    assert found.outcomes == {old: "already-mirrored"}
    assert list(versions(client, named).values()) == [old]


def test_what_another_mount_shows_is_compared_and_noted_once(
    base: Path, proxy: Proxy, client: MlflowClient, model_name: str
) -> None:
    given = ("--model-name", model_name, "--tracking-uri", proxy.url)
    backfill("--source", base, *given)
    moved = shutil.copytree(base, base.with_name("moved"), symlinks=True)
    proxy.seen.clear()
    assert set(backfill("--source", moved, *given).outcomes.values()) == {"already-mirrored"}
    # Each run gets a new quick key and, once its logs have been compared, new stamps of them, under a claim.
    # MLflow's client reads the model before it writes a tag.
    written = [*["registered-models/get", "model-versions/set-tag"] * 2, "model-versions/get"] * 3
    claims = [*["runs/get"] * 4, *["runs/set-tag"] * 2] * 3
    found = asked(proxy)
    states = [name for name in found if "/mirror/logs-" in name]
    assert len(states) == 3 and all(found.pop(name) == 2 for name in states)
    assert found == Counter(["model-versions/search", *RUNS_ASKED, *written, *claims])
    # Now it is recognised by its new stamps.
    proxy.seen.clear()
    assert set(backfill("--source", moved, *given).outcomes.values()) == {"already-mirrored"}
    assert asked(proxy) == Counter(["model-versions/search", *RUNS_ASKED])
    assert len(versions(client, model_name)) == 3


def test_all_checkpoints(tmp_path: Path, mlflow_url: str, client: MlflowClient, model_name: str) -> None:
    huggingface_run(tmp_path / "base" / "one", points=3)
    given = ("--source", tmp_path / "base", "--model-name", model_name, "--tracking-uri", mlflow_url)
    backfill(*given)
    found = backfill(*given, "--checkpoint", "all")
    assert [(one.checkpoint, one.outcome) for one in found.receipts] == [
        ("checkpoint-10", "mirrored"),
        ("checkpoint-20", "already-mirrored"),
    ]
    assert (found.summary.mirrored, found.summary.versions) == (1, 1)
    found = backfill(*given, "--checkpoint", "all")
    assert [one.outcome for one in found.receipts] == ["already-mirrored"] * 2
    assert (found.summary.already, found.summary.versions) == (1, 0)
    assert len(versions(client, model_name)) == 2


def test_what_is_said_of_one_run_is_not_written_to_all(
    base: Path, mlflow_url: str, client: MlflowClient, model_name: str
) -> None:
    given = ("--model-name", model_name, "--tracking-uri", mlflow_url, "--tag", "robot=ur5e")
    variables = {
        "OUTPUT_BASE": str(base), "OUTPUT_DIR": "/nowhere", "RUN_ID": "x", "REPLAY_RUN_ID": "x",
        "BATCH_SIZE": "7", "TRAINING_FRAMEWORK": "groot",
    }  # fmt: skip
    found = backfill(*given, **variables)
    run = client.get_run(str(found.receipt("one").mlflow_run_id))
    assert run.data.tags["osmo.run_id"] == run.info.run_name == "one"
    assert run.data.tags["robot"] == "ur5e"
    assert run.data.tags["framework"] == "huggingface"
    assert "osmo.replay" not in run.data.tags
    assert not [name for name in run.data.params if "BATCH" in name.upper()]


# --- which runs ---------------------------------------------------------------------------------------


def test_match_exclude_since_limit_and_shards(
    base: Path, mlflow_url: str, client: MlflowClient, model_name: str
) -> None:
    old = small_run(base / "old", 7)
    for path in old.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    given = ("--source", base, "--model-name", model_name, "--tracking-uri", mlflow_url)
    found = backfill(
        *given, "--match", "sweep", "--match", "o*", "--exclude-run", "*0", "--since", "7d", "--limit", "1"
    )
    assert found.outcomes == {
        "old": "skipped", "one": "mirrored", "sweep/seed0": "skipped", "sweep/seed1": "skipped",
    }  # fmt: skip
    (old,) = found.receipt("old").warnings
    assert re.fullmatch(r"its newest file is older than --since \d{4}-\d\d-\d\d \d\d:\d\d UTC", old)
    assert [found.receipt(name).warnings for name in ("sweep/seed0", "sweep/seed1")] == [
        ("--exclude-run leaves it out",),
        ("--limit 1 was reached before it",),
    ]
    assert found.summary.exit_code == 0
    # Runs that are already mirrored do not count.
    assert backfill(*given, "--limit", "2").summary.mirrored == 2
    assert len(versions(client, model_name)) == 3
    parts = [backfill(*given, "--shard", f"{shard}/3") for shard in range(3)]
    together = [name for part in parts for name in part.outcomes]
    assert sorted(together) == ["old", "one", "sweep/seed0", "sweep/seed1"]
    assert sum(part.summary.mirrored for part in parts) == 1
    assert all(part.summary.found + part.summary.other_shards == 4 for part in parts)
    assert sum(part.summary.no_run for part in parts) == 2


def test_names_from_a_template(base: Path, mlflow_url: str, client: MlflowClient, model_name: str) -> None:
    small_run(base / "a:b", 5)
    template = f"{model_name}-{{framework}}-{{parent}}-{{run_id}}"
    given = ("--source", base, "--model-name", template, "--tracking-uri", mlflow_url)
    found = backfill(*given)
    # If the server refuses a name, only that run fails, before anything is sent.
    assert found.outcomes["a:b"] == "failed"
    assert found.receipt("a:b").exit_code == 64
    assert found.summary.exit_code == 65
    assert {one.model_name for one in found.receipts if one.outcome == "mirrored"} == {
        f"{model_name}-huggingface-base-one",
        f"{model_name}-huggingface-sweep-sweep-seed0",
        f"{model_name}-huggingface-sweep-sweep-seed1",
    }
    again = backfill(*given, "--exclude-run", "a:b").outcomes
    assert again.pop("a:b") == "skipped"
    assert list(again.values()) == ["already-mirrored"] * 3


# --- what goes wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "code"), [(403, 77), (401, 77)])
def test_a_refusal_ends_the_work_at_once(
    base: Path, proxy: Proxy, client: MlflowClient, model_name: str, status: int, code: int
) -> None:
    proxy.interfere = lambda number, moment, method, path: status if "runs/create" in path else None
    found = backfill("--source", base, "--model-name", model_name, "--tracking-uri", proxy.url)
    assert found.outcomes == {"one": "failed"}
    assert (found.summary.outcome, found.summary.exit_code) == ("stopped", code)
    assert found.receipt("one").exit_code == code
    assert f"{code}" in found.summary.table()


def test_a_service_that_is_down_is_not_waited_for_run_after_run(
    tmp_path: Path, proxy: Proxy, model_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(6):
        small_run(tmp_path / "base" / f"run-{index}", index)
    given = ("--source", tmp_path / "base", "--model-name", model_name, "--tracking-uri", proxy.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(outcomes, "SHORT_RETRY", 0.0)
    waits: list[float] = []
    real = module.Backfill._be_patient_for

    def noted(self: module.Backfill, seconds: float) -> None:
        waits.append(seconds)
        real(self, seconds)

    monkeypatch.setattr(module.Backfill, "_be_patient_for", noted)
    down = {"runs": 2}

    def fail_twice(number: int, moment: str, method: str, path: str) -> int | None:
        if moment == "before" and "runs/create" in path and down["runs"]:
            down["runs"] -= 1
            return 503
        return None

    proxy.interfere = fail_twice
    found = backfill(*given, "--retry-for", "0s")
    assert list(found.outcomes.values()) == ["failed"] * 2 + ["mirrored"] * 4
    assert (found.summary.exit_code, found.summary.outcome) == (75, "done")
    # Less patience after a failure, and full patience again once the service has answered.
    assert waits == [0.0, 0.0, 0.0]

    proxy.interfere = lambda number, moment, method, path: 503
    found = backfill(*given, "--retry-for", "0s")
    assert list(found.outcomes.values()) == ["failed"] * outcomes.GIVE_UP_AFTER
    assert (found.summary.exit_code, found.summary.outcome) == (75, "stopped")
    assert "3 runs in a row" in str(found.summary.error)


def test_a_run_that_is_still_written_is_its_own_failure(
    base: Path, proxy: Proxy, client: MlflowClient, model_name: str
) -> None:
    config = base / "one" / "checkpoint-1" / "config.json"
    whole = config.read_text()

    def write(number: int, moment: str, method: str, path: str) -> None:
        if "runs/create" in path and moment == "before" and config.read_text() == whole:
            config.write_text(whole + " ")

    proxy.interfere = write
    given = ("--source", base, "--model-name", model_name, "--tracking-uri", proxy.url)
    found = backfill(*given)
    assert found.outcomes == {"one": "failed", "sweep/seed0": "mirrored", "sweep/seed1": "mirrored"}
    assert "changed" in str(found.receipt("one").error)
    assert (found.receipt("one").exit_code, found.summary.exit_code) == (65, 65)
    assert backfill(*given).outcomes["one"] == "mirrored"


def test_a_bug_in_one_run_does_not_keep_the_others(
    base: Path, mlflow_url: str, model_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aml_mirror.layouts.huggingface.layout import HuggingFace

    read = HuggingFace.read

    def broken(self: HuggingFace, run: object) -> object:
        if str(getattr(run, "source").uri).endswith("one"):  # noqa: B009
            raise ZeroDivisionError("a bug")
        return read(self, run)  # type: ignore[arg-type]

    monkeypatch.setattr(HuggingFace, "read", broken)
    found = backfill("--source", base, "--model-name", model_name, "--tracking-uri", mlflow_url)
    assert found.outcomes == {"one": "failed", "sweep/seed0": "mirrored", "sweep/seed1": "mirrored"}
    assert (found.receipt("one").exit_code, found.summary.exit_code) == (70, 70)


def test_a_signal_ends_it_with_what_was_done(
    base: Path, proxy: Proxy, client: MlflowClient, model_name: str, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [PROGRAM, "backfill", "--source", base, "--model-name", model_name, "--tracking-uri", proxy.url],
        env=clean_environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    created: list[int] = []

    def stop(number: int, moment: str, method: str, path: str) -> None:
        if moment == "after" and "runs/create" in path:
            created.append(number)
        if len(created) == 2 and moment == "before" and "runs/log-batch" in path:
            process.send_signal(signal.SIGTERM)
            created.append(number)

    proxy.interfere = stop
    out, err = process.communicate(timeout=600)
    assert process.returncode == 143, out + err
    *lines, last = map(json.loads, out.splitlines())
    assert [(line["schema"], line["run_id"], line["exit_code"]) for line in lines] == [
        (SCHEMA, "one", 0),
        (SCHEMA, "sweep/seed0", 143),
    ]
    assert (last["schema"], last["outcome"], last["exit_code"]) == ("aml-mirror/backfill/v1", "stopped", 143)
    assert (last["mirrored"], last["failed"]) == (1, 1)
    assert re.search(r"^mirrored +one\b", err, re.MULTILINE)
    (experiment,) = [client.get_experiment_by_name(model_name)]
    statuses = {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}
    assert statuses == {"one": "FINISHED", "sweep/seed0": "KILLED"}


# --- what a person sees -------------------------------------------------------------------------------


def test_lines_and_table(base: Path, aml_mirror: Call, mlflow_url: str, model_name: str) -> None:
    given = ("--source", base, "--model-name", model_name, "--tracking-uri", mlflow_url)
    small_run(base / "bad", 3)
    cut(base / "bad")
    done = aml_mirror("backfill", *given, code=65)
    *lines, last = map(json.loads, done.out.splitlines())
    assert {line["schema"] for line in lines} == {SCHEMA}
    assert [line["run_id"] for line in lines] == ["bad", "one", "sweep/seed0", "sweep/seed1"]
    assert last["schema"] == "aml-mirror/backfill/v1"
    counts = {"found": 4, "mirrored": 3, "failed": 1, "folders_without_a_run": 2, "exit_code": 65}
    assert {key: last[key] for key in counts} == counts
    (failure,) = last["failures"]
    assert (failure["run_id"], failure["exit_code"]) == ("bad", 65)
    rows = done.err.splitlines()
    assert any(re.match(r"failed +bad +65  the run contains no", row) for row in rows)
    assert "4 run(s): 3 mirrored, 0 already there, 0 skipped, 1 failed, 2 folder(s) without a run" in rows[-1]


def test_what_cannot_be_meant(base: Path, aml_mirror: Call, tmp_path: Path, mlflow_url: str) -> None:
    target = ("--model-name", "m", "--tracking-uri", mlflow_url)
    for arguments, code, words in (
        ((), 64, "neither --source nor OUTPUT_BASE"),
        (("--source", base, "--shard", "3/3"), 64, "counted from 0"),
        (("--source", base, "--model-name", "m-{nam}"), 64, "{run_id}, the run's id"),
        (("--source", base, "--tag", "identity=x"), 64, "the mirror itself writes"),
        (("--source", base / "one"), 64, "is one huggingface run"),
        (("--source", tmp_path / "nowhere"), 66, "does not exist"),
        (("--source", base / "notes"), 65, "no run was found below"),
    ):
        flags = [str(part) for part in arguments]
        with_target = [
            part for part in target if part not in ("--model-name", "m") or "--model-name" not in flags
        ]
        process = backfill_code(flags + with_target)
        assert process[0] == code, (arguments, process)
        assert words in process[1], (arguments, process)
    assert "example" in aml_mirror("backfill", "--help").out


def backfill_code(arguments: list[str]) -> tuple[int, str]:
    """Exit code and error of a backfill that cannot start."""
    try:
        found = backfill(*arguments)
    except UsageError as error:
        return error.exit_code, f"{error.message}; {error.hint}"
    return found.summary.exit_code, f"{found.summary.error}; {found.summary.hint}"


def test_a_run_that_may_not_be_read_does_not_keep_the_others(mlflow_url: str, model_name: str) -> None:
    """A folder, a file and a checkpoint belong to another user. The backfill mirrors everything else."""
    with public_folder() as base:
        for seed, name in enumerate(("a", "b", "c", "d", "e/f")):
            small_run(base / name, seed)
        for path in base.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (base / "a").chmod(0)
        (base / "b" / "checkpoint-1" / "model.safetensors").chmod(0)
        shutil.copytree(base / "d" / "checkpoint-1", base / "c" / "checkpoint-2")
        (base / "c" / "checkpoint-2").chmod(0)
        given = ("--source", base, "--tracking-uri", mlflow_url, "--model-name")
        # Python itself may be readable only by root, so everything that it would load later is loaded first.
        backfill(*given, f"{model_name}-before", "--limit", "1")
        with somebody_else():
            done = backfill(*given, model_name)
    assert done.outcomes == {"a": "failed", "b": "failed", "c": "failed", "d": "mirrored", "e/f": "mirrored"}
    assert {done.receipt(name).exit_code for name in "abc"} == {77}
    assert "checkpoint-2 cannot be listed" in (done.receipt("c").error or "")
    assert (done.summary.outcome, done.summary.exit_code) != ("stopped", 0)
    assert done.summary.exit_code == 77
