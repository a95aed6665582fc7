"""An evaluation as an in-toto statement with the predicate ``test-result``, and back.

The predicate is https://in-toto.io/attestation/test-result/v0.1 (in-toto/attestation,
spec/predicates/test-result.md): ``passedTests`` and ``failedTests`` are the names of single trials, and
``result`` is ``PASSED`` if all of them succeeded. The statement does not say whether that is good enough; a
policy does. ``configuration`` names the result's file, by its SHA-256. Its ``annotations`` have the counts
and means that a policy reads.

The subjects are the evaluated objects: the manifest of a version, with the digest of its registration, and
its files. The number of a version is not among them: bytes are evaluated, not numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aml_mirror import __version__
from aml_mirror.core.errors import DataError
from aml_mirror.core.manifest import Manifest
from aml_mirror.evidence.evaluation import Evaluation, TaskTrials, finite, require_text
from aml_mirror.pipeline.provenance.statement import TYPE, digest_of

PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
# The subject for the manifest. Its digest is ``manifest_sha256``.
MANIFEST = "aml-mirror/manifest"
SCHEMA = "aml-mirror/test-result/v1"
# A statement names up to 10,000 trials and 1,500 files, with some 200 bytes each.
MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a statement says about a policy."""

    id: str
    """The evaluation's id; see :attr:`aml_mirror.evidence.evaluation.Evaluation.id`."""
    manifest_sha256: str
    """The digest of the evaluated manifest."""
    format: str
    trials: tuple[TaskTrials, ...]
    metrics: Mapping[str, float]
    evaluated_at: datetime
    """When the evaluation ended, at the latest."""
    attached_at: datetime

    @property
    def episodes(self) -> int:
        """The number of trials."""
        return sum(one.episodes for one in self.trials)

    @property
    def successes(self) -> int:
        """The number of successful trials."""
        return sum(one.successes for one in self.trials)


def statement(
    evaluation: Evaluation,
    manifest: Manifest,
    result_name: str,
    result_sha256: str,
    evaluated_at: datetime,
    attached_at: datetime,
) -> str:
    """Return the statement as JSON.

    Args:
        evaluation: the contents of the result.
        manifest: the manifest of the evaluated version.
        result_name, result_sha256: of the result's file.
        evaluated_at: when the evaluation ended, at the latest; with a time zone.
        attached_at: when the statement was made; with a time zone.
    """
    passed = [name for name, success in evaluation.outcomes if success]
    failed = [name for name, success in evaluation.outcomes if not success]
    document = {
        "_type": TYPE,
        "subject": [
            {"name": MANIFEST, "digest": {"sha256": manifest.sha256}},
            *(
                {"name": item.path, "digest": digest}
                for item in manifest.items
                if (digest := digest_of(item))
            ),
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            # Without trials, nothing passed.
            "result": "PASSED" if 0 < evaluation.episodes == evaluation.successes else "FAILED",
            "configuration": [
                {
                    "name": result_name,
                    "digest": {"sha256": result_sha256},
                    "annotations": {
                        "schema": SCHEMA,
                        "id": evaluation.id,
                        "format": evaluation.format,
                        "trials": [
                            {"task": one.task, "episodes": one.episodes, "successes": one.successes}
                            for one in evaluation.trials
                        ],
                        "metrics": dict(sorted(evaluation.metrics.items())),
                        "evaluatedAt": evaluated_at.isoformat(timespec="seconds"),
                        "attachedAt": attached_at.isoformat(timespec="seconds"),
                        "by": f"aml-mirror {__version__}",
                    },
                }
            ],
            "passedTests": passed,
            "failedTests": failed,
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def is_statement(document: object) -> bool:
    """Tell whether a JSON document is a statement of this kind."""
    return isinstance(document, Mapping) and document.get("predicateType") == PREDICATE_TYPE


def evidence_in(document: object, where: str) -> Evidence:
    """Return the contents of a statement.

    Args:
        document: the statement as JSON.
        where: its name in an error.

    Raises:
        DataError: it is not such a statement.
    """
    try:
        return _evidence(document)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"{where} is not an aml-mirror statement of an evaluation: {type(error).__name__} {error}",
            "attach the result again with: aml-mirror evaluate",
        ) from error


def _evidence(document: Any) -> Evidence:
    if document["_type"] != TYPE or document["predicateType"] != PREDICATE_TYPE:
        raise ValueError("another type")
    digests = [item["digest"]["sha256"] for item in document["subject"] if item.get("name") == MANIFEST]
    (digest,) = digests
    (source,) = document["predicate"]["configuration"]
    said = source["annotations"]
    if said["schema"] != SCHEMA or not re.fullmatch("[0-9a-f]{64}", digest + "", re.ASCII):
        raise ValueError("another schema")
    trials = tuple(
        TaskTrials(str(one["task"]), _count(one["episodes"]), _count(one["successes"]))
        for one in said["trials"]
    )
    if any(one.successes > one.episodes for one in trials) or len({one.task for one in trials}) < len(trials):
        raise ValueError("the trials cannot be right")
    metrics = {str(name): float(value) for name, value in said["metrics"].items()}
    for name in (*metrics, *(one.task for one in trials), str(said["format"])):
        require_text(name)
    if any(finite(value) is None for value in metrics.values()):
        raise ValueError("a metric is not finite")
    times = [datetime.fromisoformat(said[key]) for key in ("evaluatedAt", "attachedAt")]
    if any(time.tzinfo is None for time in times):
        raise ValueError("a time without a zone")
    if not re.fullmatch("[0-9a-f]{64}", said["id"]):
        raise ValueError("no id")
    return Evidence(said["id"], digest, str(said["format"]), trials, metrics, times[0], times[1])


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
