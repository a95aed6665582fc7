"""Logs that grow after a run was mirrored into MLflow: the version is updated with each point once, also
after a kill.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from builders.forks import MLFLOW, Forked, forks
from builders.program import Call, clean_environment
from builders.proxy import DROP, Proxy
from builders.runs import grow_events, huggingface_run

SERIES = ("train/loss", "eval/reward")
SHORT, LONG = 700, 1800


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "runs" / "run-7", points=SHORT, series=SERIES)


def grow(run: Path, last: int = LONG) -> None:
    grow_events(run, [(name, step, 1.0 / step) for step in range(1, last + 1) for name in SERIES])


def assert_points(client: MlflowClient, run_id: str, last: int) -> None:
    for name in SERIES:
        steps = sorted(point.step for point in client.get_metric_history(run_id, name))
        assert steps == list(range(1, last + 1)), name


@pytest.mark.parametrize("fixture", ["mlflow_url", "mlflow2_url"])
def test_a_log_that_is_completed_later(
    fixture: str, request: pytest.FixtureRequest, run: Path, model_name: str, aml_mirror: Call, tmp_path: Path
) -> None:
    url = request.getfixturevalue(fixture)
    target = ("--model-name", model_name, "--tracking-uri", url, "--json")
    first = aml_mirror("mirror", run, *target).json
    status = ("status", "--run-id", "run-7", *target)
    assert aml_mirror(*status).json["versions"][0]["logs"] == "recorded"
    grow(run)
    done = aml_mirror("mirror", run, *target).json
    assert (done["outcome"], done["exit_code"], done["model_version"]) == ("updated", 0, "1")
    assert done["mlflow_run_id"] == first["mlflow_run_id"]
    assert done["points"] == (LONG - SHORT) * len(SERIES)
    client = MlflowClient(url, url)
    assert_points(client, first["mlflow_run_id"], LONG)
    events = next((run / "runs").rglob("events*"))
    name = f"tensorboard/{events.relative_to(run).as_posix()}"
    kept = Path(client.download_artifacts(first["mlflow_run_id"], name, str(tmp_path)))
    assert kept.read_bytes() == events.read_bytes()
    again = aml_mirror("mirror", run, *target).json
    assert (again["outcome"], again["model_version"]) == ("already-mirrored", "1")
    assert (
        aml_mirror("verify", f"{model_name}:1", "--tracking-uri", url, "--json").json["outcome"] == "verified"
    )


def test_a_backfill_continues_logs(database: str, run: Path, aml_mirror: Call) -> None:
    target = ("--model-name", "m", "--tracking-uri", database)
    run_id = aml_mirror("mirror", run, "--run-id", "run-7", *target, "--json").json["mlflow_run_id"]
    assert '"outcome":"already-mirrored"' in aml_mirror("backfill", run.parent, *target).out
    grow(run)
    assert '"outcome":"updated"' in aml_mirror("backfill", run.parent, *target).out
    assert_points(MlflowClient(database, database), run_id, LONG)
    assert '"outcome":"already-mirrored"' in aml_mirror("backfill", run.parent, *target).out


def test_a_log_whose_beginning_changed(database: str, run: Path, aml_mirror: Call) -> None:
    target = ("--model-name", "m", "--tracking-uri", database, "--json")
    run_id = aml_mirror("mirror", run, *target).json["mlflow_run_id"]
    events = next((run / "runs").rglob("events*"))

    def change() -> None:
        data = bytearray(events.read_bytes())
        data[200] ^= 1
        events.write_bytes(data)

    # As long as before, corrected, and longer.
    change()
    assert "beginning" in aml_mirror("mirror", run, *target, code=65).json["error"]
    change()
    assert aml_mirror("mirror", run, *target).json["outcome"] == "already-mirrored"
    grow(run)
    change()
    assert "beginning" in aml_mirror("mirror", run, *target, code=65).json["error"]
    assert_points(MlflowClient(database, database), run_id, SHORT)


def test_an_update_that_was_killed_is_finished(
    mlflow_url: str, client: MlflowClient, run: Path, model_name: str, aml_mirror: Call, tmp_path: Path
) -> None:
    """Killed after the first batch of the update has arrived. Then the log grows again."""
    target = ("--model-name", model_name, "--tracking-uri", mlflow_url, "--json")
    run_id = aml_mirror("mirror", run, *target).json["mlflow_run_id"]
    grow(run)
    with Proxy(mlflow_url) as proxy:
        process: Forked | None = None

        def interfere(number: int, moment: str, method: str, path: str) -> str | None:
            if moment != "after" or not path.endswith("runs/log-batch") or process is None:
                return None
            os.kill(process.pid, signal.SIGKILL)
            return DROP

        proxy.interfere = interfere
        words = ["mirror", str(run), "--model-name", model_name, "--tracking-uri", proxy.url, "--json"]
        process = forks(MLFLOW, clean_environment).start(words, tmp_path, clean_environment())
        process.communicate(timeout=600)
        assert process.returncode == -signal.SIGKILL
    grow(run, LONG + 50)
    with Proxy(mlflow_url) as proxy:
        last = ("mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--json")
        assert aml_mirror(*last).json["outcome"] == "updated"
        batches = [path for _, path in proxy.seen if path.endswith("runs/log-batch")]
    assert_points(client, run_id, LONG + 50)
    # 2,200 points of the killed update, of which 999 had arrived, and 100 more. Each of the two updates
    # writes the training's new end in a separate request.
    assert len(batches) == 3 + 2
    (version,) = client.search_model_versions(f"name = '{model_name}'")
    assert version.tags["mirror.state"] == "complete" and version.tags["mirror.logs"]


@pytest.mark.parametrize("fixture", ["mlflow_url", "mlflow2_url", "database"])
def test_an_event_file_without_a_byte(
    fixture: str, request: pytest.FixtureRequest, run: Path, model_name: str, aml_mirror: Call
) -> None:
    url = request.getfixturevalue(fixture)
    (run / "runs" / "empty").mkdir()
    empty = run / "runs" / "empty" / "events.out.tfevents.1760000009.host.1.0"
    empty.touch()
    target = ("--model-name", model_name, "--tracking-uri", url, "--json")
    done = aml_mirror("mirror", run, *target).json
    assert done["outcome"] == "mirrored"
    uri = MlflowClient(url, url).get_run(done["mlflow_run_id"]).info.artifact_uri
    (listed,) = get_artifact_repository(uri, url).list_artifacts("tensorboard/runs/empty")
    assert listed.path.endswith(empty.name)
    assert aml_mirror("mirror", run, *target).json["outcome"] == "already-mirrored"
    aml_mirror("verify", f"{model_name}:1", "--tracking-uri", url)


@pytest.mark.parametrize("damage", ["lost", "changed"])
def test_a_state_of_the_logs_that_was_damaged_is_repaired(
    database: str, run: Path, aml_mirror: Call, damage: str
) -> None:
    target = ("--model-name", "m", "--tracking-uri", database, "--json")
    run_id = aml_mirror("mirror", run, *target).json["mlflow_run_id"]
    folder = Path(MlflowClient(database, database).get_run(run_id).info.artifact_uri) / "mirror"
    (state,) = [path for path in folder.iterdir() if path.name not in ("log-sizes.json", "logs-begun.json")]
    if damage == "lost":
        state.unlink()
    else:
        state.write_text("{}")
    aml_mirror("verify", "m:1", "--tracking-uri", database, code=65)
    aml_mirror("repair", "m:1", "--tracking-uri", database, "--source", run)
    aml_mirror("verify", "m:1", "--tracking-uri", database)
    grow(run)
    assert aml_mirror("mirror", run, *target).json["outcome"] == "updated"
    assert_points(MlflowClient(database, database), run_id, LONG)
