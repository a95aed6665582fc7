"""The MLflow service's limits and refusals, and run history's artifacts, raw and through the real plugin."""

from __future__ import annotations

import json
import math
import pathlib
import subprocess
import sys
from typing import Any

import pytest
import requests

from azure_emulator.client import Azure


@pytest.fixture
def run(mlflow_api: Any) -> str:
    experiment = mlflow_api("POST", "experiments/create", {"name": "e1"}).json()["experiment_id"]
    made = mlflow_api("POST", "runs/create", {"experiment_id": experiment, "start_time": 1}).json()["run"]
    assert made["info"]["artifact_uri"].startswith("azureml://eastus.api.azureml.azure.test/mlflow/v2.0/sub")
    return str(made["info"]["run_id"])


def rows(count: int, key: str = "m") -> list[dict[str, Any]]:
    return [{"key": key, "value": float(n), "timestamp": 1000 + n, "step": n} for n in range(count)]


@pytest.mark.parametrize(
    ("method", "endpoint"),
    [
        ("POST", "logged-models/search"),
        ("POST", "logged-models"),
        ("POST", "traces/search"),
        ("POST", "registered-models/alias"),
        ("POST", "runs/log-inputs"),
        ("POST", "runs/log-model"),
        ("GET", "artifacts/list"),
        ("GET", "metrics/get-history-bulk"),
    ],
)
def test_what_azure_ml_does_not_have(mlflow_api: Any, method: str, endpoint: str) -> None:
    answer = mlflow_api(method, endpoint, {})
    assert (answer.status_code, answer.content) == (404, b"")


def test_the_limits_of_a_run(mlflow_api: Any, run: str) -> None:
    def refused(limit: int, size: int, **parts: Any) -> None:
        answer = mlflow_api("POST", "runs/log-batch", {"run_id": run, **parts})
        assert answer.status_code == 400, answer.text
        assert f"Limit={limit}, Size={size}" in answer.text
        assert answer.json()["error_code"] == (
            "INVALID_PARAMETER_VALUE" if "params" in parts else "BAD_REQUEST"
        )

    def taken(**parts: Any) -> None:
        answer = mlflow_api("POST", "runs/log-batch", {"run_id": run, **parts})
        assert answer.status_code == 200, answer.text

    taken(metrics=rows(250))
    refused(250, 251, metrics=rows(251))
    taken(metrics=[row for n in range(49) for row in rows(1, f"m{n}")])
    refused(50, 51, metrics=rows(1, "one-more"))
    for start in (0, 100):
        taken(params=[{"key": f"p{n}", "value": "1"} for n in range(start, start + 100)])
    refused(200, 201, params=[{"key": "one-more", "value": "1"}])
    taken(tags=[{"key": f"t{n}", "value": "1"} for n in range(50)])
    refused(50, 51, tags=[{"key": "one-more", "value": "1"}])
    refused(100, 101, tags=[{"key": "k" * 101, "value": "1"}] if mlflow_api(
        "POST", "runs/delete-tag", {"run_id": run, "key": "t0"}
    ).ok else [])  # fmt: skip
    refused(1000, 1001, tags=[{"key": "t1", "value": "v" * 1001}])
    # What existed stays writable.
    taken(metrics=rows(1, "m1"), tags=[{"key": "t1", "value": "2"}])


@pytest.mark.parametrize("name", ["a/b", "-a", "a.b", "a b", "x" * 257, "ä"])
def test_experiment_names_that_are_refused(mlflow_api: Any, name: str) -> None:
    answer = mlflow_api("POST", "experiments/create", {"name": name})
    assert answer.status_code == 400
    assert "Experiment name must be 1-256 characters" in answer.json()["message"]


def test_tags_that_are_refused(mlflow_api: Any, run: str) -> None:
    answer = mlflow_api("POST", "runs/set-tag", {"run_id": run, "key": "mlflow.user", "value": "me"})
    assert answer.status_code == 400
    assert mlflow_api("POST", "registered-models/create", {"name": "m"}).ok
    for key, status in (("a:b", 400), ("a", 200)):
        answer = mlflow_api("POST", "registered-models/set-tag", {"name": "m", "key": key, "value": "1"})
        assert answer.status_code == status


