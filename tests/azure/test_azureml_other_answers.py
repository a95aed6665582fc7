"""Services that answer differently from the emulator's default: late, with other texts, or twice."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from aml_mirror.core.errors import NotAllowed
from aml_mirror.registries.azureml import run_artifacts
from azure_emulator.client import Azure
from builders.runs import huggingface_run
from mirroring import Mirroring, assert_exactly_once, wait_until_asked

POINTS = 450
LONG = 600  # seconds, more than any test takes


@pytest.fixture
def mirroring(mirroring: Mirroring) -> Mirroring:
    """Calls in quick succession: lists and searches do not show the previous call yet."""
    mirroring.settles = False
    return mirroring


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-7", points=POINTS)


def test_searches_and_lists_that_are_behind(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    """A mirrored run is recognised although no search or list shows its run and version yet."""
    first = mirroring.mirror(run, "reach").json
    again = mirroring.mirror(run, "reach").json
    assert (first["outcome"], again["outcome"]) == ("mirrored", "already-mirrored")
    assert (again["model_version"], again["mlflow_run_id"]) == ("1", first["mlflow_run_id"])
    assert_exactly_once(azure, "reach", run, POINTS)


@pytest.mark.parametrize("lag", [2, LONG])
@pytest.mark.parametrize(
    ("match", "nth"), [("runs/log-batch", 4), (r"PUT .*/versions/1\?", 1), ("runs/update", 1)]
)
def test_killed_where_searches_are_behind(
    azure: Azure, mirroring: Mirroring, run: Path, match: str, nth: int, lag: float
) -> None:
    """A search may show an old state of a run, so its marks, and thus its points, are read from the run
    itself.
    """
    azure.set_workspace(list_lag=lag, metric_rows="kept")
    azure.fault("kill", match=match, nth=nth, when="after")
    assert mirroring.mirror(run, "reach", code=None).code == -signal.SIGKILL
    azure.clear_faults()
    mirroring.mirror(run, "reach")
    assert_exactly_once(azure, "reach", run, POINTS)


def test_a_number_is_free_only_where_nothing_is_found_by_it(
    azure: Azure, mirroring: Mirroring, run: Path
) -> None:
    azure.seed_versions("reach", 2, properties={"identity": "another"})
    azure.fault("stall", match=r"GET https://[^?]*/models/reach\?", when="after", seconds=60)
    process = mirroring.start("--source", run, "--model-name", "reach")
    wait_until_asked(azure, process, "/models/reach?")
    azure.seed_versions("reach", 1, properties={"identity": "a third"})
    azure.clear_faults()
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "PUT" not in [one["method"] for one in azure.requests("/models/reach/versions/3?")]
    assert sorted(azure.models()["reach"]) == ["1", "2", "3", "4"]


@pytest.mark.parametrize("missing", ["archived", "empty"])
def test_a_list_without_versions(azure: Azure, mirroring: Mirroring, run: Path, missing: str) -> None:
    """azure-ai-ml reports a missing asset, with its own exception."""
    if missing == "archived":
        azure.seed_versions("reach", 3, properties={"identity": "another"}, archived=True)
    else:
        azure.set_workspace(lists_missing=False)
    number = mirroring.mirror(run, "reach").json["model_version"]
    assert number == {"archived": "4", "empty": "1"}[missing]


def test_a_version_that_is_shown_late(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    azure.set_workspace(read_lag=2)
    assert mirroring.mirror(run, "reach").json["outcome"] == "mirrored"
    assert_exactly_once(azure, "reach", run, POINTS)


def test_an_experiment_that_is_there_in_other_words(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    """The answer to its creation is lost, and the repeated request is refused with Azure's error."""
    azure.set_workspace(plain_conflict=True)
    azure.fault("drop", match="experiments/create", when="after")
    mirroring.mirror(run, "reach")
    assert_exactly_once(azure, "reach", run, POINTS)


