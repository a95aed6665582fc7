"""Killed anywhere and started again: one run, one version, every byte right, no point doubled.

The program talks to a real server through a proxy, which kills it (SIGKILL: nothing is cleaned up, as
under OSMO) at a chosen request, before the server hears of it or after it acted. Each test then starts the
program again, with nothing in the way, and looks at what the server holds.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from support.program import PROGRAM, Call, clean_environment
from support.proxy import CUT, DROP, Proxy
from support.runs import huggingface_run

POINTS = 450  # three batches


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that takes more than one request of each kind."""
    return huggingface_run(tmp_path / "run-k", points=POINTS)


def start(run: Path, url: str, model: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    """Start the program and do not wait for it."""
    return subprocess.Popen(
        [PROGRAM, "--source", str(run), "--model-name", model, "--tracking-uri", url, *more],
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
    for name in ("model.safetensors", "config.json"):
        got = Path(client.download_artifacts(found.info.run_id, f"model/{name}", str(folder)))
        expected = (run / "checkpoint-20" / name).read_bytes()
        assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(expected).digest()
    kept = {item.path for item in client.list_artifacts(found.info.run_id)}
    assert kept == {"model", "tensorboard", "manifest.json", "receipt.json", "MODEL_CARD.md"}


def requests_of_one_mirror(run: Path, url: str, model: str, folder: Path) -> int:
    """How many requests an undisturbed mirror makes, renewals of the lease apart."""
    with Proxy(url) as proxy:
        process = start(run, proxy.url, model, folder)
        assert process.wait(120) == 0
        return len(proxy.seen)


def kill_at(run: Path, url: str, model: str, folder: Path, number: int, moment: str) -> None:
    """Run the program and kill it at a request."""
    with Proxy(url) as proxy:
        process: subprocess.Popen[str] | None = None

        def interfere(now: int, when: str, method: str, path: str) -> str | None:
            if (now, when) != (number, moment):
                return None
            while process is None:
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
            process.wait(30)
            return DROP

        proxy.interfere = interfere
        process = start(run, proxy.url, model, folder)
        process.wait(120)
        assert process.returncode in (-signal.SIGKILL, 0)


@pytest.mark.parametrize("part", range(8))
def test_killed_at_any_request(
    run: Path, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path, part: int
) -> None:
    total = requests_of_one_mirror(run, mlflow_url, f"{model_name}-count", tmp_path)
    assert total >= 15
    # `make test-kill` takes every request, before and after the server acted; `make test` every other
    # request, at one of the two moments in turn.
    points = [(number, moment) for number in range(1, total + 1) for moment in ("before", "after")]
    start_at, stride = (part, 8) if os.environ.get("KILL") == "all" else (4 * part + part % 2, 32)
    for number, moment in points[start_at::stride]:
        model = f"{model_name}-{number}-{moment}"
        kill_at(run, mlflow_url, model, tmp_path, number, moment)
        versions = client.search_model_versions(f"name = '{model}'")
        if any(version.tags["mirror.state"] == "complete" for version in versions):
            assert_exactly_once(client, model, run, tmp_path)
        again = start(run, mlflow_url, model, tmp_path)
        out, err = again.communicate(timeout=120)
        assert again.returncode == 0, (number, moment, out, err)
        assert_exactly_once(client, model, run, tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal(
    run: Path, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path, aml_mirror: Call,
    signum: signal.Signals,
) -> None:  # fmt: skip
    with Proxy(mlflow_url) as proxy:
        process: subprocess.Popen[str] | None = None

        def interfere(now: int, when: str, method: str, path: str) -> None:
            if when == "before" and method == "PUT" and "model.safetensors" in path and process:
                os.kill(process.pid, signum)
                time.sleep(0.5)

        proxy.interfere = interfere
        process = start(run, proxy.url, model_name, tmp_path)
        out, err = process.communicate(timeout=120)
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
    assert again.wait(120) == 0
    assert_exactly_once(client, model_name, run, tmp_path)


@pytest.mark.parametrize("what", [DROP, CUT, 503])
def test_every_answer_lost_once(
    run: Path, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path, what: int | str
) -> None:
    """The server acts, and its answer never arrives: each request is sent again, and nothing is doubled."""
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
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert len(lost) > 10
    assert_exactly_once(client, model_name, run, tmp_path)


def test_two_at_once(
    run: Path, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path
) -> None:
    processes = [start(run, mlflow_url, model_name, tmp_path) for _ in range(3)]
    outcomes = []
    for process in processes:
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        outcomes.append("already-mirrored" in out)
    assert sorted(outcomes) == [False, True, True]
    assert_exactly_once(client, model_name, run, tmp_path)


def test_two_runs_into_one_model(
    mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path
) -> None:
    runs = [huggingface_run(tmp_path / f"run-{index}", steps=(index + 1,)) for index in range(2)]
    processes = [start(run, mlflow_url, model_name, tmp_path) for run in runs]
    for process in processes:
        assert process.wait(240) == 0, process.stderr
    versions = client.search_model_versions(f"name = '{model_name}'")
    assert sorted(version.tags["osmo.run_id"] for version in versions) == ["run-0", "run-1"]


def test_short_upload_is_seen(
    run: Path, mlflow_url: str, model_name: str, tmp_path: Path, client: MlflowClient
) -> None:
    """A store that keeps half of a file and says that all is well is not believed."""
    with Proxy(mlflow_url) as proxy:
        proxy.interfere = lambda now, when, method, path: (
            200 if when == "before" and method == "PUT" and "model.safetensors" in path else None
        )
        process = start(run, proxy.url, model_name, tmp_path, "--retry-for", "1s")
        _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "model/model.safetensors arrived with 0 of" in err
    assert not client.search_model_versions(f"name = '{model_name}'")
    experiment = client.get_experiment_by_name(model_name)
    assert [item.info.status for item in client.search_runs([experiment.experiment_id])] == ["FAILED"]
    again = start(run, mlflow_url, model_name, tmp_path)
    assert again.wait(120) == 0
    assert_exactly_once(client, model_name, run, tmp_path)
