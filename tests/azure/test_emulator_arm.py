"""The workspace, its datastores and models, used with the real management client."""

from __future__ import annotations

from typing import Any

import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.constants import ListViewType
from azure.ai.ml.entities import Model
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from azure_emulator.client import WORKSPACE_READER, Azure

VERSION = "?api-version=2024-10-01"


def model(number: int | str = 1, name: str = "policy", path: str = "runs/r1/", **more: Any) -> Model:
    uri = f"azureml://datastores/workspaceblobstore/paths/{path}"
    return Model(name=name, version=str(number), type="custom_model", path=uri, **more)


def test_the_workspace(azure: Azure, ml: MLClient) -> None:
    found = ml.workspaces.get(azure.facts["workspace"])
    # The client asks for v1.0 and turns it into v2.0 by itself.
    assert found.mlflow_tracking_uri.startswith("azureml://eastus.api.azureml.azure.test/mlflow/v")
    with pytest.raises(ResourceNotFoundError, match="under resource group"):
        ml.workspaces.get("another")


def test_not_found_and_versions(azure: Azure, arm: Any) -> None:
    workspace_id = azure.facts["workspace_id"]
    base, arm.base = arm.base, arm.base.removesuffix(workspace_id)
    for old, new, code in (
        (azure.facts["subscription"], "0", "SubscriptionNotFound"),
        (azure.facts["resource_group"], "rg", "ResourceGroupNotFound"),
    ):
        answer = arm("GET", workspace_id.replace(old, new) + VERSION)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, code)
    arm.base = base
    assert arm("GET", "").json()["error"]["code"] == "MissingApiVersionParameter"
    answer = arm("GET", "?api-version=2019-01-01")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "NoRegisteredProviderFound")


def test_without_a_role(azure: Azure, ml: MLClient) -> None:
    azure.set_role(None)
    with pytest.raises(HttpResponseError, match="AuthorizationFailed") as error:
        ml.workspaces.get(azure.facts["workspace"])
    assert error.value.status_code == 403
    assert f"object id '{azure.object_id}'" in str(error.value)
    assert "Microsoft.MachineLearningServices/workspaces/read" in str(error.value)


def test_a_reader_may_not_register(azure: Azure, ml: MLClient) -> None:
    azure.set_role(WORKSPACE_READER)
    azure.seed({"runs/r1/a": b"1"})
    assert ml.workspaces.get(azure.facts["workspace"])
    with pytest.raises(HttpResponseError, match="models/versions/write"):
        ml.models.create_or_update(model())


def test_datastores(azure: Azure, ml: MLClient) -> None:
    found = ml.datastores.get_default()
    assert (found.account_name, found.container_name) == (azure.account, azure.container)
    assert (found.endpoint, found.protocol) == ("core.azure.test", "https")
    assert type(found.credentials).__name__ == "NoneCredentialConfiguration"
    assert {one.name for one in ml.datastores.list()} == {"workspaceblobstore", "workspaceartifactstore"}
    with pytest.raises(ResourceNotFoundError):
        ml.datastores.get("none")


def test_datastore_secrets(azure: Azure, ml: MLClient) -> None:
    azure.set_datastore(credentials="AccountKey")
    assert ml.datastores.get_default(include_secrets=True).credentials.account_key
    azure.set_datastore(credentials="Sas")
    assert "sig=" in ml.datastores.get_default(include_secrets=True).credentials.sas_token
    azure.set_workspace(secrets=False)
    with pytest.raises(HttpResponseError, match="listSecrets/action"):
        ml.datastores.get_default(include_secrets=True)


@pytest.mark.parametrize("kind", ["AzureFile", "AzureDataLakeGen2"])
def test_a_default_datastore_of_another_kind(azure: Azure, ml: MLClient, kind: str) -> None:
    azure.set_datastore("other", kind=kind, account=azure.account, container="share", is_default=True)
    found = ml.datastores.get_default()
    assert found.name == "other"
    assert type(found).__name__ in ("AzureFileDatastore", "AzureDataLakeGen2Datastore")


def test_a_version_is_made_once(azure: Azure, ml: MLClient, arm: Any) -> None:
    azure.seed({"runs/r1/model.safetensors": b"1", "runs/r2/a": b"2"})
    made = ml.models.create_or_update(model(properties={"p": "q"}, tags={"a": "b"}, description="first"))
    assert made.path.endswith("/datastores/workspaceblobstore/paths/runs/r1/")
    # Tags and description may change, and properties may be added. Nothing else may change.
    ml.models.create_or_update(
        model(properties={"p": "q", "new": "1"}, tags={"c": "d"}, description="second")
    )
    found = ml.models.get("policy", "1")
    assert (found.tags, found.description) == ({"c": "d"}, "second")
    assert {key: found.properties[key] for key in ("p", "new")} == {"p": "q", "new": "1"}
    with pytest.raises(HttpResponseError, match="is immutable") as error:
        ml.models.create_or_update(model(properties={"p": "other"}))
    assert error.value.status_code == 409
    with pytest.raises(HttpResponseError, match="Asset paths cannot be updated"):
        ml.models.create_or_update(model(path="runs/r2/", properties={"p": "q"}))
    azure.set_workspace(immutable_status=400)
    with pytest.raises(HttpResponseError) as error:
        ml.models.create_or_update(model(properties={"p": "other"}))
    assert error.value.status_code == 400
    # The first PUT of a version is 201, a second one 200.
    puts = [one["status"] for one in azure.requests("PUT ") if "/versions/1" in one["path"]]
    assert puts == [201, 200, 409, 409, 400]


