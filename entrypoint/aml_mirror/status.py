"""Which version a run became, or what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aml_mirror.settings import Settings
from aml_mirror.sources.opening import open_source
from aml_mirror.workspaces import base
from aml_mirror.workspaces.opening import open_workspace

SCHEMA = "aml-mirror/status/v1"


def status(settings: Settings, notice: Callable[[str], None]) -> dict[str, Any]:
    """Ask the workspace about one run; the run itself is not read.

    Returns:
        ``versions`` (complete ones), ``incomplete`` (versions and MLflow runs that were begun) and
        ``missing`` (one sentence, or None).

    Raises:
        UsageError: neither a run id nor a folder to name it after, or no model name.
        ConfigurationError: no workspace.
    """
    model = settings.require_model_name()
    run_id = settings.run_id or open_source(settings).name
    workspace = open_workspace(settings, notice)
    versions = workspace.versions(settings.experiment or model, model, run_id)
    complete = [_version(item) for item in versions if item.complete]
    begun = [_version(item) for item in versions if not item.complete]
    registered = {item["mlflow_run_id"] for item in complete + begun}
    for tags in workspace.unfinished(settings.experiment or model, run_id):
        if tags.get(base.MODEL_NAME) == model and tags[base.MLFLOW_RUN_ID] not in registered:
            begun.append(
                {
                    "version": None,
                    "uri": None,
                    "checkpoint": tags.get(base.CHECKPOINT),
                    "step": tags.get(base.STEP),
                    "mlflow_run_id": tags[base.MLFLOW_RUN_ID],
                    "status": tags["status"],
                    "manifest_sha256": tags.get(base.MANIFEST_SHA256),
                }
            )
    missing = None
    if not complete:
        missing = (
            f"a mirror of {run_id} was begun and not completed; run it again: it goes on from there"
            if begun
            else f"{run_id} was never mirrored into {model}"
        )
    return {
        "schema": SCHEMA,
        "run_id": run_id,
        "model_name": model,
        "workspace": workspace.description,
        "versions": complete,
        "incomplete": begun,
        "missing": missing,
    }


def _version(version: base.Version) -> dict[str, Any]:
    tags = version.tags
    return {
        "version": version.number,
        "uri": version.uri,
        "checkpoint": tags.get(base.CHECKPOINT),
        "step": tags.get(base.STEP),
        "mlflow_run_id": tags.get(base.MLFLOW_RUN_ID),
        "status": tags.get(base.STATE),
        "manifest_sha256": tags.get(base.MANIFEST_SHA256),
    }


def text(found: dict[str, Any]) -> str:
    """The same in words."""
    lines = [f"{found['run_id']} in {found['workspace']}"]
    for item in found["versions"]:
        lines.append(f"  {item['uri']}  {item['checkpoint']} (step {item['step'] or 'unknown'}), complete")
    for item in found["incomplete"]:
        what = item["uri"] or f"MLflow run {item['mlflow_run_id']} ({item['status']})"
        lines.append(f"  {what}  {item['checkpoint']} (step {item['step'] or 'unknown'}), not complete")
    if found["missing"]:
        lines.append(f"  {found['missing']}")
    return "\n".join(lines)
