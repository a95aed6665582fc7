"""The plan: what a mirror of one checkpoint will write. A plan is immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aml_mirror.core.manifest import Manifest, ManifestEntry, identity
from aml_mirror.core.run import Checkpoint
from aml_mirror.metrics.series import Metrics
from aml_mirror.pipeline.locate import LocatedRun
from aml_mirror.safety.verdict import Safety

SCHEMA = "aml-mirror/plan/v1"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that was decided about one checkpoint of one run."""

    located: LocatedRun
    checkpoint: Checkpoint
    manifest: Manifest
    metrics: Metrics
    params: Mapping[str, str]
    best: Checkpoint | None
    """The run's best checkpoint, if it has one and that is complete."""
    model_name: str
    """Empty: no model is named yet."""
    warnings: tuple[str, ...]
    safety: Safety
    """Whether loading the checkpoint can run code that its maker chose."""
    quick_key: str
    """See :func:`aml_mirror.sources.hashing.quick_key`."""
    beyond_limits: tuple[dict[str, str], ...] = ()
    """What exceeds the registry's limits: ``param`` or ``metric``, and ``reason``."""

    @property
    def identity(self) -> str:
        """See :func:`aml_mirror.core.manifest.identity`."""
        return identity(self.located.run_id, self.checkpoint.path, self.manifest.sha256)

    @property
    def files_left_out(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of omitted files: of the checkpoint, links that are not followed, and leftovers."""
        tree = self.located.tree
        return tuple(sorted({*self.checkpoint.left_out, *tree.refused.items(), *tree.leftovers.items()}))

    @property
    def left_out(self) -> tuple[dict[str, str], ...]:
        """Files, parameters and metrics that are not mirrored, each with its reason."""
        files = ({"path": path, "reason": reason} for path, reason in self.files_left_out)
        return (*files, *self.beyond_limits)

    @property
    def absent(self) -> list[str]:
        """Which of metrics, parameters and best checkpoint the run does not have. No warning repeats it."""
        there = {
            "metrics": self.metrics.series or self.metrics.note in self.warnings,
            "parameters": self.params,
            "best checkpoint": self.located.run.best,
        }
        return [name for name, value in there.items() if not value]

    @property
    def event_files(self) -> list[str]:
        """Paths of the TensorBoard files of the run."""
        return [path for path in self.located.tree.files if ".tfevents." in path.rpartition("/")[2]]

    def as_dict(self) -> dict[str, object]:
        """The object that ``plan --json`` prints."""
        best = self.best
        return {
            "schema": SCHEMA,
            "run_id": self.located.run_id,
            "source": self.located.source.uri,
            "framework": self.located.detected.layout.name,
            "run_root": self.located.detected.root or ".",
            "checkpoint": {
                "path": self.checkpoint.path,
                "step": self.checkpoint.step,
                "role": self.checkpoint.role,
                "complete": True,
            },
            "base_model": self.checkpoint.base_model or None,
            "best": {"path": best.path, "step": best.step} if best else None,
            "files": [{"path": item.source, "bytes": item.bytes} for item in self._by_source()],
            "left_out_files": [{"path": path, "reason": reason} for path, reason in self.files_left_out],
            "beyond_limits": list(self.beyond_limits),
            "metrics": {
                "series": len(self.metrics.series),
                "points": self.metrics.points,
                "points_read": self.metrics.points_read,
                "tags": list(self.metrics.tags),
                "skipped_records": self.metrics.skipped_records,
                "sources": self.metrics.sources,
            },
            "metrics_note": self.metrics.note or None,
            "params": dict(self.params),
            "identity": self.identity,
            "manifest_sha256": self.manifest.sha256,
            "integrity": self.manifest.integrity,
            "safety": self.safety.as_dict(),
            "model_name": self.model_name or None,
            "warnings": list(self.warnings),
        }

    def _by_source(self) -> list[ManifestEntry]:
        return sorted(self.manifest.items, key=lambda item: item.source)
