"""Promote and prune on a real MLflow server, killed at any request."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from builders import matrix
from builders.forks import MLFLOW, Forked, forks
from builders.gated import Gated
from builders.program import Call, clean_environment
from builders.proxy import DROP, Proxy
from builders.runs import huggingface_run


def killed(arguments: list[str], url: str, folder: Path, at: matrix.Moment | None) -> tuple[int, int, str]:
    """Run the program through a proxy that kills it at a write; return exit code, writes, what was struck."""
    with Proxy(url) as proxy:
        process: Forked | None = None
        struck: list[str] = []
        writes: list[str] = []

        def interfere(now: int, when: str, method: str, path: str) -> str | None:
            name = path.partition("?")[0].rpartition("/mlflow/")[2]
            if method == "GET" or name.endswith("search"):
                return None
            if when == "before":
                writes.append(name)
            if at is None or struck or (len(writes), when) != (at.number, at.moment):
                return None
            while process is None:
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
            struck.append(name)
            return DROP

        proxy.interfere = interfere
        process = forks(MLFLOW, clean_environment).start(
            [*arguments, "--tracking-uri", proxy.url], folder, clean_environment()
        )
        process.communicate(timeout=120)
        assert process.returncode is not None
        return process.returncode, len(writes), (struck or ["none"])[0]


def test_a_promotion_killed_at_any_write(
    aml_mirror: Call, mlflow_url: str, client: MlflowClient, model_name: str, tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    gated = Gated(
        lambda *given, **more: aml_mirror(*given, "--tracking-uri", mlflow_url, **more), tmp_path, model_name
    )
    for step in (20, 30):
        gated.evaluate(gated.mirror(step), 95, 100)
    gated.promote("1", stage="count")
    promote = ["promote", f"{model_name}:2", "--json", "--to"]
    code, total, _ = killed([*promote, "count"], mlflow_url, tmp_path, None)
    assert code == 0 and total >= 8
    for at in matrix.sample(total, 6):
        stage = f"s{at.number}-{at.moment}"
        gated.promote("1", stage=stage)
        code, _, struck = killed([*promote, stage], mlflow_url, tmp_path, at)
        assert code == (-signal.SIGKILL if struck != "none" else 0)
        held = gated.holder(stage)
        assert held in ("1", "2")
        assert gated.promote("2", stage=stage).json["outcome"] == "pass"
        assert gated.holder(stage) == "2"
        done = [one["version"] for one in gated.history(stage)["entries"] if one["carried_out"]]
        assert done == ["1", "2"]
        gated.call("demote", f"{model_name}@{stage}")
        for number in "12":
            tags = client.get_model_version(model_name, number).tags
            assert stage not in tags.get("mirror.stage", "").split(",")
            assert f"mirror.stage.{stage}" not in tags
        matrix.note(request, "killed, promote on an MLflow server", struck, at.moment, f"version {held}")


def test_prune_removes_failed_runs_and_nothing_else(aml_mirror: Call, database: str, tmp_path: Path) -> None:
    """In a database of its own: prune looks at everything on a server."""
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
    # Somebody else's, and one that a version of somebody else names.
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
