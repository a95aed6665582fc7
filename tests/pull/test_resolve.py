"""Which version a reference resolves to, on a real MLflow server and in the emulated Azure ML."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient

from aml_mirror.core.errors import DataError, SourceNotFound, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.pull.reference import Reference, parse
from aml_mirror.pull.resolve import resolve
from aml_mirror.pull.resolved import ResolvedVersion
from aml_mirror.storage.azure_login import credential
from azure_emulator.client import Azure
from builders.gated import Gated
from builders.program import Call
from builders.runs import huggingface_run
from mirroring import ASIDE, Mirroring

ARM = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"


def found(settings: Settings, **more: object) -> ResolvedVersion:
    return resolve(replace(settings, **more), lambda text: None)  # type: ignore[arg-type]


def tag_by_hand(azure: Azure, model: str, number: str, tags: dict[str, str]) -> None:
    """Write tags of a version, as any user with permission to change tags can."""
    manager = "https://management.azure.test"
    url = f"{manager}{azure.facts['workspace_id']}/models/{model}/versions/{number}"
    token = credential().get_token(f"{manager}/.default").token
    asked = {"params": {"api-version": "2023-08-01-preview"}, "headers": {"Authorization": f"Bearer {token}"}}
    body = requests.get(url, timeout=600, **asked).json()
    body["properties"]["tags"].update(tags)
    requests.put(url, timeout=600, json=body, **asked).raise_for_status()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("act-pick:3", Reference("act-pick", "3")),
        ("act-pick@champion", Reference("act-pick", stage="champion")),
        ("models:/act-pick/3", Reference("act-pick", "3")),
        ("models:/act-pick@champion", Reference("act-pick", stage="champion")),
        ("azureml:act-pick:3", Reference("act-pick", "3")),
        (f"azureml:{ARM}/models/act-pick/versions/3", Reference("act-pick", "3")),
    ],
)
def test_each_form_of_a_reference(text: str, expected: Reference) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["", "act-pick", "a/b:3", "a:3:4", "models:/a", "models:/a/b/c", "a@b@c"])
def test_what_names_no_version(text: str) -> None:
    with pytest.raises(UsageError, match="version"):
        parse(text)


def test_a_version_of_an_mlflow_server(
    mlflow_url: str, client: MlflowClient, aml_mirror: Call, model_name: str, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / f"run-{model_name}", points=2)
    settings = Settings(tracking_uri=mlflow_url, retry_seconds=600.0)
    aml_mirror("mirror", run, "--model-name", model_name, "--tracking-uri", mlflow_url)
    client.set_registered_model_alias(model_name, "champion", "1")
    for more in (
        {"reference": f"{model_name}:1"},
        {"reference": f"models:/{model_name}@champion"},
        {"run_id": run.name},
        {"run_id": run.name, "model_name": model_name},
    ):
        version = found(settings, **more)
        assert (version.version.model, version.version.number) == (model_name, "1")
        assert version.tags["framework"] == "huggingface"
        assert version.properties == {}
        assert version.made_by_us and version.places.is_ours
    manifest = version.manifest()
    assert manifest.sha256 == version.tags["manifest_sha256"]
    assert {item.path: item.bytes for item in manifest.items} == {
        path: file.bytes for path, file in version.files.listing().items()
    }
    for reference in (f"{model_name}:7", f"{model_name}@nobody", "no-such-model:1"):
        with pytest.raises(SourceNotFound):
            found(settings, reference=reference)
    aml_mirror("mirror", run, "--checkpoint", "10", "--model-name", model_name, "--tracking-uri", mlflow_url)
    with pytest.raises(UsageError, match=r"2 versions match .*checkpoint-10"):
        found(settings, run_id=run.name)
    # A changed manifest is detected before any file is read.
    client.set_model_version_tag(model_name, "1", "manifest_sha256", "0" * 64)
    with pytest.raises(DataError, match="contradict each other"):
        found(settings, reference=f"{model_name}:1").manifest()


def test_a_version_of_azure_ml(here: Azure, mirroring: Mirroring, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run-7", points=2)
    mirroring.mirror(run, "reach")
    mirroring.mirror(run, "reach", "--checkpoint", "10")
    here.settle()
    facts = here.facts
    settings = Settings(
        subscription_id=facts["subscription"],
        resource_group=facts["resource_group"],
        workspace_name=facts["workspace"],
        retry_seconds=600.0,
    )
    here.forget_requests()
    version = found(settings, reference="reach:1")
    assert version.tags["mirror.state"] == "complete"
    assert version.properties["checkpoint"] == "checkpoint-20"
    asked = [one for one in here.requests() if not re.search(ASIDE, str(one))]
    assert len(asked) == 1, asked
    manifest = version.manifest()
    assert {item.path: item.bytes for item in manifest.items} == {
        path: file.bytes for path, file in version.files.listing().items()
    }
    assert version.files.uri.startswith(f"azure://{here.account}/")
    with pytest.raises(SourceNotFound, match="reach@production"):
        found(settings, reference="reach@production")
    # A stage is what the tags and the journal agree on, for pull as well as for promote and history.
    tag_by_hand(here, "reach", "2", {"mirror.stage": "production"})
    with pytest.raises(
        DataError, match="reach:2 has the tag of the stage production, but the stage's journal"
    ):
        found(settings, reference="reach@production")
    gated = Gated(mirroring, tmp_path, "reach")
    gated.evaluate("1", 9, 10)
    gated.promote("1")
    assert gated.holder() == "1"
    assert found(settings, reference="reach@production").version.number == "1"
    mark = here.models()["reach"]["1"]["tags"]["mirror.stage.production"]
    tag_by_hand(here, "reach", "2", {"mirror.stage.production": mark})
    # The entry names another version.
    assert found(settings, reference="reach@production").version.number == "1"
    with pytest.raises(UsageError, match="2 versions match"):
        found(settings, run_id="run-7")
    with pytest.raises(SourceNotFound):
        found(settings, reference="elsewhere:1")


def test_reading_needs_neither_mlflow_nor_azure_ai_ml() -> None:
    code = (
        "import sys\n"
        "import aml_mirror.pull.resolve, aml_mirror.pull.azureml_catalog, aml_mirror.pull.mlflow_catalog\n"
        "import aml_mirror.pull.mlflow_rest, aml_mirror.pull.azure_files\n"
        "assert not {'mlflow', 'azure.ai.ml', 'azureml'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
