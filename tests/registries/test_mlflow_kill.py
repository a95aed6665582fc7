"""Killed anywhere and started again: one run, one version, every byte right, no point doubled.

The program talks to a real server through a proxy. At a chosen request, before or after the server acts, the
proxy kills the program (SIGKILL: nothing is cleaned up, as with OSMO). Each test then starts the program
again without the proxy's intervention, and checks what the server has stored.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from builders import matrix
from builders.forks import MLFLOW, Forked, forks
from builders.killing import killed_at_request
from builders.program import Call, clean_environment
from builders.proxy import CUT, DROP, Proxy
from builders.runs import huggingface_run

POINTS = 450  # three batches
WHOLE = os.environ.get("KILL") == "all"
PARTS = 8 if WHOLE else 2
MOMENTS = ("before", "after")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that takes more than one request of each kind."""
    return huggingface_run(tmp_path / "run-k", points=POINTS)


def start(run: Path, url: str, model: str, folder: Path, *more: str) -> Forked:
    """Start the program in a fork of a process that has loaded the clients, and do not wait for it."""
    given = [*mirrored(run, model), "--tracking-uri", url, *more]
    return forks(MLFLOW, clean_environment).start(given, folder, clean_environment())


def assert_exactly_once(
    client: MlflowClient, model: str, run: Path, folder: Path, points: int = POINTS
) -> None:
    """One finished run, one complete version, the right bytes, each point once."""
    experiment = client.get_experiment_by_name(model)
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    (version,) = client.search_model_versions(f"name = '{model}'")
    assert version.tags["mirror.state"] == "complete"
    assert version.run_id == found.info.run_id
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert sorted(item.step for item in history) == list(range(1, points + 1))
    # MLflow 2 has no logged models, which the client's own listing requests.
    store = get_artifact_repository(found.info.artifact_uri, client.tracking_uri)
    for name in ("model.safetensors", "config.json"):
        got = Path(store.download_artifacts(f"model/{name}", str(folder)))
        expected = (run / "checkpoint-20" / name).read_bytes()
        assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(expected).digest()
    kept = {item.path for item in store.list_artifacts()}
    assert kept >= {"model", "tensorboard", "manifest.json", "receipt.json", "MODEL_CARD.md"}


def mirrored(run: Path, model: str) -> list[str]:
    return ["--source", str(run), "--model-name", model]


def stage_of(request: str) -> str:
    """The API call of MLflow that a request belongs to."""
    method, _, path = request.partition(" ")
    if "mlflow-artifacts" in path:
        return f"{method} artifact" if "." in path.rpartition("/")[2] else f"{method} artifacts"
    return f"{method} {path.partition('/mlflow/')[2]}"


@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_any_request(
    run: Path, mlflow_url: str, model_name: str, tmp_path: Path, part: int, request: pytest.FixtureRequest
) -> None:
    # `make test-kill` uses every request, before and after the server acts. `make test` uses the first
    # request of each stage, alternating between the two moments.
    stages = stages_of(run, mlflow_url, f"{model_name}-count", tmp_path)
    points = places(stages)
    if not WHOLE:
        firsts = [stages.index(stage) + 1 for stage in dict.fromkeys(stages)]
        assert len(firsts) >= 10
        points = [(number, MOMENTS[at % 2]) for at, number in enumerate(firsts)]
    kill_at_all(points[part::PARTS], run, mlflow_url, model_name, tmp_path, "an MLflow server", request)


