"""Addresses of pages: MLflow's UI and the studio of each cloud. Nothing is sent."""

from __future__ import annotations

from typing import Any

import pytest

from aml_mirror.pipeline.receipt import Receipt
from aml_mirror.registries.azureml.coordinates import Coordinates
from aml_mirror.registries.azureml.fast_lookup import FastLookup
from aml_mirror.registries.pages import Pages, mlflow_pages, pages_of

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
SHOWN = "?workflowType=machine_learning"


def test_pages_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_WORKSPACE", raising=False)
    found = mlflow_pages("https://user:secret@mlflow.example:5000/under/", "7", "a b/c", "3", "0123")
    top = "https://mlflow.example:5000/under/#"
    assert found == Pages(
        f"{top}/experiments/7/runs/0123{SHOWN}",
        f"{top}/models/a%20b%2Fc{SHOWN}",
        f"{top}/models/a%20b%2Fc/versions/3{SHOWN}",
        "get-artifact?run_uuid=0123&path=",
    )
    # MLflow redirects from there to the run's experiment.
    assert mlflow_pages("http://h", "", "m", "", "0123").run == f"http://h/#/runs/0123{SHOWN}"
    assert mlflow_pages("http://h", "7", "m", "", "").version == ""
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team")
    assert mlflow_pages("http://h", "7", "m", "1", "0").version.endswith(f"{SHOWN}&workspace=team")


@pytest.mark.parametrize(
    "uri", ["sqlite:////tmp/m.db", "postgresql://u:p@h/db", "databricks", "http://[", "file:///x"]
)
def test_a_store_without_a_server_has_no_page(uri: str) -> None:
    assert mlflow_pages(uri, "7", "m", "1", "0") == Pages()


def test_a_registry_need_not_have_pages() -> None:
    assert pages_of(object(), "m", "1", "0") == Pages()


def load() -> Any:
    raise AssertionError("no client is needed for an address")


@pytest.mark.parametrize(
    ("cloud", "host"),
    [
        ("AzureCloud", "https://ml.azure.com"),
        ("AzureUSGovernment", "https://ml.azure.us"),
        ("AzureChinaCloud", "https://studio.ml.azure.cn"),
    ],
)
def test_the_studio_of_a_cloud(monkeypatch: pytest.MonkeyPatch, cloud: str, host: str) -> None:
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", cloud)
    monkeypatch.setenv("AZURE_TENANT_ID", "tenant-1")
    found = pages_of(FastLookup(Coordinates(SUBSCRIPTION, "rg-robots", "mlw"), load), "reach", "3", "run-1")
    scope = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-robots"
    scope += "/providers/Microsoft.MachineLearningServices/workspaces/mlw&tid=tenant-1"
    assert found.run == f"{host}/runs/run-1?wsid={scope}"
    assert found.version == f"{host}/model/reach:3/details?wsid={scope}"
    assert found.artifact == ""


def test_the_text_ends_with_the_pages() -> None:
    from aml_mirror.cli.report import receipt_text

    for outcome in ("mirrored", "already-mirrored", "updated"):
        receipt = Receipt(outcome=outcome, run_page="http://h/#/runs/0", version_page="http://h/#/models/m")
        assert receipt_text(receipt).splitlines()[-2:] == [
            "  version     http://h/#/models/m",
            "  run         http://h/#/runs/0",
        ]
    assert "http" not in receipt_text(Receipt(outcome="mirrored"))
