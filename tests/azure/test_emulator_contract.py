"""Recorded answers of the real service, and that the emulated service answers alike.

Each row names its source:

- **models**: Azure/azure-sdk-assets, ``python/sdk/ml/azure-ai-ml/tests/recordings/model/e2etests``, 2022
  to 2026;
- **metrics**: microsoft/promptflow, ``src/promptflow-evals/tests/recordings/azure/test_metrics_upload_*``,
  and the same tests of azure-ai-evaluation, July 2025.

A row lists the keys that must exist. The real service may have more.
"""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from azure_emulator.client import Azure

API = "?api-version=2023-08-01-preview"
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
VERSION_KEYS = {
    "description", "tags", "properties", "isArchived", "isAnonymous", "flavors", "modelType", "modelUri",
    "jobName", "stage", "provisioningState", "autoDeleteSetting", "intellectualProperty",
}  # fmt: skip
CONTAINER_KEYS = {
    "description", "tags", "properties", "isArchived", "latestVersion", "nextVersion", "provisioningState",
}  # fmt: skip
SYSTEM_KEYS = {
    "createdAt", "createdBy", "createdByType", "lastModifiedAt", "lastModifiedBy", "lastModifiedByType",
}  # fmt: skip


@pytest.fixture
def put(azure: Azure, arm: Any) -> Any:
    """Send a version of a model into the workspace's datastore."""
    azure.seed({"runs/r1/model/a": b"1"})
    group = azure.facts["workspace_id"].replace("resourceGroups", "resourcegroups").split("/providers/")[0]
    uri = (
        f"azureml:/{group}/workspaces/{azure.facts['workspace']}/datastores/workspaceblobstore/paths/runs/r1/"
    )

    def call(number: int, name: str = "reach", **fields: Any) -> Any:
        asked = {"modelType": "custom_model", "modelUri": uri, "properties": {"p": "1"}, "tags": {}, **fields}
        return arm("PUT", f"/models/{name}/versions/{number}{API}", {"properties": asked})

    return call


def test_a_version_and_its_container(arm: Any, put: Any) -> None:
    """models: 201 with ``Location``, a stage that nobody set, and ``resourceGroups`` in the path."""
    made = put(1)
    assert made.status_code == 201
    assert made.headers["Location"].endswith("/models/reach/versions/1")
    body = made.json()
    assert {"id", "name", "type", "properties", "systemData"} <= body.keys()
    assert body["properties"].keys() >= VERSION_KEYS
    assert body["properties"]["stage"] == "Development"
    assert "/resourceGroups/" in body["properties"]["modelUri"]
    assert body["properties"]["jobName"] is None
    assert body["systemData"].keys() >= SYSTEM_KEYS
    assert put(1, tags={"a": "b"}).status_code == 200
    container = arm("GET", f"/models/reach{API}").json()
    assert container["properties"].keys() >= CONTAINER_KEYS
    assert container["systemData"].keys() >= SYSTEM_KEYS
    assert container["properties"]["nextVersion"] == "2"


def test_what_is_not_there(arm: Any, put: Any) -> None:
    """models: a general sentence at the top, and ``ModelNotFound`` and the names in ``details``."""
    put(1)
    for path in ("/models/none", "/models/reach/versions/7"):
        answer = arm("GET", path + API)
        error = answer.json()["error"]
        assert (answer.status_code, error["message"]) == (404, "The specified resource was not found.")
        assert error["details"][0]["code"] == "ModelNotFound"
        assert error["details"][0]["message"]


def test_a_path_without_files(put: Any) -> None:
    """azure-docs#103778: ``ModelAssetPathNotFoundInStorage`` below a general sentence."""
    answer = put(1, modelUri="azureml://datastores/workspaceblobstore/paths/nothing/")
    error = answer.json()["error"]
    assert (answer.status_code, error["message"]) == (400, "The request is invalid.")
    assert error["details"][0]["code"] == "ModelAssetPathNotFoundInStorage"


def test_archiving(arm: Any, put: Any) -> None:
    """models, archive_restore: a PUT with ``isArchived: false`` restores. Learn: the same is true for a
    container.
    """
    put(1)
    assert put(1, isArchived=True).json()["properties"]["isArchived"] is True
    assert put(1, isArchived=False).json()["properties"]["isArchived"] is False
    arm("PUT", f"/models/reach{API}", {"properties": {"isArchived": True}})
    assert arm("GET", f"/models/reach/versions/1{API}").json()["properties"]["isArchived"] is True


