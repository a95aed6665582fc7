"""Attaches an evaluation to a version: ``aml-mirror evaluate``.

Nothing is attached to a version whose manifest is not the one from its registration. The bytes are not read
again: promotion does that.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aml_mirror.core.errors import DataError, UsageError
from aml_mirror.core.manifest import Manifest
from aml_mirror.core.settings import Settings
from aml_mirror.evidence.attached import (
    Attached,
    file_of,
    named_in,
    open_statement,
    require_bytes,
    tag_of,
    tag_value,
)
from aml_mirror.evidence.evaluation import MAX_METRICS, Evaluation
from aml_mirror.evidence.result_file import ResultFile, documents, evaluation_in, read_result
from aml_mirror.evidence.result_statement import Evidence, evidence_in, is_statement, statement
from aml_mirror.pipeline.provenance import signing
from aml_mirror.registries import keys
from aml_mirror.registries.pinned_manifest import pinned_manifest
from aml_mirror.registries.records import Point, Version
from aml_mirror.support.progress import Console
from aml_mirror.verify.verify import open_version

SCHEMA = "aml-mirror/attached/v1"
PREFIX = "eval/"


@dataclass(slots=True)
class Result:
    """The result of attaching an evaluation."""

    outcome: str
    """``attached``, or ``already-attached``."""
    version: Version
    uri: str
    evidence: Evidence
    signed_by: str
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The object that ``evaluate --json`` prints."""
        evidence = self.evidence
        return {
            "schema": SCHEMA,
            "outcome": self.outcome,
            "exit_code": 0,
            "model_name": self.version.model,
            "model_version": self.version.number,
            "model_uri": self.uri,
            "manifest_sha256": evidence.manifest_sha256,
            "evaluation": evidence.id,
            "format": evidence.format,
            "episodes": evidence.episodes,
            "successes": evidence.successes,
            "tasks": [
                {"task": one.task, "episodes": one.episodes, "successes": one.successes}
                for one in evidence.trials
            ],
            "metrics": dict(sorted(evidence.metrics.items())),
            "evaluated_at": evidence.evaluated_at.isoformat(),
            "signed_by": self.signed_by or None,
            "warnings": self.warnings,
        }

    def text(self) -> str:
        """Return the result as text."""
        evidence, version = self.evidence, self.version
        trials = (
            f"{evidence.successes} of {evidence.episodes} episodes succeeded"
            if evidence.episodes
            else "no episodes with a known outcome"
        )
        first = "already attached to" if self.outcome == "already-attached" else "attached to"
        lines = [
            f"{first} {version.model} version {version.number}: {trials}",
            f"  evaluation  {evidence.id}",
            f"  format      {evidence.format}",
        ]
        named = [one for one in evidence.trials if one.task]
        lines += [f"  task        {one.task}: {one.successes} of {one.episodes}" for one in named[:20]]
        lines += [f"  metric      {name}: {value:g}" for name, value in sorted(evidence.metrics.items())[:20]]
        lines.append(f"  evaluated   {evidence.evaluated_at.isoformat(timespec='seconds')}, at the latest")
        lines.append(f"  signed      {'by the key ' + self.signed_by if self.signed_by else 'no'}")
        return "\n".join(lines)


