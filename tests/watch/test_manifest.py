"""The Kubernetes manifest of the watcher: Kubernetes' own schemas, and its arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from aml_mirror.cli.arguments import parser
from aml_mirror.core.settings import resolve

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "workflows" / "kubernetes" / "watch-cronjob.yaml"
# The oldest version with batch/v1's CronJob as used here, and the newest in the package.
VERSIONS = ("1.25", "1.30", kubernetes_validate.latest_version())


def documents() -> list[dict[str, Any]]:
    """The resources of the manifest."""
    return list(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))


def pod() -> dict[str, Any]:
    """The template of its pods."""
    template: dict[str, Any] = documents()[1]["spec"]["jobTemplate"]["spec"]["template"]
    return template


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_it(version: str) -> None:
    assert [document["kind"] for document in documents()] == ["ServiceAccount", "CronJob"]
    for document in documents():
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_refuse_what_is_wrong() -> None:
    document = documents()[1]
    document["spec"]["concurrencyPolicies"] = "Forbid"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


def test_the_program_takes_its_arguments() -> None:
    (container,) = pod()["spec"]["containers"]
    settings = resolve(parser().parse_args(container["args"]), {}, Path("/nowhere"))
    assert settings.once and settings.labels == {"mirror": "on"} and settings.model_name == "{workflow}"
    (token,) = [mount for mount in container["volumeMounts"] if mount["name"] == "osmo-token"]
    assert settings.osmo_token_file == token["mountPath"] + "/token" and token["readOnly"]
    # No secret is in the variables, which `kubectl describe` shows.
    assert {entry["name"] for entry in container["env"]} == {
        "AZURE_SUBSCRIPTION_ID",
        "AZURE_RESOURCE_GROUP",
        "AZUREML_WORKSPACE_NAME",
    }


def test_the_pod_gets_its_identity_and_nothing_else() -> None:
    template = pod()
    account, job = documents()
    assert template["spec"]["serviceAccountName"] == account["metadata"]["name"]
    assert template["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert "azure.workload.identity/client-id" in account["metadata"]["annotations"]
    (container,) = template["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    dockerfile = (ROOT / "image" / "Dockerfile").read_text(encoding="utf-8")
    user = template["spec"]["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in dockerfile and "HOME=/tmp" in dockerfile
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
