"""Which version a run became, or each run below a prefix, or what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from aml_mirror.backfill.discovery import Candidate, look_below, whole_run
from aml_mirror.backfill.name_template import ModelNames, other_names
from aml_mirror.backfill.version_index import VersionIndex
from aml_mirror.core.errors import ConfigurationError, DataError, SourceNotFound, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.destination import destination
from aml_mirror.pipeline.locate import run_id as run_id_in
from aml_mirror.registries import base, keys, records
from aml_mirror.registries.registry import open_registry
from aml_mirror.sources.base import Prefix, as_prefix
from aml_mirror.sources.registry import open_source
from aml_mirror.support.progress import one_line

SCHEMA = "aml-mirror/status/v1"


def statuses(settings: Settings, notice: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield the status of the run that the settings name, or of each run below their source.

    Where they name no run, the source is looked into: with one run in it, or none, it is a run's folder.

    Raises:
        UsageError, ConfigurationError: as :func:`status`.
        MirrorError: the source cannot be listed.
    """
    model = settings.require_model_name()
    place = settings.source or settings.output_base
    if settings.run_id or not place:
        yield status(settings, notice)
        return
    prefix = as_prefix(open_source(replace(settings, source=place, output_base=""), notice))
    if prefix is None:
        yield status(replace(settings, source=place), notice)
        return
    runs = _runs(prefix, settings.framework)
    try:
        first = [] if whole_run(prefix, settings.framework) else list(islice(runs, 2))
    except SourceNotFound:
        first = []
    if len(first) < 2:
        found = status(replace(settings, source=place), notice)
        if first and not found["versions"] + found["incomplete"]:
            found = next(iter(_each(settings, prefix, model, iter(first), notice)))
        yield found
        return
    yield from _each(settings, prefix, model, chain(first, runs), notice)


def _runs(prefix: Prefix, framework: str) -> Iterator[Candidate]:
    found = look_below(prefix, framework, lambda path, newest: "")
    return (candidate for candidate in found if candidate.found or candidate.failure)


def _each(
    settings: Settings,
    prefix: Prefix,
    template: str,
    runs: Iterator[Candidate],
    notice: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    names = ModelNames(template, prefix.name)
    registry = open_registry(settings, notice)
    known = VersionIndex(registry)
    for candidate in runs:
        path, run = candidate.path, candidate.found
        if run is None:
            missing = candidate.failure.message if candidate.failure else None
            yield _document(path, template, registry.description, [], [], missing)
            continue
        model = names.of(path, run.layout.name)
        experiment = destination(replace(settings, model_name=model)).experiment
        ids = [path, *other_names(path, prefix.uri)]
        # By its own id first; under another one, only what was mirrored from this very folder is meant.
        # An earlier release named a folder around it.
        parts = path.split("/")
        where = {"/".join([prefix.uri, *parts[:count]]) for count in range(1, len(parts) + 1)}
        versions = [
            version
            for run_id, found in known.of(experiment, model, ids).items()
            for version in found
            if run_id == path or version.tags.get(keys.OUTPUT_DIR) in where
        ]
        complete = [_version(registry, item) for item in versions if item.complete]
        begun = [_version(registry, item) for item in versions if not item.complete]
        missing = None if complete else f"{path} has no complete version in {model}"
        yield _document(path, model, registry.description, complete, begun, missing)


def status(settings: Settings, notice: Callable[[str], None]) -> dict[str, Any]:
    """Ask the workspace about one run; the run itself is not read.

    Returns:
        ``versions`` (complete ones), ``incomplete`` (versions and MLflow runs that were begun) and
        ``missing`` (one sentence, or None).

    Raises:
        UsageError: neither a run id nor a folder to name it after; or no model name, or one that a mirror
            refuses.
        ConfigurationError: no workspace.
    """
    model = settings.require_model_name()
    if ModelNames(model, "").is_template:
        raise UsageError(
            f"the model {model!r} depends on the run", "pass its whole name with --model-name, or a PREFIX"
        )
    target = destination(settings)
    run_id = _run_id(settings, notice)
    registry = open_registry(settings, notice)
    versions = registry.versions(target.experiment, model, run_id)
    complete = [_version(registry, item) for item in versions if item.complete]
    begun = [_version(registry, item) for item in versions if not item.complete]
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
            f"a mirror of {run_id} was begun and not completed; run it again: it goes on from there"
            if begun
            else f"{run_id} was never mirrored into {model}"
        )
    return _document(run_id, model, registry.description, complete, begun, missing)


def _run_id(settings: Settings, notice: Callable[[str], None]) -> str:
    """The id under which a mirror with these settings finds the run."""
    try:
        source = open_source(settings, notice)
    except (ConfigurationError, DataError, SourceNotFound, UsageError):
        if settings.run_id:  # what was mirrored may be gone since
            return settings.run_id
        raise
    return run_id_in(source, settings)


def _document(
    run_id: str,
    model: str,
    registry: str,
    complete: list[dict[str, Any]],
    begun: list[dict[str, Any]],
    missing: str | None,
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "run_id": run_id,
        "model_name": model,
        "workspace": registry,
        "versions": complete,
        "incomplete": begun,
        "missing": missing,
    }


def _version(registry: base.Registry, version: records.Version) -> dict[str, Any]:
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
    """The step as a receipt has it: a number, or None where it is unknown."""
    step = tags.get(keys.STEP, "")
    return int(step) if step.isascii() and step.isdigit() else None


def text(found: dict[str, Any]) -> str:
    """The same as text."""
    lines = [f"{found['run_id']} in {found['workspace']}"]
    for item in found["versions"]:
        archived = ", archived" if item["archived"] else ""
        step = "unknown" if item["step"] is None else item["step"]
        lines.append(f"  {item['uri']}  {item['checkpoint']} (step {step}), complete{archived}")
        if item["logs"] == "unknown":
            lines.append("    whether its logs grew since cannot be told: it has no record of them")
    for item in found["incomplete"]:
        what = item["uri"] or f"MLflow run {item['mlflow_run_id']} ({item['status']})"
        step = "unknown" if item["step"] is None else item["step"]
        lines.append(f"  {what}  {item['checkpoint']} (step {step}), not complete")
    if found["missing"]:
        lines.append(f"  {found['missing']}")
    return "\n".join(map(one_line, lines))