def evaluate(settings: Settings, console: Console) -> Result:
    """Attach the result that the settings name to the version that they name.

    Raises:
        UsageError: one of them is missing.
        SourceNotFound: there is no such file or version.
        DataError: the result cannot be read, belongs to other bytes, or the version cannot be trusted.
    """
    if not settings.result:
        raise UsageError("no result is named", "pass --result FILE, or --result - for standard input")
    key = signing.private_key(settings.sign_key) if settings.sign_key else None
    result = read_result(settings.result)
    made = _as_statement(result)
    evaluation = None if made else evaluation_in(result, settings.evaluated_task)
    registry, version = open_version(settings, console)
    reader = registry.version_reader(version)
    manifest = pinned_manifest(version, reader)
    if made is not None:
        if key is not None and made.is_signed:
            raise UsageError(f"{result.name} (--result) is already a signed statement", "omit --sign-key")
        require_bytes(made.evidence, version, result.name)
        signed_by = key is not None or made.is_signed
        text = (
            result.data.decode() if made.is_signed or key is None else signing.sign(result.data.decode(), key)
        )
        evidence = made.evidence
    else:
        assert evaluation is not None  # noqa: S101 - for the type checker
        _require_fitting(evaluation, version, result.name)
        text = _statement(evaluation, manifest, result, version)
        evidence = evidence_in(json.loads(text), result.name)
        if key is not None:
            text = signing.sign(text, key)
        signed_by = key is not None
    done = Result(
        "attached", version, registry.uri(version), evidence, signing.key_id(key.public_key()) if key else ""
    )
    if _is_there(version, evidence, signed_by):
        done.outcome = "already-attached"
        return done
    digest = hashlib.sha256(text.encode()).hexdigest()
    done.warnings = registry.attach(
        version,
        file_of(evidence.id, digest),
        text,
        _points(evidence, version),
        {tag_of(evidence.id): tag_value(digest, evidence, signed_by)},
    )
    for warning in done.warnings:
        console.warn(warning)
    return done


def _as_statement(result: ResultFile) -> Attached | None:
    """If a result is already a statement, return its contents; else None."""
    try:
        (document,) = documents(result.data.decode())
    except ValueError:
        return None
    envelope = isinstance(document, dict) and {"payload", "signatures"} <= document.keys()
    if not envelope and not is_statement(document):
        return None
    return open_statement(result.data, [], result.name)


def _require_fitting(evaluation: Evaluation, version: Version, name: str) -> None:
    wanted = version.tags.get(keys.MANIFEST_SHA256, "")
    if evaluation.manifest_sha256 not in ("", wanted):
        raise DataError(
            f"{name} (--result) belongs to other bytes: it names the manifest "
            f"{evaluation.manifest_sha256[:16]}…, but version {version.number} of {version.model} has "
            f"{wanted[:16]}…",
            "evaluate this version, and attach that result",
        )
    if not evaluation.episodes and not evaluation.metrics:
        raise DataError(f"{name} (--result) has neither trials nor a finite metric", "check the file")
    if len(evaluation.metrics) > MAX_METRICS:
        raise DataError(f"{name} (--result) has more than {MAX_METRICS} metrics", "omit some")


def _statement(evaluation: Evaluation, manifest: Manifest, result: ResultFile, version: Version) -> str:
    return statement(
        evaluation,
        manifest,
        result.name,
        hashlib.sha256(result.data).hexdigest(),
        evaluation.evaluated_at or result.written_at,
        datetime.now(UTC),
    )


def _is_there(version: Version, evidence: Evidence, is_signed: bool) -> bool:
    """Tell whether the version has this evaluation, and a signature would add nothing."""
    there = {short for short, _ in named_in(version.tags)}
    tag = tag_of(evidence.id)
    return tag.rpartition(".")[2] in there and (not is_signed or version.tags[tag].endswith(", signed"))


def _points(evidence: Evidence, version: Version) -> list[Point]:
    """The metrics for the run: success rate and means, at the step of the checkpoint."""
    text = version.tags.get(keys.STEP, "")
    step = int(text) if text.isdecimal() else 0
    values = {f"{PREFIX}{name}": value for name, value in evidence.metrics.items()}
    if evidence.episodes:
        values[f"{PREFIX}success_rate"] = evidence.successes / evidence.episodes
        values[f"{PREFIX}episodes"] = float(evidence.episodes)
    when = int(evidence.evaluated_at.timestamp() * 1000) or int(time.time() * 1000)
    return [(_metric_name(name), value, when, step) for name, value in sorted(values.items())]


def _metric_name(name: str) -> str:
    """Return a name that every MLflow server accepts (mlflow/utils/validation.py)."""
    return "".join(char if char.isascii() and (char.isalnum() or char in "_-./ ") else "_" for char in name)[
        :250
    ]
