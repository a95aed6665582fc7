"""terraform/docs/aks.md: its commands fit together, and its checks detect a missing step.

The programs are stand-ins that record their calls. ``doctor`` is the real program with the emulated Azure.
"""

import json
import re
import subprocess
import sys

import pytest
import yaml
from mirror_world import CTRL, ROOT, STUBS
from osmo_charts import LAYOUTS, SERVICE
from real_helm import merge, rendered

from mirroring import Mirroring

PAGE = (ROOT / "terraform" / "docs" / "aks.md").read_text()
IMAGE = "acrrobots.azurecr.io/aml-mirror@sha256:" + "ab" * 32


def blocks(kind, text=PAGE):
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def step(number):
    return re.split(r"^## ", PAGE, flags=re.MULTILINE)[number]


def checked_lines(number):
    """The checks that ``doctor`` reports as ok after a step."""
    (sentence,) = re.findall(r"^Check: `doctor` prints `ok` for (.*?)\.", step(number), re.MULTILINE)
    return re.findall(r"`([^`]+)`", sentence)


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Every call of the page's commands, pasted in order into one shell."""
    folder = tmp_path_factory.mktemp("aks")
    for name in ("az", "kubectl", "make", "osmo"):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{STUBS / "recorder.py"}" {name} "$@"\n')
        program.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "".join(blocks("sh"))],
        env={"PATH": f"{folder}:/usr/bin:/bin", "RECORD": str(folder / "calls")},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def those(calls, *words):
    return [call for call in calls if [call["program"], *call["arguments"]][: len(words)] == list(words)]


def flags(call):
    """Flag -> values of a call."""
    found = {}
    arguments = call["arguments"]
    for place, word in enumerate(arguments):
        if word.startswith("--"):
            following = arguments[place + 1] if place + 1 < len(arguments) else ""
            found.setdefault(word, []).append(following)
    return found


def test_the_credential_is_that_of_the_service_account(calls):
    (account,) = [
        yaml.safe_load(call["stdin"])
        for call in those(calls, "kubectl", "apply")
        if call["stdin"].startswith("apiVersion: v1\nkind: Serv")
    ]
    (credential,) = those(calls, "az", "identity", "federated-credential", "create")
    given = flags(credential)
    metadata = account["metadata"]
    assert given["--subject"] == [f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}"]
    assert given["--issuer"] == ["https://oidc.example/issuer/"]
    assert given["--audiences"] == ["api://AzureADTokenExchange"]
    assert metadata["annotations"] == {
        "azure.workload.identity/client-id": "11111111-1111-1111-1111-111111111111"
    }


def test_each_role_is_on_its_scope_and_is_the_identitys(calls):
    roles = [flags(call) for call in those(calls, "az", "role", "assignment", "create")]
    assert {role["--role"][0]: role["--scope"][0] for role in roles} == {
        "AzureML Data Scientist": "/the/workspace",
        "Storage Blob Data Contributor": "/storage/of/the/workspace",
        "Storage Blob Data Reader": "/the/runs",
    }
    assert {role["--assignee-object-id"][0] for role in roles} == {"22222222-2222-2222-2222-222222222222"}
    removed = [flags(call)["--scope"] for call in those(calls, "az", "role", "assignment", "delete")]
    assert removed == [["/the/workspace"], ["/storage/of/the/workspace"], ["/the/runs"]]


def test_the_checking_pod_is_like_one_of_osmo(calls):
    pods = those(calls, "kubectl", "run")
    assert len(pods) == 2
    for pod in pods:
        given = flags(pod)
        assert given["--image"] == [IMAGE]
        assert given["--labels"] == ["azure.workload.identity/use=true"]
        assert json.loads(given["--overrides"][0])["spec"] == {"serviceAccountName": "osmo-workflow"}
        environment = dict(value.partition("=")[::2] for value in given["--env"])
        assert environment == {
            "AZURE_SUBSCRIPTION_ID": "sub-1",
            "AZURE_RESOURCE_GROUP": "rg-robots",
            "AZUREML_WORKSPACE_NAME": "mlw-robots",
            "AZUREML_MODEL_NAME": "doctor",
        }
        assert pod["arguments"][-3:] == ["--", "aml-mirror", "doctor"]


def test_the_nodes_may_pull_what_is_pushed(calls):
    (push,) = those(calls, "make", "push")
    assert push["arguments"] == ["push", "REGISTRY=acrrobots.azurecr.io"]
    assert ["acrrobots"] in [flags(call).get("--attach-acr") for call in those(calls, "az", "aks", "update")]
    (submitted,) = those(calls, "osmo", "workflow", "submit")
    assert f"image={IMAGE}" in submitted["arguments"]
    assert (ROOT / submitted["arguments"][2]).is_file()


def test_osmo_reads_the_label_and_the_service_account_of_the_page(tmp_path):
    (values,) = blocks("yaml")
    layout = LAYOUTS["6.3", "service 1.3"]
    assert layout.path == SERVICE
    templates = rendered(layout.write(tmp_path), merge(tmp_path / "values", {}, values))
    assert templates["default_ctrl"] == CTRL


def test_every_step_has_a_check():
    titles = re.findall(r"^## (\d+)\. ", PAGE, re.MULTILINE)
    assert titles == [str(number) for number in range(1, 8)]
    for number in range(1, 8):
        assert re.search(r"^Check[:,] ", step(number), re.MULTILINE), number


class Doctor:
    """The checks that ``doctor`` fails in a pod with a workload identity and the emulated Azure."""

    def __init__(self, azure, folder):
        self.mirroring = Mirroring(azure, folder)

    def failed(self, **environment):
        done = self.mirroring("doctor", "--json", "--model-name", "doctor", code=None, **environment)
        self.lines = [json.loads(line) for line in done.out.splitlines()]
        return [line["check"] for line in self.lines if not line["ok"] and line["check"] != "run"]


def test_doctor_is_content_when_every_step_is_done(azure, tmp_path):
    doctor = Doctor(azure, tmp_path)
    assert doctor.failed() == []
    named = {*checked_lines(5), *checked_lines(6), "run"}
    assert named <= {line["check"] for line in doctor.lines}


def test_doctor_tells_a_step_that_is_undone(azure, tmp_path):
    doctor = Doctor(azure, tmp_path)
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "AZURE_TOKEN_CREDENTIALS": ""}
    found = doctor.failed(AZURE_FEDERATED_TOKEN_FILE="", **pod)
    assert {"federated token file", "login"} <= set(found) & set(checked_lines(5))
    azure.set_role(None, account=azure.account)
    assert doctor.failed() == ["datastore"] and "datastore" in checked_lines(6)