def test_metadata_in_another_case(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    """The holder of the claim is read whatever the case of the header's name, so a killed one is not waited
    for.
    """
    azure.set_account(header_case=True)
    azure.fault("kill", match="runs/log-batch", nth=4)
    assert mirroring.mirror(run, "reach", code=None).code == -signal.SIGKILL
    azure.clear_faults()
    assert "waiting for it" not in mirroring.mirror(run, "reach").err
    assert_exactly_once(azure, "reach", run, POINTS)


def test_tokens_that_are_refused_one_request_after_the_other(
    azure: Azure, mirroring: Mirroring, run: Path
) -> None:
    azure.fault("expire-tokens", match="/claims/", times=4)
    mirroring.mirror(run, "reach")
    assert_exactly_once(azure, "reach", run, POINTS)


def test_no_token_without_tls() -> None:
    """A storage emulator returns plain http: the program uses another way at once, without retries."""
    with pytest.raises(NotAllowed, match="without TLS"):
        run_artifacts._plain("http://127.0.0.1:10000/account/azureml/a.txt?sig=secret")
    assert run_artifacts._plain("https://a.blob.core.test/azureml/a.txt?sig=secret").endswith("a.txt")


@pytest.mark.parametrize("match", ["runs/create", "runs/log-batch"])
def test_the_pause_that_is_asked_for_is_kept(
    azure: Azure, mirroring: Mirroring, run: Path, match: str
) -> None:
    """Also if MLflow's client, which loses the answer, may not retry by itself."""
    azure.set_workspace(metric_rows="kept")
    azure.fault(
        "status", match=match, nth=2 if "batch" in match else 1, status=429, headers={"Retry-After": "5"}
    )
    done = mirroring.mirror(run, "reach")
    refused = next(one for one in azure.requests(match) if one["status"] == 429)
    later = [one["time"] - refused["time"] for one in azure.requests(match) if one["time"] > refused["time"]]
    if "create" in match:
        assert min(later) >= 4.5
    else:  # the other partitions continue
        assert max(later) >= 4.5
    assert "failed with 429; trying again" in done.err
    assert_exactly_once(azure, "reach", run, POINTS)


def test_many_runs_into_one_model_whose_list_is_behind(
    azure: Azure, mirroring: Mirroring, tmp_path: Path
) -> None:
    """The list keeps showing the same newest version. Each run takes the first free number."""
    azure.seed_versions("reach", 2, properties={"identity": "another"})
    for number in range(3, 7):
        run = huggingface_run(tmp_path / f"run-{number}", steps=(number,), points=1)
        assert mirroring.mirror(run, "reach").json["model_version"] == str(number)
    assert sorted(azure.models()["reach"]) == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("match", ["runs/create", "runs/log-batch"])
def test_a_request_that_is_carried_out_after_its_answer(
    azure: Azure, mirroring: Mirroring, run: Path, match: str
) -> None:
    """A gateway gives up on a request that the service still processes: the result is looked up before a
    retry.
    """
    azure.set_workspace(metric_rows="kept", list_lag=1)
    azure.fault("late", match=match, status=504, seconds=2.5)
    mirroring.mirror(run, "reach")
    assert azure.faults()[0]["acted"] == 1
    assert len([one for one in azure.requests("runs/create") if one["status"] == 200]) == (
        match != "runs/create"
    )
    assert_exactly_once(azure, "reach", run, POINTS)


def test_a_request_that_was_throttled_is_not_looked_for(
    azure: Azure, mirroring: Mirroring, run: Path
) -> None:
    azure.set_workspace(metric_rows="kept")
    azure.fault("status", match="runs/create", status=429)
    mirroring.mirror(run, "reach")
    created = [one["number"] for one in azure.requests("runs/create")]
    assert len(created) == 2
    between = [
        one["number"] for one in azure.requests("runs/search") if created[0] < one["number"] < created[1]
    ]
    assert not between
    assert_exactly_once(azure, "reach", run, POINTS)


def test_a_refusal_that_is_none_of_azures(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    """A firewall's page with 403: a role would not help."""
    page = {"body": "<html>Access denied</html>", "headers": {"Content-Type": "text/html"}}
    azure.fault("status", match=r"management\..*/workspaces/", status=403, times=0, **page)
    assert "a proxy or a firewall" in mirroring.mirror(run, "reach", code=77).err
