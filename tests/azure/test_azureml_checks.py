"""What ``doctor`` finds: each trouble that operators meet, by its name and with its mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from azure_emulator.client import Azure
from mirroring import Mirroring

# Not of Azure ML: there is no run here.
ASIDE = ("model name", "run", "scratch space")


class Doctor:
    """Runs all checks in a scope."""

    def __init__(self, azure: Azure, tmp_path: Path) -> None:
        self._mirroring = Mirroring(azure, tmp_path)

    def __call__(self, **environment: str) -> dict[str, tuple[bool, str, str]]:
        """Check -> whether it is well, what was found, the mend."""
        done = self._mirroring(
            "doctor", "--json", "--model-name", "reach", "--run-id", "run-7", code=None, **environment
        )
        assert "Traceback" not in done.err
        found = [json.loads(line) for line in done.out.splitlines()]
        return {
            one["check"]: (one["ok"], one["found"], one["hint"] or "")
            for one in found
            if one["check"] not in ASIDE
        }


@pytest.fixture
def doctor(azure: Azure, tmp_path: Path) -> Doctor:
    return Doctor(azure, tmp_path)


def failed(found: dict[str, tuple[bool, str, str]]) -> list[str]:
    return [name for name, (well, _, _) in found.items() if not well]


def test_all_is_well(azure: Azure, doctor: Doctor) -> None:
    found = doctor()
    assert failed(found) == [], found
    assert azure.object_id in found["login"][1]
    assert "WorkloadIdentityCredential" in found["login"][1]
    assert "a probe blob was written, read back and deleted" in found["datastore"][1]
    # Nothing is left behind.
    assert azure.blobs() == {}
    assert azure.mlflow.search_experiments(filter_string="name != 'Default'") == []


def test_variables(doctor: Doctor) -> None:
    found = doctor(AZURE_RESOURCE_GROUP="")
    assert found["Azure ML variables"][0] is False
    assert "AZURE_RESOURCE_GROUP not set" in found["Azure ML variables"][1]
    assert "Terraform" in found["Azure ML variables"][2]


def test_a_pod_without_identity(doctor: Doctor) -> None:
    found = doctor(
        KUBERNETES_SERVICE_HOST="10.0.0.1", AZURE_TOKEN_CREDENTIALS="", AZURE_FEDERATED_TOKEN_FILE=""
    )
    assert found["federated token file"][0] is False
    well, text, hint = found["login"]
    assert not well
    assert "DefaultAzureCredential failed" in text
    assert "azure.workload.identity/use" in hint


def test_no_data_role(azure: Azure, doctor: Doctor) -> None:
    azure.set_role(None, account=azure.account)
    found = doctor()
    assert failed(found) == ["datastore"]
    assert "no data role" in found["datastore"][1]
    assert "Storage Blob Data Contributor" in found["datastore"][2]


def test_a_firewall_before_the_account(azure: Azure, doctor: Doctor) -> None:
    azure.set_account(network="Deny")
    found = doctor()
    assert failed(found) == ["datastore"]
    assert "network rules" in found["datastore"][2]


def test_no_workspace_role(azure: Azure, doctor: Doctor) -> None:
    azure.set_role(None)
    found = doctor()
    assert "workspace" in failed(found)
    assert "AuthorizationFailed" in found["workspace"][1]
    assert "AzureML Data Scientist" in found["workspace"][2]


def test_no_such_workspace(azure: Azure, doctor: Doctor) -> None:
    found = doctor(AZUREML_WORKSPACE_NAME="elsewhere")
    assert "not there" in found["workspace"][1]


def test_the_default_datastore_is_not_blob_storage(azure: Azure, doctor: Doctor) -> None:
    azure.set_datastore(kind="AzureFile")
    found = doctor()
    assert failed(found) == ["datastore"]
    assert "Set as default datastore" in found["datastore"][2]


def test_the_artifact_service_refuses(azure: Azure, doctor: Doctor) -> None:
    azure.fault("status", match="/history/", status=403, body="{}", times=0)
    found = doctor()
    assert failed(found) == ["artifact service"]
    assert "a mirror goes on all the same" in found["artifact service"][2]


def test_a_proxy_that_lets_nobody_out(azure: Azure, doctor: Doctor) -> None:
    found = doctor(
        HTTPS_PROXY="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9", ARM_CLOUD_METADATA_URL=""
    )
    assert "proxy" in " ".join(found["network"][1:]).lower()


def test_a_name_that_does_not_resolve(azure: Azure, doctor: Doctor) -> None:
    found = doctor(
        HTTPS_PROXY="", https_proxy="", ARM_CLOUD_METADATA_URL="", AZUREML_CURRENT_CLOUD="AzureCloud"
    )
    well, text, hint = found["network"]
    assert not well
    assert "cannot be resolved" in text
    assert "private endpoint" in hint


def test_a_certificate_that_is_not_trusted(azure: Azure, doctor: Doctor) -> None:
    found = doctor(REQUESTS_CA_BUNDLE="", ARM_CLOUD_METADATA_URL="", AZUREML_CURRENT_CLOUD="AzureCloud")
    assert found["network"][0] is False
