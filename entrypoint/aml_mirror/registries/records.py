"""What a registry says of itself and of its versions, whatever kind it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from aml_mirror.registries.keys import COMPLETE, STATE

Point = tuple[str, float, int, int]
"""Name, value, time in milliseconds since the epoch, step."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a workspace takes; None: as much as there is. Lengths in characters."""

    batch: int = 200
    """Metric values a ``log_batch``: Azure ML refuses more than 250 (Learn, resource limits), and an early
    report has more than 200 fail (mlflow#2441)."""
    series: int | None = None
    params: int | None = None
    params_in_batch: int = 100
    param_name: int = 250
    param_value: int = 6000
    tags: int | None = None
    tag_value: int = 5000
    files: int | None = None
    description: int = 5000
    """Of a version: MLflow's tables and Azure ML both have room for so many."""


@dataclass(frozen=True, slots=True)
class Version:
    """A registered model version, complete or not."""

    model: str
    number: str
    tags: dict[str, str] = field(default_factory=dict)
    path: str = ""
    """Where its files are, as the registry has it; empty: the registry does not say."""
    archived: bool = False
    """Whether somebody archived it, or its model."""

    @property
    def complete(self) -> bool:
        """Whether the mark that is written last is there."""
        return self.tags.get(STATE) == COMPLETE


@dataclass(frozen=True, slots=True)
class Upload:
    """One file to send: its path in the source's tree, its path among the artifacts, its size in bytes."""

    source: str
    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class FileDigest:
    """What was read of one file: its size in bytes and its digests in hexadecimal."""

    bytes: int
    sha256: str
    md5: str
    etag: str = ""
    """The ETag under which it was read, where the store has any; without quotes."""


def log_state_name(digest: str) -> str:
    """Return the name under which the state of a version's logs is kept (``mirror.logs`` has the digest)."""
    return f"logs-{digest}.json"


def log_state_digest(tag: str) -> str:
    """Return the SHA-256 of the state that the value of a version's tag ``mirror.logs`` means."""
    return tag.split(":")[1] if ":" in tag else ""


def model_uri(version: Version) -> str:
    """Return a version's address as MLflow's clients and Azure ML's MLflow plugin take it."""
    return f"models:/{version.model}/{version.number}"
