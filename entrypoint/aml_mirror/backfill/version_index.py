"""The existing versions, requested once per model, page by page.

Only what a receipt and a mirror need is kept of each version, as one tuple: about 1,000 bytes, so 10,000
mirrored runs take 10 MB (tests/backfill/test_backfill_many.py limits the total).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from aml_mirror.registries import keys
from aml_mirror.registries.base import Registry
from aml_mirror.registries.records import Version

_KEPT = (
    keys.STATE, keys.QUICK_KEY, keys.IDENTITY, keys.MANIFEST_SHA256, keys.INTEGRITY, keys.SAFETY,
    keys.SAFETY_SCANNER, keys.SAFETY_NOW, keys.SAFETY_NOW_SCANNER, keys.MLFLOW_RUN_ID,
    keys.CHECKPOINT, keys.STEP, keys.OUTPUT_DIR, keys.LOGS,
)  # fmt: skip
# Values that are the same for thousands of versions are stored once.
_SHARED = frozenset(
    {
        keys.STATE,
        keys.INTEGRITY,
        keys.SAFETY,
        keys.SAFETY_SCANNER,
        keys.SAFETY_NOW,
        keys.SAFETY_NOW_SCANNER,
        keys.CHECKPOINT,
        keys.STEP,
    }
)
# How many models' versions are held. A template may name a different model for each run.
MODELS = 16

_Row = tuple[str | None, ...]


class VersionIndex:
    """The versions of a workspace's models, by run id.

    Args:
        registry: where they are listed.
        models: how many models' versions are held at the same time.
    """

    def __init__(self, registry: Registry, models: int = MODELS) -> None:
        self._registry = registry
        self._kept = models
        self._models: OrderedDict[tuple[str, str], dict[str, tuple[_Row, ...]]] = OrderedDict()

    def of(self, experiment: str, model: str, names: Iterable[str]) -> dict[str, list[Version]]:
        """Return the versions of a model under each of these run ids. Ids without a version are left out.

        Raises:
            MirrorError: the workspace does not answer.
        """
        by_run = self._held(experiment, model)
        return {
            name: [self._version(model, name, row) for row in rows]
            for name in names
            if (rows := by_run.get(name))
        }

    def runs_with(self, experiment: str, model: str, digest: str) -> list[str]:
        """Return the ids of the runs that have a complete version with this manifest digest, sorted."""
        place, state = 1 + _KEPT.index(keys.MANIFEST_SHA256), 1 + _KEPT.index(keys.STATE)
        return sorted(
            run_id
            for run_id, rows in self._held(experiment, model).items()
            if any(row[place] == digest and row[state] == keys.COMPLETE for row in rows)
        )

    def _held(self, experiment: str, model: str) -> dict[str, tuple[_Row, ...]]:
        key = (experiment, model)
        if key not in self._models:
            while len(self._models) >= self._kept:
                self._models.popitem(last=False)
            self._models[key] = self._ask(experiment, model)
        self._models.move_to_end(key)
        return self._models[key]

    def _ask(self, experiment: str, model: str) -> dict[str, tuple[_Row, ...]]:
        by_run: dict[str, tuple[_Row, ...]] = {}
        shared: dict[str, str] = {}

        def take(version: Version) -> None:
            tags = version.tags
            values = (
                shared.setdefault(value, value) if value is not None and key in _SHARED else value
                for key in _KEPT
                for value in (tags.get(key),)
            )
            row = (version.number, *values)
            run_id = tags[keys.RUN_ID]
            # A page that was requested again contains the same versions.
            others = tuple(other for other in by_run.get(run_id, ()) if other[0] != version.number)
            by_run[run_id] = (*others, row)

        self._registry.each_version(experiment, model, take)
        return by_run

    def _version(self, model: str, run_id: str, row: _Row) -> Version:
        number, *values = row
        tags = {key: value for key, value in zip(_KEPT, values, strict=True) if value is not None}
        return Version(model, number or "", {**tags, keys.RUN_ID: run_id})