@pytest.mark.parametrize(("kept", "expected"), [("dropped", 3), ("kept", 6)])
def test_a_row_sent_twice(azure: Azure, mlflow_api: Any, run: str, kept: str, expected: int) -> None:
    azure.set_workspace(metric_rows=kept)
    for _ in range(2):
        mlflow_api("POST", "runs/log-batch", {"run_id": run, "metrics": rows(3)})
    found = mlflow_api("GET", f"metrics/get-history?run_id={run}&metric_key=m&max_results=999").json()
    assert len(found["metrics"]) == expected
    assert len(azure.mlflow.get_metric_history(run, "m")) == expected


def test_a_history_in_large_pages_is_refused(azure: Azure, mlflow_api: Any, run: str) -> None:
    answer = mlflow_api("GET", f"metrics/get-history?run_id={run}&metric_key=m&max_results=25000")
    assert answer.status_code == 400
    assert answer.json()["Error"]["Message"] == (
        "MaxResults = 25000 is invalid: MaxResults must be less than 1000."
    )
    azure.set_workspace(metric_history_limit=0)
    answer = mlflow_api("GET", f"metrics/get-history?run_id={run}&metric_key=m&max_results=25000")
    assert answer.status_code == 200


def test_what_is_no_number(azure: Azure, mlflow_api: Any, run: str) -> None:
    body = {"run_id": run, "metrics": [{"key": "m", "value": "NaN", "timestamp": 1, "step": 1}]}
    assert mlflow_api("POST", "runs/log-batch", body).status_code == 200
    azure.set_workspace(accepts_nan=False)
    assert mlflow_api("POST", "runs/log-batch", body).status_code == 400


def test_points_in_memory(azure: Azure, mlflow_api: Any, run: str) -> None:
    def sent(**parts: Any) -> requests.Response:
        return mlflow_api("POST", "runs/log-batch", {"run_id": run, **parts})  # type: ignore[no-any-return]

    def value(number: float, timestamp: int, step: int) -> dict[str, Any]:
        return {"key": "m", "value": number, "timestamp": timestamp, "step": step}

    def shown() -> dict[str, float]:
        (found,) = azure.mlflow.search_runs([azure.mlflow.get_run(run).info.experiment_id])
        # As text, in which NaN is NaN.
        assert str(found.data.metrics) == str(azure.mlflow.get_run(run).data.metrics)
        raw = mlflow_api("GET", f"runs/get?run_id={run}").json()["run"]["data"].get("metrics", [])
        assert {row["key"] for row in raw} == set(found.data.metrics)
        return dict(found.data.metrics)

    azure.set_workspace(metric_store="memory", metric_rows="dropped")
    assert shown() == {}
    # The same points as on the real server: in its order, with the latest by step, time and value.
    points = [value(1.0, 7, 3), value(2.0, 9, 1), value(3.0, 7, 3), value(9.0, 8, 2), value(1.0, 7, 3)]
    tag, param = {"key": "t", "value": "1"}, {"key": "p", "value": "2"}
    assert sent(metrics=points[:2]).status_code == 200
    assert sent(metrics=points[2:], tags=[tag], params=[param]).status_code == 200
    assert mlflow_api("POST", "runs/log-metric", {"run_id": run, **value(0.5, 1, 0)}).status_code == 200
    found = azure.mlflow.get_metric_history(run, "m")
    told = [(one.timestamp, one.step, one.value) for one in found]
    assert told == [(1, 0, 0.5), (7, 3, 1.0), (7, 3, 3.0), (8, 2, 9.0), (9, 1, 2.0)]
    assert shown() == {"m": 3.0}
    data = azure.mlflow.get_run(run).data
    assert (data.tags["t"], data.params) == ("1", {"p": "2"})
    pages = f"metrics/get-history?run_id={run}&metric_key=m&max_results=3"
    first = mlflow_api("GET", pages).json()
    second = mlflow_api("GET", f"{pages}&page_token={first['next_page_token']}").json()
    assert [len(first["metrics"]), len(second["metrics"])] == [3, 2] and "next_page_token" not in second
    # The real server has none of them, and another metric does not exist at all.
    assert azure.mlflow.get_metric_history(run, "none") == []
    azure.set_workspace(metric_store="mlflow")
    assert shown() == {}
    azure.set_workspace(metric_store="memory", metric_rows="kept")
    assert sent(metrics=points[:1]).status_code == 200
    assert len(azure.mlflow.get_metric_history(run, "m")) == 6
    for number in ("NaN", "-Infinity"):
        row = {"key": number, "value": number, "timestamp": 1, "step": 1}
        assert sent(metrics=[row]).status_code == 200
    assert math.isnan(shown()["NaN"]) and shown()["-Infinity"] == -math.inf


