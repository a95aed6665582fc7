"""Reads OSMO's list of workflows, page by page: name, status, times, pool, submitter and labels of each.

Both ways of asking return the same entries (``ListEntry`` in NVIDIA/OSMO,
``src/service/core/workflow/objects.py``, 6.2 to 6.4): the program's ``workflow list -t json``, and ``GET
/api/workflow``. The newest submission comes first. ``labels`` is new in 6.4. Times have no zone and are UTC.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Protocol

from aml_mirror.core.errors import DataError

# One watcher should not read a list with more entries than this.
MAX_WORKFLOWS = 200_000


@dataclass(frozen=True, slots=True)
class ListedWorkflow:
    """One entry. Times are in seconds since the epoch; 0: unknown."""

    name: str
    """Its id: the name with a number."""
    uuid: str
    status: str
    submitted: float = 0.0
    ended: float = 0.0
    user: str = ""
    pool: str = ""
    labels: Mapping[str, str] | None = None
    """None: this version of OSMO has no labels."""


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A query. Empty tuples mean every pool and every user."""

    submitted_since: date | None = None
    pools: tuple[str, ...] = ()
    users: tuple[str, ...] = ()


class WorkflowLister(Protocol):
    """A connection that can return OSMO's list."""

    page_size: int
    """The number of entries per page; OSMO returns 1,000 in one request."""

    def list_page(self, query: ListQuery, offset: int, count: int) -> str:
        """Return a page as JSON: ``{"workflows": […]}``."""


def each_workflow(lister: WorkflowLister, query: ListQuery) -> Iterator[ListedWorkflow]:
    """Yield the workflows that match a query, each once.

    A workflow that is submitted meanwhile moves others to the next page, where they are seen again. One that
    is removed hides another one, which the next pass sees.

    Raises:
        MirrorError: OSMO does not answer.
        DataError: the answer is not a list, or it has no end.
    """
    seen: set[str] = set()
    offset = 0
    while True:
        page = read_page(lister.list_page(query, offset, lister.page_size))
        for workflow in page:
            if workflow.name not in seen:
                seen.add(workflow.name)
                yield workflow
        offset += len(page)
        if len(page) < lister.page_size:
            return
        if offset >= MAX_WORKFLOWS:
            raise DataError(
                f"OSMO lists more than {MAX_WORKFLOWS:,} workflows", "narrow the list with --since or --pool"
            )


def read_page(text: str) -> list[ListedWorkflow]:
    """Parse one page.

    Raises:
        DataError: it has another form.
    """
    # The client may print a notice about a newer version before the answer.
    start = re.search(r"^\{", text, re.M)
    try:
        found = json.loads(text[start.start() :] if start else text)
    except (ValueError, RecursionError):
        found = None
    entries = found.get("workflows") if isinstance(found, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError("OSMO's list of workflows is not a list", "run `osmo workflow list -t json` by hand")
    return [_workflow(entry) for entry in entries if _text(entry, "name") and _text(entry, "status")]


def _workflow(entry: dict[str, Any]) -> ListedWorkflow:
    labels = entry.get("labels")
    return ListedWorkflow(
        name=_text(entry, "name"),
        uuid=_text(entry, "workflow_uuid"),
        status=_text(entry, "status"),
        submitted=_time(entry, "submit_time"),
        ended=_time(entry, "end_time"),
        user=_text(entry, "user"),
        pool=_text(entry, "pool"),
        labels=labels_of(labels) if isinstance(labels, dict) else None,
    )


def labels_of(found: Any) -> dict[str, str]:
    """Return the labels in an answer; values that are not text are left out."""
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, str)}


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def _time(entry: dict[str, Any], key: str) -> float:
    try:
        when = datetime.fromisoformat(_text(entry, key))
    except ValueError:
        return 0.0
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
