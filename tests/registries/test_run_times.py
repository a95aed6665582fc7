"""Runs have the times of their training, and are ordered by when a mirror created them."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from aml_mirror.registries import keys, run_times
from aml_mirror.registries.leftover_runs import left_of
from builders.proxy import Proxy
from builders.runs import WALL_TIME, grow_events, huggingface_run

HOUR = 3_600_000
NOW = run_times.now()


def run(
    name: str, start: int, began: int | None = None, end: int = 0, status: str = "RUNNING", **tags: str
) -> Any:
    """A run as MLflow's client returns it. Times are in milliseconds since the epoch."""
    if began is not None:
        tags[keys.BEGAN] = run_times.as_tag(began)
    info = SimpleNamespace(run_id=name, start_time=start, end_time=end or None, status=status)
    return SimpleNamespace(info=info, data=SimpleNamespace(tags=tags))


def test_the_first_is_the_one_that_a_mirror_made_first() -> None:
    later_training = run("a", NOW - 50 * HOUR, began=NOW - HOUR)
    earlier_training = run("b", NOW - 90 * HOUR, began=NOW)
    # An earlier release gave the run the mirror's time, and no tag.
    of_earlier_release = run("c", NOW - 2 * HOUR)
    twins = [run(name, NOW - 9 * HOUR, began=NOW - 3 * HOUR) for name in "ed"]
    found = sorted([earlier_training, later_training, of_earlier_release, *twins], key=run_times.by_age)
    assert [one.info.run_id for one in found] == ["d", "e", "c", "a", "b"]


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "9" * 400])
def test_a_tag_that_is_no_time_counts_as_none(text: str) -> None:
    odd = run("a", NOW - HOUR, **{keys.BEGAN: text, keys.TRAINED: text})
    assert run_times.by_age(odd) == (NOW - HOUR, "a")
    assert run_times.start_of(odd.data.tags) is None


@pytest.mark.parametrize(
    ("found", "hours"),
    [
        # A training from long ago, whose mirror gave up just now.
        (run("a", NOW - 900 * HOUR, NOW - 5 * HOUR, NOW - 800 * HOUR, "FAILED",
             **{keys.STOPPED: run_times.as_tag(NOW - HOUR)}), 1),
        # An earlier release continued it, and gave up without that tag.
        (run("a", NOW - 900 * HOUR, NOW - 5 * HOUR, NOW - 2 * HOUR, "FAILED"), 2),
        # Killed: nothing was written.
        (run("a", NOW - 900 * HOUR, NOW - 5 * HOUR), 5),
        # Created by an earlier release.
        (run("a", NOW - 7 * HOUR, end=NOW - 6 * HOUR, status="FAILED"), 6),
        (run("a", NOW - 7 * HOUR), 7),
    ],
)  # fmt: skip
def test_the_age_of_a_leftover_is_that_of_its_mirror(found: Any, hours: int) -> None:
    assert left_of(found).age == pytest.approx((time.time() * 1000 - NOW) / 1000 + hours * 3600, abs=60)


def test_a_run_that_ends_in_the_future_begins_now() -> None:
    tags = {keys.TRAINED: run_times.as_tag(NOW + HOUR, NOW + 2 * HOUR)}
    assert run_times.start_of(tags) is None


def test_logs_that_grew_end_the_run_later(
    aml_mirror: Any, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Any
) -> None:
    folder = huggingface_run(tmp_path / "run-7", points=5)
    given = ("--source", folder, "--model-name", model_name, "--tracking-uri", mlflow_url)
    first = aml_mirror(*given).json
    grow_events(folder, [("train/loss", step, 1 / step) for step in range(1, 9)])
    assert aml_mirror(*given).json["outcome"] == "updated"
    info = client.get_run(first["mlflow_run_id"]).info
    begun = int(WALL_TIME * 1000)
    assert (info.start_time, info.end_time, info.status) == (begun, begun + 7000, "FINISHED")


def test_a_failed_attempt_says_when_it_gave_up(
    aml_mirror: Any, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Any
) -> None:
    """A run that is continued ends at the time when its training ended."""
    folder = huggingface_run(tmp_path / "run-7", points=5)

    def call(url: str, code: int) -> Any:
        given = ("--source", folder, "--model-name", model_name, "--tracking-uri", url, "--retry-for", "0s")
        return aml_mirror(*given, code=code)

    def refuse(number: int, moment: str, method: str, path: str) -> int | None:
        return 403 if moment == "before" and path.endswith("/model-versions/create") else None

    with Proxy(mlflow_url) as proxy:
        proxy.interfere = refuse
        call(proxy.url, 77)
    experiment = client.get_experiment_by_name(model_name)
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FAILED"
    assert left_of(found).age < 600
    assert keys.STOPPED in found.data.tags
    began = found.data.tags[keys.BEGAN]
    call(mlflow_url, 0)
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.tags[keys.BEGAN] == began
    assert found.info.end_time == int(WALL_TIME * 1000) + 4000
