"""The policy of a gate (``gate.yaml``): what a version must show before it may have a stage.

entrypoint/robot.md documents each key. workflows/gates/ has an example for each kind of evaluation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import yaml

from aml_mirror.core.errors import ConfigurationError, MirrorError, NotAllowed, UsageError
from aml_mirror.core.option_values import seconds
from aml_mirror.evidence.evaluation import MAX_TRIALS
from aml_mirror.gates.policy_fields import Fields, Mistake
from aml_mirror.safety.words import CLEAN, CODE, NO_CODE, SAFETENSORS, SUSPICIOUS, UNKNOWN

SCHEMA = "aml-mirror/gate/v1"
MAX_BYTES = 256 << 10
CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
_WORDS = (SAFETENSORS, NO_CODE, CLEAN, CODE, SUSPICIOUS, UNKNOWN)
_HARMLESS = (SAFETENSORS, NO_CODE, CLEAN)
_NO_BOUNDS: Mapping[str, tuple[float | None, float | None]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RequiredTask:
    """A task that must have been tried. Trials of ``name/…`` count too."""

    name: str
    episodes: int = 1
    success_rate: float | None = None

    def covers(self, task: str) -> bool:
        """Tell whether the trials of a task count for this one."""
        return task == self.name or task.startswith(f"{self.name}/")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a version must show. Without a file: one trial, and it must not be shown to be worse."""

    name: str = ""
    """The file; empty: none was given."""
    sha256: str = ""
    signed_version: bool = False
    safety: tuple[str, ...] = _HARMLESS
    """Verdicts that are accepted."""
    signed_evidence: bool = False
    newer_than_seconds: float | None = None
    newer_than: str = ""
    """The confidence as it was written."""
    episodes: int = 1
    success_rate: float | None = None
    """What the lower bound of the interval must reach, from 0 to 1."""
    confidence: float = CONFIDENCE
    tasks: tuple[RequiredTask, ...] = ()
    metrics: Mapping[str, tuple[float | None, float | None]] = field(default_factory=lambda: _NO_BOUNDS)
    """The smallest and largest mean that are accepted, by name."""
    compares: bool = True
    """Whether the candidate is compared with the incumbent."""
    significance: float = SIGNIFICANCE


def read_policy(path: str) -> Policy:
    """Read and check a policy.

    Raises:
        ConfigurationError: it cannot be read, or is wrong; the message says where.
        NotAllowed: access is denied.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except PermissionError as error:
        raise NotAllowed(
            f"access to the policy {path} (--policy) is denied", "give this user access"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"the policy {path} (--policy) cannot be read: {error.strerror}", "check the path"
        ) from error
    if len(data) > MAX_BYTES:
        raise _wrong(path, f"it is larger than {MAX_BYTES >> 10} KiB")
    try:
        return parse_policy(data, path)
    except Mistake as mistake:
        raise _wrong(path, str(mistake)) from mistake


def parse_policy(data: bytes, name: str) -> Policy:
    """Return the policy in a file.

    Raises:
        Mistake: what is wrong, and where.
    """
    top = Fields("", _loaded(data))
    schema = top.text("schema")
    if schema != SCHEMA:
        raise Mistake(f"schema is {schema!r}; this release reads {SCHEMA}")
    version, evidence = top.section("version"), top.section("evidence")
    rate, incumbent = top.section("success_rate"), top.section("incumbent")
    newer_than = evidence.duration("newer_than")
    policy = Policy(
        name=name,
        sha256=hashlib.sha256(data).hexdigest(),
        signed_version=version.flag("signed", False),
        safety=version.words("safety", _WORDS, _HARMLESS),
        signed_evidence=evidence.flag("signed", False),
        newer_than_seconds=_span(newer_than) if newer_than else None,
        newer_than=newer_than,
        episodes=top.count("episodes", 1, MAX_TRIALS),
        success_rate=rate.share("at_least"),
        confidence=rate.share("confidence", CONFIDENCE, inside=True) or CONFIDENCE,
        tasks=_tasks(top.items("tasks")),
        metrics=MappingProxyType(_metrics(top.section("metrics"))),
        compares=incumbent.flag("must_not_be_worse", True),
        significance=incumbent.share("significance", SIGNIFICANCE, inside=True) or SIGNIFICANCE,
    )
    if rate.given and policy.success_rate is None:
        raise Mistake("success_rate has no at_least: set the rate to reach, for example 0.8")
    for section in (top, version, evidence, rate, incumbent):
        section.require_all_known()
    return policy


def _tasks(items: list[Any]) -> tuple[RequiredTask, ...]:
    found: dict[str, RequiredTask] = {}
    for at, item in enumerate(items):
        where = f"tasks[{at}]"
        if isinstance(item, str):
            item = {"name": item}
        fields = Fields(where, item)
        name = fields.text("name")
        if not name or name in found:
            raise Mistake(f"{where}.name is {name!r}, which is empty or used twice")
        found[name] = RequiredTask(
            name, fields.count("episodes", 1, MAX_TRIALS), fields.share("success_rate")
        )
        fields.require_all_known()
    return tuple(found.values())


def _metrics(section: Fields) -> dict[str, tuple[float | None, float | None]]:
    found = {}
    for name in section.names():
        bounds = section.section(name)
        low, high = bounds.number("at_least"), bounds.number("at_most")
        bounds.require_all_known()
        if low is None and high is None:
            raise Mistake(f"metrics.{name} has neither at_least nor at_most")
        if low is not None and high is not None and low > high:
            raise Mistake(f"metrics.{name}: at_least {low:g} is above at_most {high:g}")
        found[name] = (low, high)
    return found


def _span(text: str) -> float:
    try:
        return seconds(text, "evidence.newer_than")
    except UsageError as error:
        raise Mistake(error.message) from error


class _Loader(yaml.SafeLoader):
    """Reads YAML without tags. It refuses duplicate keys, because the last one would silently win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                raise Mistake(f"line {key.start_mark.line + 1}: a key is a list or a section, not a name")
            if key.value in seen:
                raise Mistake(f"line {key.start_mark.line + 1}: {key.value!r} is set twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _loaded(data: bytes) -> Any:
    try:
        return yaml.load(data, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        said = str(error.problem)
        # For example: expected a single document in the stream, but found another document.
        raise Mistake(f"{where}{f'{error.context}, {said}' if said.startswith('but ') else said}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Mistake("it is not valid YAML") from error


def _wrong(path: str, why: str) -> MirrorError:
    return ConfigurationError(
        f"the policy {path} (--policy) is not valid: {why}", "entrypoint/robot.md describes every key"
    )
