"""Finds the version that a run became, or what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aml_mirror.backfill.name_template import ModelNames
from aml_mirror.core.errors import ConfigurationError, DataError, SourceNotFound, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.destination import destination
from aml_mirror.pipeline.locate import run_id as run_id_in
from aml_mirror.registries import base, keys, records
from aml_mirror.registries.registry import open_registry
from aml_mirror.sources.registry import open_source

SCHEMA = "aml-mirror/status/v1"


def status(settings: Settings, notice: Callable[[str], None]) -> dict[str, Any]:
    """Ask the workspace about one run; the run itself is not read.

    Returns:
        ``versions`` (complete ones), ``incomplete`` (versions and MLflow runs that were begun) and
        ``missing`` (one sentence, or None).

    Raises:
        UsageError: there is neither a run id nor a folder; or no model name, or one that a mirror refuses.
        ConfigurationError: no workspace.
    """
    model = settings.require_model_name()
    if ModelNames(model, "").is_template:
        raise UsageError(
            f"the model {model!r} depends on the run", "pass its full name with --model-name, or a PREFIX"
        )
    target = destination(settings)
    run_id = _run_id(settings, notice)
    registry = open_registry(settings, notice)
    versions = registry.versions(target.experiment, model, run_id)
    complete = [version_document(registry, item) for item in versions if item.complete]
    begun = [version_document(registry, item) for item in versions if not item.complete]
    registered = {item["mlflow_run_id"] for item in complete + begun}
    for tags in registry.unfinished(target.experiment, run_id):
        if tags.get(keys.MODEL_NAME) == model and tags[keys.MLFLOW_RUN_ID] not in registered:
            begun.append(
                {
                    "version": None,
                    "uri": None,
                    "checkpoint": tags.get(keys.CHECKPOINT),
                    "step": _step(tags),
                    "mlflow_run_id": tags[keys.MLFLOW_RUN_ID],
                    "status": tags["status"],
                    "archived": False,
                    "manifest_sha256": tags.get(keys.MANIFEST_SHA256),
                }
            )
    missing = None
    if not complete:
        missing = (
            f"a mirror of {run_id} was started but not completed: run it again to continue"
            if begun
            else f"{run_id} was never mirrored into {model}"
        )
    return document(run_id, model, registry.description, complete, begun, missing)


def _run_id(settings: Settings, notice: Callable[[str], None]) -> str:
    """Return the id under which a mirror with these settings finds the run."""
    try:
        source = open_source(settings, notice)
    except (ConfigurationError, DataError, SourceNotFound, UsageError):
        if settings.run_id:  # The mirrored run may no longer exist.
            return settings.run_id
        raise
    return run_id_in(source, settings)


def document(
    run_id: str,
    model: str,
    registry: str,
    complete: list[dict[str, Any]],
    begun: list[dict[str, Any]],
    missing: str | None,
) -> dict[str, Any]:
    """Return one run in the form of ``status --json``."""
    return {
        "schema": SCHEMA,
        "run_id": run_id,
        "model_name": model,
        "workspace": registry,
        "versions": complete,
        "incomplete": begun,
        "missing": missing,
    }


def version_document(registry: base.Registry, version: records.Version) -> dict[str, Any]:
    """Return one version in the form of ``status --json``."""
    tags = version.tags
    return {
        "version": version.number,
        "uri": registry.uri(version),
        "checkpoint": tags.get(keys.CHECKPOINT),
        "step": _step(tags),
        "mlflow_run_id": tags.get(keys.MLFLOW_RUN_ID),
        "status": tags.get(keys.STATE),
        "archived": version.archived,
        "logs": "recorded" if tags.get(keys.LOGS) else "unknown",
        "manifest_sha256": tags.get(keys.MANIFEST_SHA256),
    }


def _step(tags: Mapping[str, str]) -> int | None:
    """Return the step as in a receipt: a number, or None if it is unknown."""
    step = tags.get(keys.STEP, "")
    return int(step) if step.isascii() and step.isdigit() else None
