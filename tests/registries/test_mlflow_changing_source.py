"""A run that changes while it is mirrored: 65, and nothing is marked complete."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from builders.program import Call
from builders.proxy import Proxy
from builders.runs import huggingface_run, write_weights


@pytest.mark.parametrize("count", [2, 12])
@pytest.mark.parametrize("how", ["changed", "deleted"])
def test_a_file_between_its_upload_and_the_registration(
    mlflow_url: str,
    client: MlflowClient,
    aml_mirror: Call,
    tmp_path: Path,
    model_name: str,
    count: int,
    how: str,
) -> None:  # fmt: skip
    """A few files are checked one by one, many with a listing."""
    run = huggingface_run(tmp_path / "run-c", points=1, steps=(20,))
    for number in range(count - 2):
        (run / "checkpoint-20" / f"part-{number}.json").write_text("{}")
    weights = run / "checkpoint-20" / "model.safetensors"
    whole = weights.read_bytes()

    def interfere(number: int, moment: str, method: str, path: str) -> None:
        # The card is sent after all files of the checkpoint.
        if moment == "before" and method == "PUT" and path.endswith("/MODEL_CARD.md"):
            weights.unlink()
            if how == "changed":
                write_weights(weights, seed=99)

    with Proxy(mlflow_url) as proxy:
        proxy.interfere = interfere
        words = ("mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--json")
        done = aml_mirror(*words, code=65).json
        assert any("/model/model.safetensors" in path for method, path in proxy.seen if method == "PUT")
    assert "model.safetensors" in done["error"] and done["outcome"] == "failed"
    assert not client.search_model_versions(f"name = '{model_name}'")
    assert client.get_run(done["mlflow_run_id"]).data.tags.get("mirror.state") != "complete"
    weights.write_bytes(whole)
    again = aml_mirror("mirror", run, "--model-name", model_name, "--tracking-uri", mlflow_url, "--json").json
    assert (again["outcome"], again["model_version"]) == ("mirrored", "1")
    aml_mirror("verify", f"{model_name}:1", "--tracking-uri", mlflow_url)


@pytest.mark.parametrize("how", ["cut", "deleted"])
def test_an_event_file_before_its_upload(
    mlflow_url: str, client: MlflowClient, aml_mirror: Call, tmp_path: Path, model_name: str, how: str
) -> None:
    run = huggingface_run(tmp_path / "run-e", points=30, steps=(20,))
    events = next((run / "runs").rglob("events*"))
    whole = events.read_bytes()

    def interfere(number: int, moment: str, method: str, path: str) -> None:
        if moment == "before" and method == "PUT" and path.endswith("/model/model.safetensors"):
            if how == "deleted":
                events.unlink()
            else:
                events.write_bytes(whole[: len(whole) // 2])

    with Proxy(mlflow_url) as proxy:
        proxy.interfere = interfere
        words = ("mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--json")
        done = aml_mirror(*words, code=65).json
    assert events.name in done["error"]
    assert not client.search_model_versions(f"name = '{model_name}'")


def test_a_backfill_over_a_version_that_was_not_completed(
    database: str, aml_mirror: Call, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / "runs" / "run-i", points=2)
    target = ("--model-name", "m", "--tracking-uri", database)
    run_id = aml_mirror("mirror", run, "--run-id", "run-i", *target, "--json").json["mlflow_run_id"]
    client = MlflowClient(database, database)
    # As left by a kill before the last mark.
    client.set_model_version_tag("m", "1", "mirror.state", "incomplete")
    client.set_tag(run_id, "mirror.state", "incomplete")
    out = aml_mirror("backfill", run.parent, *target).out
    assert '"outcome":"mirrored"' in out and '"outcome":"already-mirrored"' not in out
    (version,) = client.search_model_versions("name = 'm'")
    assert (str(version.version), version.tags["mirror.state"]) == ("1", "complete")
    assert '"outcome":"already-mirrored"' in aml_mirror("backfill", run.parent, *target).out


def test_killed_between_the_run_s_completeness_and_the_version_s_mark(
    database: str, aml_mirror: Call, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / "run-m", points=2)
    target = ("--model-name", "m", "--tracking-uri", database, "--json")
    first = aml_mirror("mirror", run, *target).json
    client = MlflowClient(database, database)
    client.set_model_version_tag("m", "1", "mirror.state", "incomplete")
    assert client.get_run(first["mlflow_run_id"]).data.tags["mirror.state"] == "complete"
    again = aml_mirror("mirror", run, *target).json
    assert (again["outcome"], again["mlflow_run_id"]) == ("mirrored", first["mlflow_run_id"])
    (version,) = client.search_model_versions("name = 'm'")
    assert version.tags["mirror.state"] == "complete"
