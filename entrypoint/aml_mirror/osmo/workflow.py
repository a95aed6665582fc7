"""Parses OSMO's description of a run: the statuses of the run and its tasks, and its declared outputs.

The text was printed by another program, in one of several versions. So every structure is checked, and
missing fields are allowed. Field names: ``WorkflowQueryResponse`` and ``saved_spec`` of NVIDIA/OSMO.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aml_mirror.core.errors import DataError
from aml_mirror.osmo.workflow_list import labels_of

# WorkflowStatus and TaskGroupStatus (src/utils/job). A RESCHEDULED task will be replaced by a copy. An
# unknown status of a newer OSMO counts as running, so nothing is mirrored by mistake.
COMPLETED = "COMPLETED"
FAILED = "FAILED"  # and FAILED_CANCELED, FAILED_EVICTED, …
# A spec has a depth of 8: workflow, groups, tasks, files.
MAX_DEPTH = 64
_TOKEN = re.compile(r"\{\{ *([^{}]*?) *\}\}")


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a run. ``host``: of its pod. ``exit_code``: of its command; above 255, it is OSMO's own."""

    name: str
    status: str
    host: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Workflow:
    """A run. ``outputs`` is OSMO's location of its default outputs; ``labels`` exist since 6.4."""

    name: str
    status: str
    tasks: tuple[Task, ...] = ()
    outputs: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def task(self, name: str) -> Task | None:
        """Return the task with this name. OSMO ignores case in names, and treats ``-`` like ``_``."""
        return next((task for task in self.tasks if _same(task.name, name)), None)


@dataclass(frozen=True, slots=True)
class Output:
    """An output that a task declared; ``kind`` is ``output`` or ``checkpoint``."""

    task: str
    url: str
    kind: str = "output"


@dataclass(slots=True)
class Declared:
    """All declared outputs of a run. ``others`` are kinds without a URL: datasets of OSMO 6.2 and 6.3."""

    outputs: list[Output] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def has_failed(status: str) -> bool:
    """Return whether a run or task ended without success."""
    return status.startswith(FAILED)


def has_ended(status: str) -> bool:
    """Tell whether a run or task has ended for good."""
    return status == COMPLETED or has_failed(status)


def read_query(text: str, run_id: str) -> Workflow:
    """Parse the output of ``osmo workflow query -t json``.

    Raises:
        DataError: it has another form.
    """
    # The client may print a notice about a newer version before the answer.
    start = re.search(r"^\{", text, re.M)
    try:
        found = json.loads(text[start.start() :] if start else text)
    except (ValueError, RecursionError):
        found = None
    name, status = _text(found, "name"), _text(found, "status")
    if not name or not status:
        raise DataError(
            f"the output of `osmo workflow query {run_id} -t json` has no name and status",
            "run that command by hand, or pass the folder that the training wrote to with --source",
        )
    tasks = tuple(
        Task(_text(task, "name"), _text(task, "status"), _text(task, "task_uuid"), _number(task, "exit_code"))
        for group in _list(found, "groups")
        for task in _list(group, "tasks")
        if _text(task, "name")
    )
    return Workflow(name, status, tasks, _text(found, "outputs"), labels_of(found.get("labels")))


def read_spec(text: str, workflow: Workflow, task: str = "") -> Declared:
    """Parse the output of ``osmo workflow spec``. ``{{workflow_id}}`` becomes the run's name.

    Args:
        task: only the outputs of this task; empty: of all.

    Raises:
        DataError: it is not a workflow.
    """
    found = _yaml(text)
    spec = found.get("workflow") if isinstance(found, dict) else None
    if not isinstance(spec, dict):
        raise DataError(
            f"the output of `osmo workflow spec {workflow.name}` is not a workflow",
            "run that command by hand, or pass the folder that the training wrote to with --source",
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
    """Return the document with every scalar as text; None if it is not one, or is nested too deeply."""
    # Imported late: scripts/replay.py uses this module without installed packages.
    import yaml

    # Uses the C loader if it exists: a spec may contain files of some MB. That loader crashes the whole
    # process on a document that is nested very deeply. The events before it are not created recursively.
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