def test_tags_that_come_with_points_in_memory(azure: Azure, mlflow_api: Any, run: str) -> None:
    azure.set_workspace(metric_store="memory", list_lag=0)

    def send(number: int) -> None:
        tag = {"key": "mark", "value": str(number)}
        body = {"run_id": run, "metrics": rows(number), "tags": [tag]}
        assert mlflow_api("POST", "runs/log-batch", body).status_code == 200

    def found(number: int) -> bool:
        body = {"experiment_ids": [experiment], "filter": f"tags.mark = '{number}'"}
        return len(mlflow_api("POST", "runs/search", body).json().get("runs", [])) == 1

    experiment = azure.mlflow.get_run(run).info.experiment_id
    for number in range(1, 4):
        send(number)
    # Every way of reading shows the last value.
    assert found(3) and not found(2)
    send(4)
    assert azure.mlflow.get_run(run).data.tags["mark"] == "4"
    send(5)
    assert '"5"' in mlflow_api("GET", f"runs/get?run_id={run}").text
    # Later tags stay, and deleted ones are gone.
    send(6)
    mlflow_api("POST", "runs/set-tag", {"run_id": run, "key": "mark", "value": "own"})
    assert azure.mlflow.get_run(run).data.tags["mark"] == "own"
    send(7)
    mlflow_api("POST", "runs/delete-tag", {"run_id": run, "key": "mark"})
    assert "mark" not in azure.mlflow.get_run(run).data.tags
    send(8)
    assert azure.mlflow.get_run(run).data.tags["mark"] == "8"


def test_points_in_memory_are_refused_as_well(azure: Azure, mlflow_api: Any, run: str) -> None:
    def refused(*points: dict[str, Any], run_id: str = run, status: int = 400, **parts: Any) -> str:
        body = {"run_id": run_id, "metrics": list(points), **parts}
        answer = mlflow_api("POST", "runs/log-batch", body)
        assert answer.status_code == status, answer.text
        return str(answer.text)

    many = [row for n in range(5) for row in rows(201, f"m{n}")]
    odd = [{"key": "a/../b"}, {"key": "a?"}, {"key": "x" * 251}, {"timestamp": -1}]
    for store in ("mlflow", "memory"):
        azure.set_workspace(metric_store=store)
        assert "Limit=250, Size=251" in refused(*rows(251))
        refused(*many)
        refused(*rows(2), tags=[{"key": "k" * 101}])
        for other in odd:
            refused({**rows(1)[0], **other})
        refused(*rows(2), run_id="0" * 32, status=404)
        # Nothing of a refused request is stored.
        assert azure.mlflow.get_run(run).data.metrics == {}
    azure.set_workspace(accepts_nan=False)
    refused({**rows(1)[0], "value": "NaN"})
    assert mlflow_api("POST", "runs/search", {"filter": "metrics.m > 1"}).status_code == 501
    assert mlflow_api("POST", "runs/search", {"filter": "tags.t = 'metrics.m'"}).status_code != 501
    # A deleted run accepts nothing, whoever deleted it.
    assert mlflow_api("POST", "runs/log-batch", {"run_id": run, "metrics": rows(1)}).status_code == 200
    azure.mlflow.delete_run(run)
    refused(*rows(2))
    assert mlflow_api("POST", "runs/restore", {"run_id": run}).status_code == 200
    assert mlflow_api("POST", "runs/log-batch", {"run_id": run, "metrics": rows(2)}).status_code == 200
    assert mlflow_api("POST", "runs/delete", {"run_id": run}).status_code == 200
    refused(*rows(2))


