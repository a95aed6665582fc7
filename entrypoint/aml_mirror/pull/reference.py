"""The ways in which a person selects a version: by number, by stage or alias, or by its run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aml_mirror.core.errors import UsageError

FORMS = "NAME:VERSION, NAME@STAGE, models:/NAME/VERSION or models:/NAME@STAGE"

_FORMS = (
    r"models:/(?P<model>[^/:@]+)/(?P<number>[^/:@]+)",
    r"models:/(?P<model>[^/:@]+)@(?P<stage>[^/:@]+)",
    # az ml model show: the field "id".
    r"azureml:/(?:/.*|subscriptions/.*)?/models/(?P<model>[^/:@]+)/versions/(?P<number>[^/:@]+)",
    r"(?:azureml:)?(?P<model>[^/:@]+):(?P<number>[^/:@]+)",
    r"(?:azureml:)?(?P<model>[^/:@]+)@(?P<stage>[^/:@]+)",
)


@dataclass(frozen=True, slots=True)
class Reference:
    """One of ``number``, ``stage`` and ``run_id`` is set."""

    model: str
    """Empty only with ``run_id``: any model with a version of the run."""
    number: str = ""
    stage: str = ""
    """On Azure ML the version's tag ``mirror.stage``, on MLflow an alias of the model."""
    run_id: str = ""

    def __str__(self) -> str:
        if self.run_id:
            return f"the run {self.run_id}" + (f" in the model {self.model}" if self.model else "")
        return f"{self.model}:{self.number}" if self.number else f"{self.model}@{self.stage}"


def parse(text: str, run_id: str = "", model: str = "") -> Reference:
    """Parse a reference.

    Args:
        text: one of ``FORMS``; empty if the run id selects the version.
        run_id: the value of ``--run-id``.
        model: the value of ``--model-name``, which narrows down a run id.

    Raises:
        UsageError: it names no version, or both it and the run id are given.
    """
    if text and run_id:
        raise UsageError(f"both {text!r} and --run-id name a version", "pass one of them")
    if run_id:
        return Reference(model, run_id=run_id)
    for form in _FORMS:
        if match := re.fullmatch(form, text):
            found = match.groupdict()
            return Reference(found["model"], found.get("number") or "", found.get("stage") or "")
    raise UsageError(
        f"{text!r} does not name a version of a model" if text else "no version is named",
        f"pass {FORMS}, or --run-id ID",
    )
