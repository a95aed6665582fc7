"""A run as OSMO tells of it: the statuses of a run and its tasks, and the outputs that it declared.

What is read here was printed by another program, of one of several versions: every shape is checked, and a
field that is not there is none. Field names: ``WorkflowQueryResponse`` and ``saved_spec`` of NVIDIA/OSMO.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aml_mirror.core.errors import DataError
from aml_mirror.osmo.workflow_list import labels_of

# WorkflowStatus and TaskGroupStatus (src/utils/job). RESCHEDULED is a task whose copy will run. A status that
# a newer OSMO adds counts as one of a run that goes on: nothing is mirrored from it by mistake.
COMPLETED = "COMPLETED"
FAILED = "FAILED"  # and FAILED_CANCELED, FAILED_EVICTED, …
# A spec has a depth of 8: workflow, groups, tasks, files.
MAX_DEPTH = 64
_TOKEN = re.compile(r"\{\{ *([^{}]*?) *\}\}")


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a run. ``host``: of its pod. ``exit_code``: of its command; above 255, OSMO's own."""

    name: str
    status: str
    host: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Workflow:
    """A run. ``outputs`` is where its default outputs are, as OSMO shows it; ``labels`` since 6.4."""

    name: str
    status: str
    tasks: tuple[Task, ...] = ()
    outputs: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def task(self, name: str) -> Task | None:
        """The task of that name; OSMO takes names without regard to case, and ``-`` for ``_``."""
        return next((task for task in self.tasks if _same(task.name, name)), None)


@dataclass(frozen=True, slots=True)
class Output:
    """An output that a task declared; ``kind`` is ``output`` or ``checkpoint``."""

    task: str
    url: str
    kind: str = "output"


@dataclass(slots=True)
class Declared:
    """All outputs that a run declared. ``others`` names kinds without a URL: datasets of OSMO 6.2 and 6.3."""

    outputs: list[Output] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def has_failed(status: str) -> bool:
    """Return whether a run or task ended without success."""
    return status.startswith(FAILED)


def has_ended(status: str) -> bool:
    """Return whether a run or task will not go on."""
    return status == COMPLETED or has_failed(status)


def read_query(text: str, run_id: str) -> Workflow:
    """Read what ``osmo workflow query -t json`` printed.

    Raises:
        DataError: it is no such thing.
    """
    # The client may print a notice of a newer version before the answer.
    start = re.search(r"^\{", text, re.M)
    try:
        found = json.loads(text[start.start() :] if start else text)
    except (ValueError, RecursionError):
        found = None
    name, status = _text(found, "name"), _text(found, "status")
    if not name or not status:
        raise DataError(
            f"`osmo workflow query {run_id} -t json` printed no name and status",
            "run it by hand; or pass the folder that the training wrote to with --source",
        )
    tasks = tuple(
        Task(_text(task, "name"), _text(task, "status"), _text(task, "task_uuid"), _number(task, "exit_code"))
        for group in _list(found, "groups")
        for task in _list(group, "tasks")
        if _text(task, "name")
    )
    return Workflow(name, status, tasks, _text(found, "outputs"), labels_of(found.get("labels")))


def read_spec(text: str, workflow: Workflow, task: str = "") -> Declared:
    """Read what ``osmo workflow spec`` printed; ``{{workflow_id}}`` becomes the run's name.

    Args:
        task: only the outputs of this task; empty: of all.

    Raises:
        DataError: it is no workflow.
    """
    found = _yaml(text)
    spec = found.get("workflow") if isinstance(found, dict) else None
    if not isinstance(spec, dict):
        raise DataError(
            f"`osmo workflow spec {workflow.name}` printed no workflow",
            "run it by hand; or pass the folder that the training wrote to with --source",
        )
    declared = Declared()
    for one in _tasks(spec):
        name = _text(one, "name")
        if task and not _same(name, task):
            continue
        for kind, key in (("output", "outputs"), ("checkpoint", "checkpoint")):
            for item in _list(one, key):
                if url := _text(item, "url"):
                    filled = _TOKEN.sub(
                        lambda match: workflow.name if match[1] == "workflow_id" else match[0], url
                    )
                    declared.outputs.append(Output(name, filled, kind))
                elif isinstance(item, dict):
                    declared.others.extend(str(other) for other in item)
    return declared


def _yaml(text: str) -> Any:
    """The document with every scalar as text; None where it is none, or nested deeper than any spec."""
    # Late: scripts/replay.py uses this module where nothing is installed.
    import yaml

    # Written in C, where that is there: a spec may carry files of some MB. It falls with the whole process
    # over a document that is nested deep enough; the events before it are not made by recursion.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                return None
        return yaml.load(text, Loader=loader)  # noqa: S506 - a BaseLoader makes text, lists and maps only
    except (yaml.YAMLError, ValueError):
        return None


def _tasks(spec: dict[str, Any]) -> Iterator[Any]:
    for group in _list(spec, "groups"):
        yield from _list(group, "tasks")
    yield from _list(spec, "tasks")


def _list(found: Any, key: str) -> list[Any]:
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, list) else []


def _text(found: Any, key: str) -> str:
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, str) else ""


def _number(found: Any, key: str) -> int | None:
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _same(one: str, other: str) -> bool:
    return one.lower().replace("_", "-") == other.lower().replace("_", "-")
