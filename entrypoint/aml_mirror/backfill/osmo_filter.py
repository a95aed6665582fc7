"""Selects workflows from OSMO's list: by status, end, label, id and shard."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from aml_mirror.backfill.summary import Summary
from aml_mirror.core.errors import UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.osmo.workflow import COMPLETED, has_ended
from aml_mirror.osmo.workflow_list import ListedWorkflow, ListQuery

# A person who selects by a day may be in another time zone than OSMO.
_ZONES = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class WorkflowFilter:
    """Checks workflows one by one.

    Args:
        settings: of this call.
        since: the earliest end of a selected workflow; None: any.
    """

    settings: Settings
    since: datetime | None

    @property
    def query(self) -> ListQuery:
        """Return the query for OSMO. It only filters by the day of submission."""
        settings, first = self.settings, None
        if self.since is not None:
            margin = timedelta(seconds=min(settings.longest_run_seconds, 1e9))
            begin = datetime(1970, 1, 1, tzinfo=UTC)
            first = max(self.since - margin - _ZONES, begin).date() if self.since - begin > margin else None
        return ListQuery(first, settings.pools, settings.users)

    def selects(self, workflow: ListedWorkflow, summary: Summary) -> bool:
        """Tell whether a workflow is selected; if not, count it."""
        if not has_ended(workflow.status):
            summary.osmo_running += 1
        elif workflow.status != COMPLETED:
            summary.osmo_failed += 1
        elif self.since is not None and 0 < workflow.ended < self.since.timestamp():
            summary.ended_before += 1
        elif not self._opted_in(workflow):
            summary.not_selected += 1
        elif not self._is_ours(workflow.name):
            summary.other_shards += 1
        else:
            return True
        return False

    def require_labels(self, listed: int, with_labels: int) -> None:
        """Check that labels can be used for selecting.

        Raises:
            UsageError: none of the listed workflows has labels, because this version of OSMO has none.
        """
        if self.settings.labels and listed and not with_labels:
            raise UsageError(
                "this OSMO has no labels, which came with OSMO 6.4: --label selects nothing",
                "select by the workflows' ids: --match 'train-*'",
            )

    def _opted_in(self, workflow: ListedWorkflow) -> bool:
        settings, labels = self.settings, workflow.labels or {}
        if any(not _is_like(labels.get(key, ""), wanted) for key, wanted in settings.labels.items()):
            return False
        if any(fnmatchcase(workflow.name, pattern) for pattern in settings.exclude_runs):
            return False
        return not settings.match or any(fnmatchcase(workflow.name, pattern) for pattern in settings.match)

    def _is_ours(self, name: str) -> bool:
        if self.settings.shard is None:
            return True
        digest = hashlib.sha256(name.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.settings.shard.count == self.settings.shard.index


def _is_like(value: str, wanted: str) -> bool:
    # A missing label matches nothing, not even "*".
    return bool(value) and fnmatchcase(value, wanted)