def test_archive_list_and_delete(azure: Azure, ml: MLClient, arm: Any) -> None:
    azure.seed({"runs/r1/a": b"1"})
    for number in (1, 2, 3):
        ml.models.create_or_update(model(number))
    # A list may be older than a version that is read by its number.
    assert ml.models.get("policy", "3") and not list(ml.models.list("policy"))
    azure.settle()
    ml.models.archive("policy", "2")
    assert [one.version for one in ml.models.list("policy")] == ["3", "1"]
    assert [one.version for one in ml.models.list("policy", list_view_type=ListViewType.ARCHIVED_ONLY)] == [
        "2"
    ]
    ml.models.restore("policy", "2")
    assert ml.models.get("policy", label="latest").version == "3"
    assert [one.name for one in ml.models.list()] == ["policy"]
    assert arm("DELETE", f"/models/policy/versions/3{VERSION}").status_code == 200
    with pytest.raises(HttpResponseError, match="cannot be recreated"):
        ml.models.create_or_update(model(3))
    with pytest.raises(ResourceNotFoundError):
        ml.models.get("policy", "3")
    with pytest.raises(ResourceNotFoundError):
        list(ml.models.list("none"))


@pytest.mark.parametrize("name", ["-policy", "a b", "x" * 256, "a:b"])
def test_names_that_are_refused(azure: Azure, arm: Any, name: str) -> None:
    body = {"properties": {"modelUri": "azureml://datastores/workspaceblobstore/paths/x/"}}
    answer = arm("PUT", f"/models/{name}/versions/1{VERSION}", body)
    assert answer.status_code == 400
    assert (
        "letters, numbers, dashes, periods, or underscores" in answer.json()["error"]["details"][0]["message"]
    )


@pytest.mark.parametrize("number", ["0", "1.0", "latest", "-1"])
def test_versions_that_are_refused(arm: Any, number: str) -> None:
    answer = arm("PUT", f"/models/policy/versions/{number}{VERSION}", {"properties": {"modelUri": "x"}})
    assert answer.status_code == 400


def test_a_path_without_files_or_with_too_many(azure: Azure, ml: MLClient) -> None:
    with pytest.raises(HttpResponseError, match="No matching artifacts found"):
        ml.models.create_or_update(model(path="nothing/"))
    # 1,500 files are accepted and one more is not. Folders of a hierarchical namespace do not count as files.
    azure.seed({f"many/{number:04d}": b"" for number in range(1500)})
    azure.seed_folder("many/folder")
    assert ml.models.create_or_update(model(path="many/"))
    azure.seed({"many/one-more": b""})
    with pytest.raises(HttpResponseError, match="Limit=1500, Size=1501"):
        ml.models.create_or_update(model(2, path="many/"))


def test_ten_thousand_versions_by_pages_and_filters(azure: Azure, ml: MLClient, arm: Any) -> None:
    azure.seed_versions("policy", 10_000, tags={"run": "r{n}"}, properties={"step": "{n}", "kind": "k"})
    page = arm("GET", f"/models/policy/versions{VERSION}&$orderBy=version asc&$top=4000").json()
    assert [page["value"][0]["name"], page["value"][-1]["name"]] == ["1", "4000"]
    numbers = [one["name"] for one in page["value"]]
    while "nextLink" in page:
        base, arm.base = arm.base, ""
        page = arm("GET", page["nextLink"]).json()
        arm.base = base
        numbers += [one["name"] for one in page["value"]]
    assert numbers == [str(number) for number in range(1, 10_001)]
    found = arm("GET", f"/models/policy/versions{VERSION}&properties=kind,step=77").json()["value"]
    assert [one["name"] for one in found] == ["77"]
    found = arm("GET", f"/models/policy/versions{VERSION}&tags=run=r78").json()["value"]
    assert [one["name"] for one in found] == ["78"]
    assert len(arm("GET", f"/models/policy/versions{VERSION}").json()["value"]) == 30
    newest = next(iter(ml.models._model_versions_operation.list(
        resource_group_name=azure.facts["resource_group"], workspace_name=azure.facts["workspace"],
        name="policy", order_by="createdtime desc", top=1,
    )))  # fmt: skip
    assert newest.name == "10000"
