"""What is missing, and how to mend it: one line a check, in the order in which a mirror needs them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from aml_mirror.core.errors import ConfigurationError, MirrorError, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline import plan
from aml_mirror.registries.registry import means_azure_ml, open_registry
from aml_mirror.sources.registry import open_source

PROBE_RUN_ID = "aml-mirror-doctor"
# Checks that say nothing of the workspace.
_OF_THE_RUN = ("model name", "run", "scratch space")


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what it looked at, what it found, and the failure where there was one."""

    name: str
    found: str
    failure: MirrorError | None = None

    def as_dict(self) -> dict[str, object]:
        """The check as ``doctor --json`` prints it."""
        hint = self.failure.hint if self.failure else None
        return {"check": self.name, "ok": self.failure is None, "found": self.found, "hint": hint}


def examine(settings: Settings) -> Iterator[Check]:
    """Yield the checks one by one; a failed one does not stop the others.

    Nothing is written but, for Azure ML, a probe blob that is deleted at once; with ``--probe`` more, and
    only then.

    Raises:
        UsageError: ``--probe``, and the target is not Azure ML.
    """
    if settings.probe and not means_azure_ml(settings):
        raise UsageError(
            "--probe is about an Azure ML workspace, and the target is none",
            "leave it out; or pass --subscription-id, --resource-group and --workspace-name",
        )
    # The first failure tells: a doctor does not wait.
    settings = replace(settings, retry_seconds=0.0, wait_seconds=0.0)
    checks: list[tuple[str, Callable[[Settings], str]]] = [
        ("model name", _model_name),
        ("run", _run),
        ("scratch space", _scratch),
    ]
    if means_azure_ml(settings):
        # Late: importing the clients of Azure takes two seconds.
        from aml_mirror.registries.azureml.workspace_checks import CHECKS

        checks += CHECKS
    else:
        checks.append(("workspace", _registry))
    failed = False
    for name, check in checks:
        done = _checked(name, check, settings)
        failed = failed or (done.failure is not None and name not in _OF_THE_RUN)
        yield done
    if settings.probe and not failed:
        from aml_mirror.registries.azureml.workspace_checks import probe

        for found in probe(settings):
            yield Check(*found)


def _checked(name: str, check: Callable[[Settings], str], settings: Settings) -> Check:
    try:
        return Check(name, check(settings))
    except MirrorError as error:
        return Check(name, error.message, error)


def _model_name(settings: Settings) -> str:
    name = settings.require_model_name()
    plan.check_names(name, settings.experiment or name)
    return f"{name}{settings.from_where('model_name')}, experiment {settings.experiment or name}"


def _run(settings: Settings) -> str:
    source = open_source(settings)
    subject = plan.find(source, settings)
    count = len(subject.run.checkpoints)
    return (
        f"{subject.run_id}{settings.from_where('run_id')}: a {subject.found.layout.name} run with "
        f"{count} checkpoint(s) in {source.uri}{settings.from_where('source')}"
    )


def _scratch(settings: Settings) -> str:
    try:
        with tempfile.TemporaryDirectory(prefix="aml-mirror-") as folder:
            return f"{os.path.dirname(folder)} can be written"
    except OSError as error:
        raise ConfigurationError(
            f"no temporary folder can be written: {error}", "set TMPDIR to a folder that can be written"
        ) from error


def _registry(settings: Settings) -> str:
    registry = open_registry(settings, lambda text: None)
    model = settings.model_name or PROBE_RUN_ID
    versions = registry.versions(settings.experiment or model, model, settings.run_id or PROBE_RUN_ID)
    known = f", {len(versions)} version(s) of this run" if settings.model_name and settings.run_id else ""
    return f"{registry.description}{settings.from_where('tracking_uri')} answers{known}"