def test_the_order_of_a_list(azure: Azure, arm: Any, put: Any) -> None:
    """models: newest first by creation, also after an update of an older one.

    The SDK's own test waits 30 seconds before it lists a new version, which may be missing until then.
    """
    for number in (1, 2, 3):
        put(number)
    put(1, tags={"later": "yes"})
    assert arm("GET", f"/models/reach/versions{API}").json()["value"] == []
    azure.settle()
    found = arm("GET", f"/models/reach/versions{API}").json()
    assert [item["name"] for item in found["value"]] == ["3", "2", "1"]


def test_the_workspace(arm: Any) -> None:
    """metrics: what signs SAS, and the kind of the storage."""
    found = arm("GET", "?api-version=2024-10-01-preview")
    assert found.json()["properties"].keys() >= {
        "systemDatastoresAuthMode", "v1LegacyMode", "storageHnsEnabled", "mlFlowTrackingUri",
    }  # fmt: skip
    # models, 2026.
    assert found.headers["x-ms-ratelimit-remaining-subscription-reads"] == "249"


# Milliseconds. Not in the past, which the emulated service does not take.
STARTED = int(time.time() * 1000) + 3_600_000


@pytest.fixture
def run(mlflow_api: Any) -> dict[str, Any]:
    experiment = mlflow_api("POST", "experiments/create", {"name": "e1"}).json()["experiment_id"]
    tags = [{"key": "mlflow.user", "value": "me"}]
    asked = {"experiment_id": experiment, "start_time": STARTED, "tags": tags}
    made: dict[str, Any] = mlflow_api("POST", "runs/create", asked).json()["run"]
    return made


def test_a_run(mlflow_api: Any, run: dict[str, Any]) -> None:
    """metrics: GUIDs with dashes, times as text, MLflow's own tags."""
    for name in ("run_id", "run_uuid", "experiment_id"):
        assert GUID.fullmatch(run["info"][name]), name
    assert run["info"]["start_time"] == str(STARTED)
    found = mlflow_api("GET", f"runs/get?run_id={run['info']['run_id']}").json()["run"]
    keys = [tag["key"] for tag in found["data"]["tags"]]
    assert keys.count("mlflow.user") == 2
    assert {"mlflow.rootRunId", "mlflow.runName"} <= set(keys)
    asked = {"run_id": run["info"]["run_id"], "status": "FINISHED", "end_time": STARTED + 5}
    ended = mlflow_api("POST", "runs/update", asked).json()["run_info"]
    assert (ended["end_time"], "artifact_uri" in ended) == (str(STARTED + 5), False)


def test_an_artifact_by_reference(azure: Azure, history: Any, run: dict[str, Any]) -> None:
    """metrics: ``artifacts/register`` with a path in a datastore answers 200, and the run lists it."""
    number = run["info"]["run_id"]
    history.base = history.base.replace("/history/v1.0", "/artifact/v2.0")
    asked = {
        "origin": "ExperimentRun",
        "container": f"dcid.{number}",
        "path": "eval.json",
        "dataPath": {"dataStoreName": "workspaceblobstore", "relativePath": "runs/eval.json"},
    }
    made = history("POST", "/artifacts/register", asked)
    assert made.status_code == 200
    assert made.json().keys() >= {
        "artifactId",
        "origin",
        "container",
        "path",
        "etag",
        "createdTime",
        "dataPath",
    }
    azure.seed({"runs/eval.json": b"{}"})
    assert azure.artifact(number, "eval.json") == b"{}"


def test_a_limit_of_mlflow(mlflow_api: Any, run: dict[str, Any]) -> None:
    """azure-sdk-for-python#35685: the field's name, and no message at the top."""
    params = [{"key": f"p{number}", "value": "1"} for number in range(201)]
    for part in (params[:100], params[100:200], params[200:]):
        answer = mlflow_api("POST", "runs/log-batch", {"run_id": run["info"]["run_id"], "params": part})
    body = answer.json()
    assert (answer.status_code, body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "message" not in body
    assert "FieldName=Parameters" in body["error"]["message"]
