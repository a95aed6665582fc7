"""Reports what is missing and how to fix it: one line per check, in the order in which a mirror needs it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from aml_mirror.core.errors import ConfigurationError, MirrorError, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.locate import locate
from aml_mirror.registries.names import check_names
from aml_mirror.registries.registry import named_type, registry_types, required_type
from aml_mirror.sources.registry import open_source


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, its finding, and the failure if there was one."""

    name: str
    found: str
    failure: MirrorError | None = None

    def as_dict(self) -> dict[str, object]:
        """The check as ``doctor --json`` prints it."""
        hint = self.failure.hint if self.failure else None
        return {"check": self.name, "ok": self.failure is None, "found": self.found, "hint": hint}


def examine(settings: Settings) -> Iterator[Check]:
    """Yield the checks one by one. A failed one does not stop the others.

    Nothing is written except what the registry's own checks write and remove again; with ``--probe`` more.

    Raises:
        UsageError: ``--probe`` is given, but the registry has nothing to try.
    """
    named = None
    with suppress(MirrorError):  # a check reports it below
        named = named_type(settings)
    if settings.probe and not (named and named.has_probe):
        able = ", ".join(item.name for item in registry_types() if item.has_probe)
        raise UsageError(
            f"--probe needs a target of the type {able}",
            "omit it, or pass --subscription-id, --resource-group and --workspace-name",
        )
    # One attempt is enough for a check.
    settings = replace(settings, retry_seconds=0.0, wait_seconds=0.0)
    yield _checked("model name", _model_name, settings)
    yield _checked("run", _run, settings)
    yield _checked("scratch space", _scratch, settings)
    if named is None:
        yield _checked("workspace", lambda settings: required_type(settings).name, settings)
        return
    causes: set[str] = set()
    for name, check in named.checks(settings):
        done = _checked(name, check, settings)
        if done.failure is not None:
            if done.found in causes:
                continue  # One cause is one FAIL, no matter how many checks run into it.
            causes.add(done.found)
        yield done
    if settings.probe and not causes:
        for found in named.probe(settings):
            yield Check(*found)


def _checked(name: str, check: Callable[[Settings], str], settings: Settings) -> Check:
    try:
        return Check(name, check(settings))
    except MirrorError as error:
        return Check(name, error.message, error)


def _model_name(settings: Settings) -> str:
    name = settings.require_model_name()
    named = None
    with suppress(MirrorError):  # reported by the check of the registry
        named = named_type(settings)
    (named.check_names if named else check_names)(name, settings.experiment or name)
    return f"{name}{settings.from_where('model_name')}, experiment {settings.experiment or name}"


def _run(settings: Settings) -> str:
    source = open_source(settings)
    located = locate(source, settings)
    count = len(located.run.checkpoints)
    return (
        f"{located.run_id}{settings.from_where('run_id')}: a {located.detected.layout.name} run with "
        f"{count} checkpoint(s) in {source.uri}{settings.from_where('source')}"
    )


def _scratch(settings: Settings) -> str:
    try:
        with tempfile.TemporaryDirectory(prefix="aml-mirror-") as folder:
            return f"{os.path.dirname(folder)} is writable"
    except OSError as error:
        raise ConfigurationError(
            f"no temporary folder is writable: {error}", "set TMPDIR to a writable folder"
        ) from error
