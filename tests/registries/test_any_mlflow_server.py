"""The newest MLflow and the last 2.x: mirroring, recognising, listing and verifying work the same on both."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
from mlflow import MlflowClient

from builders.gated import Gated
from builders.program import Call
from builders.proxy import Proxy
from builders.runs import huggingface_run, write_events


@pytest.fixture(params=["mlflow_url", "mlflow2_url"])
def url(request: pytest.FixtureRequest) -> str:
    """The address of a server of each release."""
    return str(request.getfixturevalue(request.param))


def test_every_command(url: str, aml_mirror: Call, model_name: str, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "runs" / f"run-{model_name}", points=450)
    target = ("--model-name", model_name, "--tracking-uri", url)
    first = aml_mirror("mirror", run, *target, "--json").json
    assert first["outcome"] == "mirrored"
    again = aml_mirror("mirror", run, *target, "--json").json
    assert (again["outcome"], again["model_version"]) == ("already-mirrored", "1")
    assert "complete" in aml_mirror("status", run, *target).out
    held = aml_mirror("verify", f"{model_name}:1", "--tracking-uri", url, "--json").json
    assert (held["outcome"], held["files"]) == ("verified", 2)
    backfill = aml_mirror("backfill", run.parent, *target)
    assert '"outcome":"already-mirrored"' in backfill.out
    assert all(line.startswith("ok") for line in aml_mirror("doctor", run, *target).out.splitlines())

    client = MlflowClient(url, url)
    history = client.get_metric_history(first["mlflow_run_id"], "train/loss")
    assert sorted(point.step for point in history) == list(range(1, 451))
    weights = aml_mirror("mirror", run, "--checkpoint", "checkpoint-10", *target, "--json").json
    assert (weights["outcome"], weights["model_version"]) == ("mirrored", "2")


def test_from_evidence_to_a_robot(url: str, aml_mirror: Call, model_name: str, tmp_path: Path) -> None:
    gated = Gated(
        lambda *given, **more: aml_mirror(*given, "--tracking-uri", url, "--retry-for", "5s", **more),
        tmp_path,
        model_name,
    )
    for step in (20, 30):
        gated.evaluate(gated.mirror(step), 95, 100)
        gated.promote(str(step // 10 - 1), "--policy", gated.policy())
    gated.call("pull", f"{model_name}@production", tmp_path / "robot")
    pulled = (tmp_path / "robot" / "model" / "model.safetensors").read_bytes()
    assert pulled == (tmp_path / "run-30" / "checkpoint-30" / "model.safetensors").read_bytes()
    assert gated.call("rollback", f"{model_name}@production", "--json").json["model_version"] == "1"
    gated.call("demote", f"{model_name}@production")
    assert [one["action"] for one in gated.history()["entries"]] == [
        *("promote", "promote", "rollback", "demote")
    ]
    assert gated.holder() is None


def test_taken_up_where_an_earlier_mirror_ended(
    url: str, aml_mirror: Call, model_name: str, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / "run-t", points=10)
    with Proxy(url) as proxy:
        proxy.interfere = lambda number, moment, method, path: (
            401 if "model-versions/create" in path else None
        )
        failed = aml_mirror(
            "mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--json", code=77
        ).json
        proxy.interfere = lambda number, moment, method, path: None
        sent = len([path for method, path in proxy.seen if method == "PUT"])
        done = aml_mirror(
            "mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--json"
        ).json
        put_again = [path for method, path in proxy.seen if method == "PUT"][sent:]
    assert done["mlflow_run_id"] == failed["mlflow_run_id"]
    assert not [path for path in put_again if "/model/" in path]
    aml_mirror("verify", f"{model_name}:1", "--tracking-uri", url)


def test_values_that_are_not_finite(url: str, aml_mirror: Call, model_name: str, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run-n", points=1)
    rows = [("odd", 1, math.nan), ("odd", 2, math.inf), ("odd", 3, -math.inf), ("odd", 4, 1.0)]
    write_events(run / "runs" / "Jan02_03-04-05_host" / "events.out.tfevents.1760000001.host.1.1", rows)
    receipt = aml_mirror("mirror", run, "--model-name", model_name, "--tracking-uri", url, "--json").json
    history = MlflowClient(url, url).get_metric_history(receipt["mlflow_run_id"], "odd")
    assert sorted(point.step for point in history) == [1, 2, 3, 4]
    assert math.isnan(next(point.value for point in history if point.step == 1))
    # Databases cannot store infinity, so MLflow stores the largest numbers.
    assert next(point.value for point in history if point.step == 2) > 1e300
    assert next(point.value for point in history if point.step == 3) < -1e300


def test_huge_parameters(url: str, aml_mirror: Call, model_name: str, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run-p", points=1)
    # In JSON each of these characters takes six bytes, so a hundred such values exceed 3 MB.
    many = {f"key_{number}": "ж" * 5990 for number in range(150)}
    config = {"model_type": "policy", "long": "x" * 20_000, "lines": "\n" * 7000, **many}
    (run / "checkpoint-20" / "config.json").write_text(json.dumps(config))
    with Proxy(url) as proxy:
        receipt = aml_mirror(
            "mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--json"
        ).json
    params = MlflowClient(url, url).get_run(receipt["mlflow_run_id"]).data.params
    values = {key.rpartition(".")[2].rpartition("/")[2]: value for key, value in params.items()}
    assert all(values[key] == value for key, value in many.items())
    assert len(values["long"]) <= 6000


@pytest.mark.parametrize("name", ["реле-захват", "act pick 'v2'", 'say "pick"', "a.b-c_d%20", "x" * 200])
def test_names(url: str, aml_mirror: Call, tmp_path: Path, name: str, model_name: str) -> None:
    run = huggingface_run(tmp_path / "run-names", points=1)
    name = f"{name} {model_name}"
    target = ("--model-name", name, "--tracking-uri", url, "--json")
    assert aml_mirror("mirror", run, *target).json["outcome"] == "mirrored"
    assert aml_mirror("mirror", run, *target).json["outcome"] == "already-mirrored"
    assert aml_mirror("verify", f"{name}:1", "--tracking-uri", url, "--json").json["outcome"] == "verified"


def test_metric_names_of_any_length_and_script(
    url: str, aml_mirror: Call, model_name: str, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / "run-names", points=1)
    tags = ["потери/" + "ж" * 243, "a:b", "x" * 300, "reward [m/s]", "../up"]
    rows = [(tag, step, float(step)) for step in range(1, 260) for tag in tags]
    write_events(run / "runs" / "Jan02_03-04-05_host" / "events.out.tfevents.1760000001.host.1.1", rows)
    with Proxy(url) as proxy:
        receipt = aml_mirror(
            "mirror", run, "--model-name", model_name, "--tracking-uri", proxy.url, "--json"
        ).json
        batches = [path for method, path in proxy.seen if path.endswith("runs/log-batch")]
    assert receipt["points"] == len(rows) + 1
    client = MlflowClient(url, url)
    metrics = client.get_run(receipt["mlflow_run_id"]).data.metrics
    assert len(metrics) == len(tags) + 1
    for name in metrics.keys() - {"train/loss"}:
        assert len(client.get_metric_history(receipt["mlflow_run_id"], name)) == 259
    # 1,296 points take two requests, or three with long names. One or two requests are for parameters.
    assert len(batches) <= 6


def test_files_arrive_unchanged(url: str, aml_mirror: Call, model_name: str, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run-f", points=1, size=1500)
    receipt = aml_mirror("mirror", run, "--model-name", model_name, "--tracking-uri", url, "--json").json
    client = MlflowClient(url, url)
    got = Path(client.download_artifacts(receipt["mlflow_run_id"], "model/model.safetensors", str(tmp_path)))
    expected = (run / "checkpoint-20" / "model.safetensors").read_bytes()
    assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(expected).digest()