@pytest.mark.parametrize("part", range(8 if WHOLE else 1))
@pytest.mark.parametrize("server", ["mlflow2_url", "mlflow_postgres_url"])
def test_killed_at_any_request_to_another_server(
    run: Path, server: str, model_name: str, tmp_path: Path, part: int, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(server)
    points = places(stages_of(run, url, f"{model_name}-count", tmp_path))
    # `make test` uses three: early, in the middle, late.
    points = points[part::8] if WHOLE else points[len(points) // 4 :: len(points) // 4][:3]
    where = {"mlflow2_url": "an MLflow 2 server", "mlflow_postgres_url": "an MLflow server on PostgreSQL"}
    kill_at_all(points, run, url, model_name, tmp_path, where[server], request)


def stages_of(run: Path, url: str, model: str, folder: Path) -> list[str]:
    """The stage of each request that an undisturbed mirror makes."""
    stages = [stage_of(seen) for seen in killed_at_request(mirrored(run, model), url, folder, None).seen]
    assert len(stages) >= 15
    return stages


def places(stages: list[str]) -> list[tuple[int, str]]:
    """Every request of a mirror, before and after the server acts."""
    return [(number, moment) for number in range(1, len(stages) + 1) for moment in MOMENTS]


def kill_at_all(
    points: list[tuple[int, str]], run: Path, url: str, name: str, folder: Path, where: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    """Kill a mirror at each of the requests, start it again, and check what the server has stored."""
    client = MlflowClient(url, url)
    for number, moment in points:
        model = f"{name}-{number}-{moment}"
        at = matrix.Moment(number, moment)
        stage = stage_of(killed_at_request(mirrored(run, model), url, folder, at).struck)
        versions = client.search_model_versions(f"name = '{model}'")
        if any(version.tags["mirror.state"] == "complete" for version in versions):
            assert_exactly_once(client, model, run, folder)
        again = start(run, url, model, folder)
        out, err = again.communicate(timeout=600)
        assert again.returncode == 0, (number, moment, out, err)
        assert_exactly_once(client, model, run, folder)
        outcome = json.loads(out)["outcome"] if stage.strip() else "not reached"
        matrix.note(request, f"killed, into {where} from local", stage, moment, outcome)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal(
    run: Path, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path, aml_mirror: Call,
    signum: signal.Signals,
) -> None:  # fmt: skip
    with Proxy(mlflow_url) as proxy:
        process: Forked | None = None

        def interfere(now: int, when: str, method: str, path: str) -> None:
            if when == "before" and method == "PUT" and "model.safetensors" in path and process:
                os.kill(process.pid, signum)
                time.sleep(0.5)

        proxy.interfere = interfere
        process = start(run, proxy.url, model_name, tmp_path)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 128 + signum
    assert '"outcome":"failed"' in out
    assert "Traceback" not in err
    experiment = client.get_experiment_by_name(model_name)
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "KILLED"
    status = aml_mirror(
        "status",
        "--run-id",
        "run-k",
        "--model-name",
        model_name,
        "--tracking-uri",
        mlflow_url,
        "--json",
        code=65,
    ).json
    assert status["incomplete"][0]["status"] == "KILLED"
    assert "run it again" in status["missing"]
    again = start(run, mlflow_url, model_name, tmp_path)
    _, err = again.communicate(timeout=600)
    assert again.returncode == 0, err
    assert_exactly_once(client, model_name, run, tmp_path)


@pytest.mark.parametrize("what", [DROP, CUT, 503])
def test_every_answer_lost_once(
    run: Path, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path, what: int | str
) -> None:
    """The server acts, but its answer never arrives: each request is sent again, and nothing is
    duplicated.
    """
    lost: set[tuple[str, str]] = set()
    with Proxy(mlflow_url) as proxy:
        proxy.headers = {"Retry-After": "0"}

        def interfere(now: int, when: str, method: str, path: str) -> int | str | None:
            key = (method, path.partition("?")[0])
            if when == "before" or key in lost:
                return None
            lost.add(key)
            return what

        proxy.interfere = interfere
        process = start(run, proxy.url, model_name, tmp_path, "--retry-for", "60s")
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert len(lost) > 10
    assert_exactly_once(client, model_name, run, tmp_path)


@pytest.mark.parametrize("count", [2, 10])
def test_many_mirrors_of_one_run(
    run: Path, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path, count: int
) -> None:
    processes = [start(run, mlflow_url, model_name, tmp_path) for _ in range(count)]
    outcomes = []
    for process in processes:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        outcomes.append(json.loads(out)["outcome"])
    assert sorted(outcomes) == ["already-mirrored"] * (count - 1) + ["mirrored"]
    assert_exactly_once(client, model_name, run, tmp_path)


def test_who_was_first_to_begin_does_not_overtake_who_is_writing(
    run: Path, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path
) -> None:
    """The request that creates the first mirror's run arrives when the second mirror is already writing."""
    with Proxy(mlflow_url) as slow, Proxy(mlflow_url) as fast:
        is_writing, arrived, waits = threading.Event(), threading.Event(), threading.Event()

        def hold(now: int, when: str, method: str, path: str) -> None:
            if when == "before" and path.endswith("runs/create"):
                arrived.set()
                is_writing.wait(600)
            elif when == "before" and is_writing.is_set() and path.endswith("runs/search"):
                searches.append(now)
                if len(searches) > 3:
                    waits.set()

        def write(now: int, when: str, method: str, path: str) -> None:
            if when == "before" and method == "PUT" and "model.safetensors" in path:
                is_writing.set()
                waits.wait(600)

        searches: list[int] = []
        slow.interfere, fast.interfere = hold, write
        first = start(run, slow.url, model_name, tmp_path)
        assert arrived.wait(600)
        second = start(run, fast.url, model_name, tmp_path)
        outcomes = []
        for process in (first, second):
            out, err = process.communicate(timeout=600)
            assert process.returncode == 0, err
            outcomes.append(json.loads(out)["outcome"])
    assert outcomes == ["already-mirrored", "mirrored"]
    assert_exactly_once(client, model_name, run, tmp_path)


@pytest.mark.parametrize("count", [2, 10])
def test_many_runs_into_one_model(
    mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path, count: int
) -> None:
    runs = [huggingface_run(tmp_path / f"run-{index}", steps=(index + 1,)) for index in range(count)]
    processes = [start(run, mlflow_url, model_name, tmp_path) for run in runs]
    for process in processes:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    versions = client.search_model_versions(f"name = '{model_name}'")
    assert sorted(version.tags["osmo.run_id"] for version in versions) == sorted(run.name for run in runs)
    for version in versions:
        name = "model/model.safetensors"
        got = Path(client.download_artifacts(version.run_id, name, str(tmp_path)))
        expected = tmp_path / version.tags["osmo.run_id"] / version.tags["checkpoint"] / "model.safetensors"
        assert got.read_bytes() == expected.read_bytes(), version


def test_a_winner_that_is_killed_is_followed_by_another(
    run: Path, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path
) -> None:
    """Three at once. The one that writes first is killed while it writes."""
    with Proxy(mlflow_url) as proxy:
        at_work, go_on = threading.Event(), threading.Event()

        def interfere(now: int, when: str, method: str, path: str) -> None:
            if when == "before" and method == "PUT" and "model.safetensors" in path:
                at_work.set()
                go_on.wait(600)

        proxy.interfere = interfere
        winner = start(run, proxy.url, model_name, tmp_path)
        assert at_work.wait(600)
        others = [start(run, mlflow_url, model_name, tmp_path) for _ in range(2)]
        winner.kill()
        go_on.set()
        assert winner.wait(600) == -signal.SIGKILL
        outcomes = []
        for process in others:
            out, err = process.communicate(timeout=600)
            assert process.returncode == 0, err
            outcomes.append(json.loads(out)["outcome"])
    assert sorted(outcomes) == ["already-mirrored", "mirrored"]
    assert_exactly_once(client, model_name, run, tmp_path)


def test_short_upload_is_seen(
    run: Path, mlflow_url: str, model_name: str, tmp_path: Path, client: MlflowClient
) -> None:
    """A store that saves half of a file and reports success is not believed."""
    with Proxy(mlflow_url) as proxy:
        proxy.interfere = lambda now, when, method, path: (
            200 if when == "before" and method == "PUT" and "model.safetensors" in path else None
        )
        process = start(run, proxy.url, model_name, tmp_path, "--retry-for", "1s")
        _, err = process.communicate(timeout=600)
    assert process.returncode == 75, err
    assert "model/model.safetensors arrived with only 0 of" in err
    assert not client.search_model_versions(f"name = '{model_name}'")
    experiment = client.get_experiment_by_name(model_name)
    assert [item.info.status for item in client.search_runs([experiment.experiment_id])] == ["FAILED"]
    again = start(run, mlflow_url, model_name, tmp_path)
    _, err = again.communicate(timeout=600)
    assert again.returncode == 0, err
    assert_exactly_once(client, model_name, run, tmp_path)
