"""What ``doctor`` finds: each trouble that operators meet, by its name and with its fix."""

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
        """Check -> whether it is well, what was found, the fix."""
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
        HTTPS_PROXY="http://127.0.0.1:9",
        https_proxy="http://127.0.0.1:9",
        ARM_CLOUD_METADATA_URL="",
        AZUREML_CURRENT_CLOUD="AzureCloud",
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


# --- what only a real workspace can tell ----------------------------------------------------------------


def probed(azure: Azure, tmp_path: Path) -> dict[str, tuple[bool, str]]:
    done = Mirroring(azure, tmp_path)("doctor", "--probe", "--json", "--model-name", "reach", code=None)
    assert "Traceback" not in done.err
    found = [json.loads(line) for line in done.out.splitlines()]
    return {
        one["check"].removeprefix("probe: "): (one["ok"], one["found"])
        for one in found
        if one["check"].startswith("probe: ")
    }


def test_a_probe_tells_what_the_service_makes_of_it(azure: Azure, tmp_path: Path) -> None:
    found = probed(azure, tmp_path)
    assert all(well for well, _ in found.values()), found
    said = {name: text for name, (_, text) in found.items()}
    assert "is found by the tag osmo.run_id after" in said["search"]
    assert said["rows sent twice"] == "a metric row that is sent twice is kept once"
    assert said["tags of requests at once"] == "of 16 tags written 4 at a time, 16 were kept"
    assert said["values that are not finite"] == "NaN and infinity are taken"
    assert said["artifacts"] == "are taken by the run"
    assert "refused with 409" in said["model version"]
    assert said["a closed run"] == "a KILLED run that is set to RUNNING is RUNNING"
    assert said["deleting runs"] == "runs may be deleted; the probe's is"
    # What it made is gone, or out of sight.
    assert not [name for name in azure.blobs() if "probe" in name and "artifacts" not in name.lower()]
    experiment = azure.mlflow.get_experiment_by_name("aml-mirror-probe")
    assert azure.mlflow.search_runs([experiment.experiment_id]) == []
    (version,) = azure.models()["aml-mirror-probe"].values()
    assert version["isArchived"] is True


def test_a_probe_of_a_workspace_that_answers_otherwise(azure: Azure, tmp_path: Path) -> None:
    azure.set_workspace(metric_rows="kept", accepts_nan=False, immutable_status=400, artifact_sas="key")
    azure.fault("status", match="runs/delete", status=403, times=0)
    found = probed(azure, tmp_path)
    assert found["rows sent twice"] == (True, "a metric row that is sent twice is kept twice")
    assert found["values that are not finite"][0] and "refused: " in found["values that are not finite"][1]
    assert "refused with 400" in found["model version"][1]
    assert found["deleting runs"][0] and "refused: " in found["deleting runs"][1]
    (run,) = azure.mlflow.search_runs([azure.mlflow.get_experiment_by_name("aml-mirror-probe").experiment_id])
    assert run.info.status == "KILLED"


def test_a_probe_where_versions_are_refused_fails(azure: Azure, tmp_path: Path) -> None:
    azure.fault(
        "status", match=r"PUT .*/versions/", status=400, times=0, body={"error": {"code": "UserError"}}
    )
    found = probed(azure, tmp_path)
    assert not found["model version"][0]
    assert [name for name, (well, _) in found.items() if not well] == ["model version"]
    assert not [name for name in azure.blobs() if "/probes/" in name]


def test_a_probe_wants_azure_ml(tmp_path: Path, azure: Azure) -> None:
    done = Mirroring(azure, tmp_path)("doctor", "--probe", "--tracking-uri", "other://place", code=64)
    assert "--probe needs a target of the kind azureml" in done.err
