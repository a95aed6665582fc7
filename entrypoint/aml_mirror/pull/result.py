"""The result of a pull, as JSON and as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aml_mirror.pipeline.current_verdict import recorded_verdict
from aml_mirror.pull.loaders import Loader
from aml_mirror.pull.pulled_folder import MODEL, Record
from aml_mirror.pull.resolved import ResolvedVersion
from aml_mirror.pull.wanted import Fetched
from aml_mirror.registries import keys
from aml_mirror.support.progress import amount, one_line

SCHEMA = "aml-mirror/pull/v1"


@dataclass(slots=True)
class Pulled:
    """The result of a pull. Sizes in bytes."""

    outcome: str
    version: ResolvedVersion
    folder: Path
    loader: Loader
    record: Record
    verified: bool
    """Whether every byte was compared with a manifest; False: another program made the version."""
    signed_by: str | None = None
    fetched: Fetched = field(default_factory=Fetched)
    seconds: float = 0.0

    @property
    def load(self) -> Path:
        """How the framework loads it."""
        return self.folder / MODEL / self.loader.path if self.loader.path else self.folder / MODEL

    def as_dict(self) -> dict[str, Any]:
        """The object that ``pull --json`` prints."""
        tags = self.version.version.tags
        return {
            "schema": SCHEMA,
            "outcome": self.outcome,
            "exit_code": 0,
            "model_name": self.version.version.model,
            "model_version": self.version.version.number,
            "model_uri": self.version.uri,
            "registry": self.version.registry,
            "run_id": tags.get(keys.RUN_ID),
            "framework": tags.get(keys.FRAMEWORK),
            "manifest_sha256": self.record.manifest_sha256 or None,
            "verified": self.verified,
            "integrity": self.record.integrity or None,
            "signed_by": self.signed_by,
            "safety": recorded_verdict(self.version.version).word or None,
            "archived": self.version.version.archived,
            "folder": str(self.folder / MODEL),
            "load": str(self.load),
            "load_with": list(self.loader.lines),
            "files": len(self.record.files),
            "bytes": sum(size for size, _, _ in self.record.files.values()),
            "bytes_read": self.fetched.read,
            "bytes_reused": self.fetched.reused,
            "bytes_kept": self.fetched.kept,
            "seconds": round(self.seconds, 3),
        }

    def text(self) -> str:
        """Return the result as text."""
        name = f"{self.version.version.model} version {self.version.version.number}"
        size = amount(sum(size for size, _, _ in self.record.files.values()))
        how = {
            "already-pulled": f"already there: {name}",
            "pulled": f"pulled {name}: {len(self.record.files)} file(s), {size}",
        }[self.outcome]
        lines = [
            how,
            f"  folder    {self.folder / MODEL}",
            "  verified  "
            + (
                f"every byte, by manifest {self.record.manifest_sha256}"
                if self.verified
                else "no: aml-mirror did not make this version, so there is no manifest to compare with"
            ),
        ]
        if self.signed_by:
            lines.append(f"  signed    by the key {self.signed_by}")
        lines.append(f"  load      {self.load}")
        lines += [f"            {line}" for line in self.loader.lines]
        return "\n".join(map(one_line, lines))
