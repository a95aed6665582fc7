"""What every kind of registry says about itself and its versions."""

from __future__ import annotations

from dataclasses import dataclass, field

from aml_mirror.registries.keys import COMPLETE, STATE

Point = tuple[str, float, int, int]
"""Name, value, time in milliseconds since the epoch, step."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a workspace; None: no limit. Lengths in characters."""

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
    """The length of a version's description: MLflow's tables and Azure ML both have room for this much."""


@dataclass(frozen=True, slots=True)
class Version:
    """A registered model version, complete or not."""

    model: str
    number: str
    tags: dict[str, str] = field(default_factory=dict)
    path: str = ""
    """The registry's path of its files; empty: the registry does not say."""
    archived: bool = False
    """Whether somebody archived the version or its model."""

    @property
    def complete(self) -> bool:
        """Whether it has the mark that is written last."""
        return self.tags.get(STATE) == COMPLETE


@dataclass(frozen=True, slots=True)
class Upload:
    """One file to send: its path in the source's tree, its path among the artifacts, its size in bytes."""

    source: str
    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class FileDigest:
    """The result of reading one file: its size in bytes and its digests in hexadecimal."""

    bytes: int
    sha256: str
    md5: str
    etag: str = ""
    """The ETag when it was read, without quotes, if the store has ETags."""


def log_state_name(digest: str) -> str:
    """Return the name of the stored state of a version's logs (``mirror.logs`` has the digest)."""
    return f"logs-{digest}.json"


def log_state_digest(tag: str) -> str:
    """Return the SHA-256 of the log state that the value of a version's tag ``mirror.logs`` refers to."""
    return tag.split(":")[1] if ":" in tag else ""


def model_uri(version: Version) -> str:
    """Return a version's address in the form that MLflow's clients and Azure ML's MLflow plugin accept."""
    return f"models:/{version.model}/{version.number}"
