"""What ``doctor`` finds: each common problem of operators, with its name and its fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from azure_emulator.client import Azure
from builders.runs import huggingface_run
from mirroring import Mirroring

# Not a check of Azure ML: there is no run here.
ASIDE = ("model name", "run", "scratch space")


class Doctor:
    """Runs all checks in a scope."""

    def __init__(self, azure: Azure, tmp_path: Path) -> None:
        self._mirroring = Mirroring(azure, tmp_path)

    def __call__(self, **environment: str) -> dict[str, tuple[bool, str, str]]:
        """Check -> whether it passes, what was found, the fix."""
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
    assert "it can be read, and this identity may write" in found["datastore"][1]
    # Nothing was written: the only writing request failed.
    assert azure.blobs() == {}
    writes = [one for one in azure.requests(".blob.") if one["method"] not in ("GET", "HEAD")]
    assert [one["status"] for one in writes] == [412]
    assert "249 reads are left to this identity" in found["request quota"][1]
    assert "All shards of a backfill" in found["request quota"][1]
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


@pytest.mark.parametrize(
    ("sas", "shared_key", "reader", "said"),
    [
        ("user-delegation", False, True, "SAS are signed without the account's key"),
        ("key", False, True, "every SAS will be refused (KeyBasedAuthenticationNotPermitted)"),
        ("key", False, False, "if the account forbids shared keys, which this identity cannot check"),
        ("key", True, True, "the account allows shared keys: SAS work"),
    ],
)
def test_what_the_settings_mean_for_artifacts(
    azure: Azure, doctor: Doctor, sas: str, shared_key: bool, reader: bool, said: str
) -> None:
    azure.set_workspace(artifact_sas=sas)
    azure.set_account(shared_key=shared_key)
    azure.set(account_reader=reader)
    found = doctor()
    assert failed(found) == []
    assert said in found["artifact service"][1]


def test_a_role_that_may_only_read_the_storage(azure: Azure, doctor: Doctor) -> None:
    azure.set_role("Storage Blob Data Reader", account=azure.account)
    found = doctor()
    assert failed(found) == ["datastore"]
    assert "cannot be written" in found["datastore"][1]
    assert "Storage Blob Data Contributor" in found["datastore"][2]


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
    assert failed(found) == ["workspace"]
    assert "AuthorizationFailed" in found["workspace"][1]
    assert "AzureML Data Scientist" in found["workspace"][2]


def test_no_such_workspace(azure: Azure, doctor: Doctor) -> None:
    found = doctor(AZUREML_WORKSPACE_NAME="elsewhere")
    assert failed(found) == ["workspace"]
    assert "does not exist" in found["workspace"][1]


def test_the_default_datastore_is_not_blob_storage(azure: Azure, doctor: Doctor) -> None:
    azure.set_datastore(kind="AzureFile")
    found = doctor()
    assert failed(found) == ["datastore"]
    assert "Set as default datastore" in found["datastore"][2]


def test_the_artifact_service_refuses(azure: Azure, doctor: Doctor) -> None:
    azure.fault("status", match="/history/", status=403, body="{}", times=0)
    found = doctor()
    assert failed(found) == ["artifact service"]
    assert "a mirror still works" in found["artifact service"][2]


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
    _, text, hint = found["network"]
    assert failed(found) == ["network"]
    assert "cannot be resolved" in text
    assert "private endpoint" in hint


def test_a_certificate_that_is_not_trusted(azure: Azure, doctor: Doctor) -> None:
    found = doctor(REQUESTS_CA_BUNDLE="", ARM_CLOUD_METADATA_URL="", AZUREML_CURRENT_CLOUD="AzureCloud")
    assert found["network"][0] is False


# --- what only a real workspace can show ----------------------------------------------------------------


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
    azure.set_workspace(list_lag=0)
    found = probed(azure, tmp_path)
    assert all(well for well, _ in found.values()), found
    said = {name: text for name, (_, text) in found.items()}
    assert "is found by the tag osmo.run_id after" in said["search"]
    assert said["rows sent twice"] == "a metric row that is sent twice is kept twice"
    assert said["tags of requests at once"] == "of 16 tags written 4 at a time, 16 were kept"
    assert said["values that are not finite"] == "NaN and infinity are accepted"
    assert said["datastore"] == "a blob was written to workspaceblobstore, read back and deleted"
    assert said["artifacts"] == "are accepted by the run"
    assert said["artifacts by reference"] == "are accepted, and read back"
    assert said["link from version to run"] == "jobName is not kept: mirrors leave it out"
    assert "refused with 409" in said["model version"]
    assert said["a closed run"] == "a KILLED run that is set to RUNNING is RUNNING"
    assert said["deleting runs"] == "runs may be deleted; the probe's is"
    # What it created is deleted or hidden.
    assert not [name for name in azure.blobs() if "/probes/" in name]
    experiment = azure.mlflow.get_experiment_by_name("aml-mirror-probe")
    assert azure.mlflow.search_runs([experiment.experiment_id]) == []
    assert all(version["isArchived"] for version in azure.models()["aml-mirror-probe"].values())


def test_a_probe_of_a_workspace_that_answers_otherwise(azure: Azure, tmp_path: Path) -> None:
    azure.set_workspace(metric_rows="dropped", accepts_nan=False, immutable_status=400, artifact_sas="key")
    azure.set_workspace(artifact_references="404", job_name="kept", changed_properties="accepted")
    azure.fault("status", match="runs/delete", status=403, times=0)
    found = probed(azure, tmp_path)
    assert found["rows sent twice"] == (True, "a metric row that is sent twice is kept once")
    assert found["values that are not finite"][0] and "refused: " in found["values that are not finite"][1]
    assert "ACCEPTED, so properties prove nothing here" in found["model version"][1]
    assert found["artifacts by reference"][1].startswith("are not accepted: ")
    assert found["link from version to run"][1].startswith("jobName is kept")
    assert found["deleting runs"][0] and "refused: " in found["deleting runs"][1]
    (run,) = azure.mlflow.search_runs([azure.mlflow.get_experiment_by_name("aml-mirror-probe").experiment_id])
    assert run.info.status == "KILLED"


@pytest.mark.parametrize("kept", ["kept", "ignored", "refused"])
def test_the_link_to_the_run_is_written_where_a_probe_found_it(
    azure: Azure, tmp_path: Path, kept: str
) -> None:
    mirroring = Mirroring(azure, tmp_path)
    run = huggingface_run(tmp_path / "run-7", steps=(20,), points=3)
    azure.set_workspace(job_name=kept)
    mirroring.mirror(run, "before")
    assert azure.models()["before"]["1"]["jobName"] is None
    probed(azure, tmp_path)
    receipt = mirroring.mirror(run, "reach").json
    wanted = receipt["mlflow_run_id"] if kept == "kept" else None
    assert azure.models()["reach"]["1"]["jobName"] == wanted
    assert mirroring("verify", "reach:1", "--json").json["outcome"] == "verified"
    if kept == "kept":
        # It once worked and is refused now: the version takes precedence.
        azure.set_workspace(job_name="refused")
        assert mirroring.mirror(run, "later").json["outcome"] == "mirrored"


def test_a_probe_where_versions_are_refused_fails(azure: Azure, tmp_path: Path) -> None:
    azure.fault(
        "status", match=r"PUT .*/versions/", status=400, times=0, body='{"error": {"code": "UserError"}}'
    )
    found = probed(azure, tmp_path)
    assert not found["model version"][0]
    assert [name for name, (well, _) in found.items() if not well] == ["model version"]
    assert not [name for name in azure.blobs() if "/probes/" in name]


def test_a_probe_wants_azure_ml(tmp_path: Path, azure: Azure) -> None:
    done = Mirroring(azure, tmp_path)("doctor", "--probe", "--tracking-uri", "other://place", code=64)
    assert "--probe needs a target of the type azureml" in done.err
