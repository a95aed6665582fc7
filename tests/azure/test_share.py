"""The service copies a version to an Azure ML registry once, and the copy is compared there.

The registry is emulated from azure-ai-ml's REST descriptions. No real one was ever reached.
"""

from __future__ import annotations

import hashlib
import signal
from pathlib import Path
from typing import Any

import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.exceptions import ValidationException
from azure.core.credentials import AccessToken
from azure.identity import DefaultAzureCredential

from azure_emulator.client import Azure
from builders import matrix
from builders.runs import huggingface_run
from mirroring import Mirroring, files_of

COORDINATES = ("subscription", "resource_group", "workspace")


class PublicCloud:
    """A credential for azure-ai-ml. In any cloud its registry clients request tokens for the public cloud."""

    def __init__(self, credential: DefaultAzureCredential) -> None:
        self._credential = credential

    def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        own = (
            scope.replace("https://management.azure.com", "https://management.azure.test") for scope in scopes
        )
        return self._credential.get_token(*own, **more)


@pytest.fixture
def shared(azure: Azure, mirroring: Mirroring, tmp_path: Path) -> dict[str, str]:
    """A workspace with one version, and a registry."""
    mirroring.mirror(huggingface_run(tmp_path / "run-1", points=3), "act")
    return azure.new_registry("robots")


def blob(azure: Azure, shared: dict[str, str], name: str) -> Any:
    return azure.blob_service(shared["account"]).get_blob_client(shared["container"], name)


def test_a_version_is_shared_once_and_compared(
    azure: Azure, mirroring: Mirroring, shared: dict[str, str]
) -> None:
    azure.forget_requests()
    done = mirroring("share", "act:1", "--registry", "robots", "--json").json
    assert (done["outcome"], done["files"]) == ("shared", 2)
    assert done["uri"] == "azureml://registries/robots/models/act/versions/1"
    # The service copies: nothing is uploaded from here.
    assert not [one for one in azure.requests() if ".blob." in one["host"] and one["method"] == "PUT"]
    (version,) = azure.registry_models("robots").values()
    assert version["properties"]["identity"] == azure.models()["act"]["1"]["properties"]["identity"]
    azure.forget_requests()
    assert mirroring("share", "act:1", "--registry", "robots", "--json").json["outcome"] == "already-shared"
    assert not azure.requests("/import")
    blob(azure, shared, "act/1/config.json").upload_blob(b"{}", overwrite=True)
    refused = mirroring("share", "act:1", "--registry", "robots", "--json", code=65)
    assert "is not what was mirrored: config.json: it has 2 bytes" in refused.json["error"]
    assert (
        "there is no Azure ML registry nobody"
        in mirroring("share", "act:1", "--registry", "nobody", code=78).err
    )
    mirroring("share", "act:1", code=64)
    mirroring("share", "act:2", "--registry", "robots", code=66)


def test_another_version_with_its_number_is_told(
    azure: Azure, mirroring: Mirroring, shared: dict[str, str], tmp_path: Path
) -> None:
    mirroring("share", "act:1", "--registry", "robots")
    # Another workspace's version may have this number: here the first is deleted, and another has taken the
    # number.
    azure.new_registry("others", copies_properties=False)
    assert mirroring("share", "act:1", "--registry", "others", "--json").json["outcome"] == "shared"
    run = huggingface_run(tmp_path / "run-2", steps=(30,), points=3)
    mirroring.mirror(run, "act")
    manifest = azure.models()["act"]["2"]["properties"]["manifest_sha256"]
    assert manifest not in str(azure.registry_models("robots"))


@pytest.mark.parametrize("action", ["status", "drop"])
def test_lost_answers_make_no_second_copy(
    azure: Azure, mirroring: Mirroring, shared: dict[str, str], action: str
) -> None:
    azure.fault(action, match="/import", when="after")
    done = mirroring("share", "act:1", "--registry", "robots", "--json", "--retry-for", "600s").json
    assert done["outcome"] == "shared"
    assert list(azure.registry_models("robots")) == ["act:1"]


def test_azure_ai_mls_own_client(
    azure: Azure,
    mirroring: Mirroring,
    shared: dict[str, str],
    credential: DefaultAzureCredential,
    tmp_path: Path,
) -> None:
    """azure-ai-ml reads what we shared and does not share it again, and we recognise what it shared."""
    original = azure.models()["act"]["1"]
    mirroring("share", "act:1", "--registry", "robots")
    theirs = MLClient(PublicCloud(credential), registry_name="robots").models
    found = theirs.get("act", "1")
    assert (found.properties, found.tags) == (original["properties"], original["tags"])
    theirs.download("act", "1", str(tmp_path / "got"))
    got = {path.name: sha256(path) for path in (tmp_path / "got").rglob("*") if path.is_file()}
    assert got == files_of(azure, original)
    # Its own share command uses the credential of the workspace's client.
    ml = MLClient(PublicCloud(credential), *(azure.facts[name] for name in COORDINATES))
    azure.forget_requests()
    names = {"share_with_name": "act", "share_with_version": "1"}
    with pytest.raises(ValidationException, match="already exists"):
        ml.models.share("act", "1", registry_name="robots", **names)
    assert not azure.requests("/import")
    azure.new_registry("others")
    assert ml.models.share("act", "1", registry_name="others", **names).version == "1"
    assert mirroring("share", "act:1", "--registry", "others", "--json").json["outcome"] == "already-shared"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("part", matrix.PARTS)
def test_killed_at_any_request(
    azure: Azure, mirroring: Mirroring, shared: dict[str, str], request: pytest.FixtureRequest, part: int
) -> None:
    azure.new_registry("count")
    azure.forget_requests()
    mirroring("share", "act:1", "--registry", "count")
    total = len(azure.requests())
    for at in matrix.sample(total, 4, part):
        name = f"robots{at.number}{at.moment}"
        azure.new_registry(name)
        azure.forget_requests()
        azure.fault("kill", nth=at.number, when=at.moment)
        first = mirroring("share", "act:1", "--registry", name, code=None)
        azure.clear_faults()
        struck = [one for one in azure.requests() if "closed" in one["faults"]]
        assert first.code == (-signal.SIGKILL if struck else 0), first.err
        again = mirroring("share", "act:1", "--registry", name, "--json").json
        assert list(azure.registry_models(name)) == ["act:1"]
        stage = struck[0]["path"].partition("?")[0].rpartition("/")[2] if struck else "none"
        matrix.note(request, "killed, share to a registry", stage[:20], at.moment, again["outcome"])


def test_the_request_is_that_of_the_sdk() -> None:
    """azure-ai-ml logs in to the public cloud for a registry, whatever the cloud. Our request is compared
    with its own.
    """
    from azure.ai.ml.constants._common import ASSET_ID_FORMAT
    from azure.ai.ml.entities._assets.workspace_asset_reference import WorkspaceAssetReference

    from aml_mirror.registries.azureml.model_registry import import_request
    from aml_mirror.registries.records import Version

    asset = ASSET_ID_FORMAT.format("eastus", "guid", "models", "act", "3")
    theirs = WorkspaceAssetReference(name="act", version="3", asset_id=asset)._to_rest_object()
    assert import_request(Version("act", "3"), "eastus", "guid") == theirs