def test_scopes_do_not_see_each_other(azure: Azure, azure_emulator: Any, mlflow_api: Any, run: str) -> None:
    other = azure_emulator.new_scope()
    assert [one.name for one in azure.mlflow.search_experiments(filter_string="name = 'e1'")] == ["e1"]
    assert other.mlflow.search_experiments(filter_string="name = 'e1'") == []
    other.call("DELETE")


def test_without_a_role(azure: Azure, mlflow_api: Any, history: Any, run: str) -> None:
    azure.set_role("Reader")
    assert mlflow_api("GET", f"runs/get?run_id={run}").status_code == 200
    answer = mlflow_api("POST", "runs/set-tag", {"run_id": run, "key": "a", "value": "b"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "AuthorizationFailed")
    azure.set_role(None)
    assert mlflow_api("GET", f"runs/get?run_id={run}").status_code == 403
    assert history("GET", f"/experiments/1/runs/{run}/artifacts").status_code == 403


def test_a_path_is_created_once(azure: Azure, history: Any, run: str) -> None:
    base = f"/experiments/1/runs/{run}/artifacts"
    body = {"paths": [{"path": "a.txt"}, {"path": "d/b.txt"}]}
    first = history("POST", f"{base}/batch/metadata", body).json()
    assert first["errors"] == {}
    uri = first["artifactContentInformation"]["a.txt"]["contentUri"]
    assert uri.startswith(f"https://{azure.account}.blob.core.azure.test/azureml/ExperimentRun/dcid.{run}/a")
    headers = {"x-ms-blob-type": "BlockBlob"}
    assert requests.put(uri, b"hello", headers=headers, timeout=600).status_code == 201
    again = history("POST", f"{base}/batch/metadata", {"paths": [{"path": "a.txt"}, {"path": "c"}]})
    assert again.status_code == 200
    assert again.json()["errors"]["a.txt"]["error"] == {
        "code": "UserError",
        "message": f"Resource Conflict: ArtifactId ExperimentRun/dcid.{run}/a.txt already exists.",
        "details": [],
    }
    assert list(again.json()["artifactContentInformation"]) == ["c"]
    listed = [one["path"] for one in history("GET", base).json()["value"]]
    assert listed == ["a.txt", "c", "d/b.txt"] == azure.artifacts()[run]
    assert [one["path"] for one in history("GET", f"{base}/path?path=d").json()["value"]] == ["d/b.txt"]
    read = history("GET", f"{base}/contentinfo?path=a.txt").json()["contentUri"]
    assert requests.get(read, timeout=600).content == b"hello" == azure.artifact(run, "a.txt")
    assert history("GET", f"{base}/contentinfo?path=none").status_code == 404
    assert history("GET", "/experiments/1/runs/none/artifacts").status_code == 404
    many = {"paths": [{"path": str(number)} for number in range(101)]}
    assert "exceeded the limit of 100" in history("POST", f"{base}/batch/metadata", many).text


def test_the_sas_of_artifacts_refused_and_expired(azure: Azure, history: Any, run: str) -> None:
    def put(path: str) -> requests.Response:
        made = history(
            "POST", f"/experiments/1/runs/{run}/artifacts/batch/metadata", {"paths": [{"path": path}]}
        ).json()
        uri = made["artifactContentInformation"][path]["contentUri"]
        return requests.put(uri, b"1", headers={"x-ms-blob-type": "BlockBlob"}, timeout=600)

    azure.set_workspace(artifact_sas="key")
    answer = put("a")
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (
        403,
        "KeyBasedAuthenticationNotPermitted",
    )
    azure.set_account(shared_key=True)
    assert put("b").status_code == 201
    azure.set_workspace(artifact_sas="user-delegation", artifact_sas_seconds=-1)
    answer = put("c")
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (403, "AuthenticationFailed")
    azure.set_workspace(artifact_sas_seconds=3600)
    azure.fault("expire-sas", match="PUT .*/azureml/ExperimentRun")
    answer = put("d")
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (403, "AuthenticationFailed")
    assert "Signature not valid in the specified time frame" in answer.text
    assert put("e").status_code == 201


PLUGIN = """
import json, os, pathlib, sys
from azure.ai.ml import MLClient
from azure.identity import DefaultAzureCredential
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

names = ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZUREML_WORKSPACE_NAME")
ml = MLClient(DefaultAzureCredential(), *(os.environ[name] for name in names))
uri = ml.workspaces.get(ml.workspace_name).mlflow_tracking_uri
mlflow.set_tracking_uri(uri)
mlflow.set_registry_uri(uri)
client = MlflowClient()
experiment = client.create_experiment("e1")
run = client.create_run(experiment, tags={"who": "me"}).info.run_id
points = [Metric("loss", n / 10, n, n) for n in range(200)]
client.log_batch(run, points, [Param("p", "1")], [RunTag("t", "v")])
folder = pathlib.Path(sys.argv[1])
(folder / "sub").mkdir()
(folder / "a.txt").write_text("hello")
(folder / "sub" / "b.txt").write_text("there")
client.log_artifacts(run, str(folder), "model")
told = {"run": run, "found": len(client.search_runs([experiment], "tags.t = 'v'"))}
told["listed"] = [one.path for one in client.list_artifacts(run)]
told["read"] = pathlib.Path(client.download_artifacts(run, "model/sub/b.txt", sys.argv[2])).read_text()
for name, call in {
    "again": lambda: client.log_artifact(run, str(folder / "a.txt"), "model"),
    "register": lambda: mlflow.register_model(f"runs:/{run}/model", "m"),
    "history": lambda: client.get_metric_history(run, "loss"),
    "many": lambda: client.log_batch(run, [Metric("loss", 1.0, n, n) for n in range(251)]),
}.items():
    try:
        call()
        told[name] = "passed"
    except Exception as error:
        told[name] = str(error)
client.set_terminated(run)
print(json.dumps(told))
"""


def test_the_plugin(azure: Azure, tmp_path: Any) -> None:
    # The search is in the process that wrote.
    azure.set_workspace(list_lag=0)
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PLUGIN, tmp_path / "in", tmp_path / "out"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **azure.env(MLFLOW_DISABLE_TELEMETRY="true")},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["found"], told["listed"], told["read"]) == (1, ["model"], "there")
    assert "UserError: Resource Conflict: ArtifactId" in told["again"]
    assert "logged-models/search" in told["register"] and "404" in told["register"]
    assert "MaxResults must be less than 1000" in told["history"]
    assert "Limit=250, Size=251" in told["many"]
    assert azure.artifact(told["run"], "model/a.txt") == b"hello"
    assert azure.mlflow.get_run(told["run"]).info.status == "FINISHED"
    assert len(azure.mlflow.get_metric_history(told["run"], "loss")) == 200


def test_files_pass_through_the_plain_address(azure: Azure, tmp_path: Any) -> None:
    sent = tmp_path / "model.bin"
    sent.write_bytes(b"\xff\xfe\x00\x01no JSON")
    experiment = azure.mlflow.create_experiment("files")
    run_id = azure.mlflow.create_run(experiment).info.run_id
    azure.mlflow.log_artifact(run_id, str(sent), "model")
    (tmp_path / "got").mkdir()
    got = azure.mlflow.download_artifacts(run_id, "model/model.bin", str(tmp_path / "got"))
    assert pathlib.Path(got).read_bytes() == sent.read_bytes()
