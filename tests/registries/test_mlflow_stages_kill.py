"""Promote and prune on a real MLflow server, killed at any request."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from builders import matrix
from builders.gated import Gated
from builders.killing import killed_at_request
from builders.program import Call
from builders.runs import huggingface_run


def is_write(method: str, path: str) -> bool:
    return method != "GET" and not path.endswith("search")


@pytest.mark.parametrize("part", matrix.PARTS)
def test_a_promotion_killed_at_any_write(
    aml_mirror: Call, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path,
    request: pytest.FixtureRequest, part: int,
) -> None:  # fmt: skip
    gated = Gated(
        lambda *given, **more: aml_mirror(*given, "--tracking-uri", mlflow_url, **more), tmp_path, model_name
    )
    for step in (20, 30):
        gated.evaluate(gated.mirror(step), 95, 100)
    gated.promote("1", stage="count")
    promote = ["promote", f"{model_name}:2", "--json", "--to"]
    total = killed_at_request([*promote, "count"], mlflow_url, tmp_path, None, is_write).requests
    assert total >= 8
    for at in matrix.sample(total, 4, part):
        stage = f"s{at.number}-{at.moment}"
        gated.promote("1", stage=stage)
        struck = killed_at_request([*promote, stage], mlflow_url, tmp_path, at, is_write).struck
        held = gated.holder(stage)
        assert held in ("1", "2")
        assert gated.promote("2", stage=stage).json["outcome"] == "pass"
        history = gated.history(stage)
        assert history["stages"][stage] == "2"
        done = [one["version"] for one in history["entries"] if one["carried_out"]]
        assert done == ["1", "2"]
        gated.call("demote", f"{model_name}@{stage}")
        for number in "12":
            tags = client.get_model_version(model_name, number).tags
            assert stage not in tags.get("mirror.stage", "").split(",")
            assert f"mirror.stage.{stage}" not in tags
        row = struck.rpartition("/mlflow/")[2] or "none"
        matrix.note(request, "killed, promote on an MLflow server", row, at.moment, f"version {held}")


def test_prune_removes_failed_runs_and_nothing_else(aml_mirror: Call, database: str, tmp_path: Path) -> None:
    """In a separate database, because prune looks at everything on a server."""
    run = huggingface_run(tmp_path / "run-1", points=3)
    aml_mirror("mirror", run, "--model-name", "act", "--tracking-uri", database)
    client = MlflowClient(database, database)
    experiment = client.get_experiment_by_name("act")
    assert experiment is not None
    (kept,) = client.search_runs([experiment.experiment_id])
    tags = {**kept.data.tags, "mirror.state": "incomplete", "identity": "f" * 64}
    made = {
        status: client.create_run(experiment.experiment_id, tags=tags)
        for status in ("FAILED", "KILLED", "RUNNING")
    }
    for status in ("FAILED", "KILLED"):
        client.set_terminated(made[status].info.run_id, status)
    # A run of somebody else, and a run that somebody else's version refers to.
    foreign = client.create_run(experiment.experiment_id)
    client.set_terminated(foreign.info.run_id, "FAILED")
    named = client.create_run(experiment.experiment_id, tags={**tags, "identity": "e" * 64})
    client.set_terminated(named.info.run_id, "FAILED")
    client.create_registered_model("theirs")
    client.create_model_version("theirs", f"runs:/{named.info.run_id}/model", named.info.run_id)
    uri = ("--tracking-uri", database, "--json")
    assert aml_mirror("prune", *uri).json["count"] == 0
    listed = aml_mirror("prune", "--older-than", "0s", *uri).json
    assert {item["name"] for item in listed["items"]} == {
        made["FAILED"].info.run_id,
        made["KILLED"].info.run_id,
    }
    assert len(client.search_runs([experiment.experiment_id])) == 6
    done = aml_mirror("prune", "--older-than", "0s", "--delete", *uri).json
    assert (done["outcome"], done["count"]) == ("removed", 2)
    left = {item.info.run_id for item in client.search_runs([experiment.experiment_id])}
    assert left == {kept.info.run_id, made["RUNNING"].info.run_id, foreign.info.run_id, named.info.run_id}
    assert aml_mirror("verify", "act:1", *uri).json["outcome"] == "verified"
