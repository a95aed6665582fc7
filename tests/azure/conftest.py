"""The emulator's fixtures, and real clients that use it, for the tests of the emulator itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

import requests  # noqa: E402
from azure.ai.ml import MLClient  # noqa: E402
from azure.identity import DefaultAzureCredential  # noqa: E402
from azure.storage.blob import BlobServiceClient  # noqa: E402

from azure_emulator.client import Azure  # noqa: E402
from azure_emulator.fixtures import azure, azure_emulator  # noqa: E402, F401
from mirroring import Mirroring  # noqa: E402
from this_process import here, in_this_process  # noqa: E402, F401

ARM = "https://management.azure.test"
AML = "https://eastus.api.azureml.azure.test"
STORAGE = "https://storage.azure.com"


@pytest.fixture
def credential(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> DefaultAzureCredential:  # noqa: F811
    """The real credential chain, in this process, inside the scope."""
    for name, value in azure.env().items():
        monkeypatch.setenv(name, value)
    return DefaultAzureCredential()


@pytest.fixture
def ml(azure: Azure, credential: DefaultAzureCredential) -> MLClient:  # noqa: F811
    """The real management client."""
    facts = azure.facts
    return MLClient(credential, facts["subscription"], facts["resource_group"], facts["workspace"])


Blobs = Callable[..., BlobServiceClient]


@pytest.fixture
def blobs(azure: Azure, credential: DefaultAzureCredential) -> Blobs:  # noqa: F811
    """The real client of an account's blobs, without retries so that a refusal is seen at once."""

    def client(account: str | None = None, **more: object) -> BlobServiceClient:
        url = f"https://{account or azure.account}.blob.core.azure.test"
        return BlobServiceClient(url, **{"credential": credential, "retry_total": 0, **more})

    return client


class Service:
    """Requests to one service with a token for one audience."""

    def __init__(self, credential: DefaultAzureCredential, base: str, audience: str) -> None:
        self.base, self._credential, self._scope = base, credential, f"{audience}/.default"

    def __call__(
        self, method: str, path: str, body: object = None, token: str | None = None
    ) -> requests.Response:
        bearer = token or self._credential.get_token(self._scope).token
        headers = {"Authorization": f"Bearer {bearer}"}
        return requests.request(method, self.base + path, json=body, headers=headers, timeout=600)


@pytest.fixture
def arm(azure: Azure, credential: DefaultAzureCredential) -> Service:  # noqa: F811
    """ARM below the workspace, raw."""
    return Service(credential, ARM + azure.facts["workspace_id"], ARM)


@pytest.fixture
def mlflow_api(azure: Azure, credential: DefaultAzureCredential) -> Service:  # noqa: F811
    """The MLflow service below ``api/2.0/mlflow``, raw."""
    return Service(credential, f"{AML}/mlflow/v2.0{azure.facts['workspace_id']}/api/2.0/mlflow/", ARM)


@pytest.fixture
def history(azure: Azure, credential: DefaultAzureCredential) -> Service:  # noqa: F811
    """Run history's artifacts, raw."""
    return Service(credential, f"{AML}/history/v1.0{azure.facts['workspace_id']}", ARM)


@pytest.fixture
def mirroring(azure: Azure, tmp_path: Path) -> Mirroring:  # noqa: F811
    """The program in this test's scope, in an empty folder."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    return Mirroring(azure, folder)
