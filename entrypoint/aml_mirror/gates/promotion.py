"""Gives a stage to a version if it and its evidence pass a policy: ``aml-mirror promote``.

1. The version is checked without a lock: every byte, its signature, its safety verdict.
2. Under the lock of the model's stages, the evidence is compared with the policy and the incumbent. So of two
   promotions at once, the second is compared with the first.
3. The change is written (:mod:`.stage_journal`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from aml_mirror.core.errors import DataError, SourceNotFound, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.evidence.attached import Attached, attached_to
from aml_mirror.evidence.counted_once import counted_once
from aml_mirror.evidence.result_statement import Evidence
from aml_mirror.gates.candidate import check_candidate
from aml_mirror.gates.decision import PASS, Decision, Incumbent, decide
from aml_mirror.gates.policy import Policy, read_policy
from aml_mirror.gates.stage_journal import blank_entry, stages_of_model, write_change
from aml_mirror.pipeline.provenance import signing
from aml_mirror.registries import keys
from aml_mirror.registries.base import Registry
from aml_mirror.registries.records import Version
from aml_mirror.registries.stages import PROMOTE, Holder, StageEntry, StageStore, check_stage
from aml_mirror.support.progress import Console
from aml_mirror.verify.verify import open_version

SCHEMA = "aml-mirror/promotion/v1"


@dataclass(slots=True)
class Promotion:
    """The result of a promotion."""

    version: Version
    uri: str
    stage: str
    policy: Policy
    decision: Decision
    previous: str
    """The number of the version that had the stage before; empty: none."""
    counted: Sequence[Evidence]
    entry: StageEntry | None = None
    """The journal entry that was written; None: nothing was written."""
    dry_run: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """``pass``, ``fail`` or ``insufficient``."""
        return self.decision.outcome

    @property
    def exit_code(self) -> int:
        """0 for ``pass``, else 65."""
        return 0 if self.outcome == PASS else DataError.exit_code

    @property
    def error(self) -> str:
        """Why it did not pass, in one line; empty: it passed."""
        if self.outcome == PASS:
            return ""
        what = f"version {self.version.number} of {self.version.model} does not get {self.stage}"
        word = "the evidence is insufficient" if self.outcome != "fail" else "it fails"
        return "; ".join([f"{what}: {word}: {self.decision.reason}", *self.notes])

    def as_dict(self) -> dict[str, Any]:
        """The object that ``promote --json`` prints."""
        return {
            "schema": SCHEMA,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "error": self.error or None,
            "model_name": self.version.model,
            "model_version": self.version.number,
            "model_uri": self.uri,
            "manifest_sha256": self.version.tags.get(keys.MANIFEST_SHA256),
            "stage": self.stage,
            "previous_version": self.previous or None,
            "changed": self.entry is not None,
            "dry_run": self.dry_run,
            "entry": self.entry.sequence if self.entry else None,
            "policy": self.policy.name or None,
            "policy_sha256": self.policy.sha256 or None,
            "conditions": [one.as_dict() for one in self.decision.conditions],
            "evaluations": [one.id for one in self.counted],
            "notes": self.notes,
        }

    def text(self, with_notes: bool = True) -> str:
        """Return the result of a version that passed, as text."""
        version = f"{self.version.model} version {self.version.number}"
        notes = "".join(f"\nnote: {note}" for note in self.notes) if with_notes else ""
        if self.previous == self.version.number:
            return f"pass: {version} has {self.stage} already{notes}"
        before = f"; before, version {self.previous} had it" if self.previous else ""
        if self.dry_run:
            return f"pass: {version} would get {self.stage}{before} (dry run, nothing was written){notes}"
        return f"pass: {version} has {self.stage} now{before}{notes}"


def promote(settings: Settings, console: Console) -> Promotion:
    """Promote the version that the settings name to the stage that they name.

    Raises:
        UsageError: one of them is missing, or a signature is required and no key is given.
        SourceNotFound: there is no such version.
        ConfigurationError: the policy is wrong.
        DataError: the version or its evidence cannot be trusted.
    """
    if not settings.to_stage:
        raise UsageError("no stage is named", "for example: --to production")
    stage = check_stage(settings.to_stage)
    policy = read_policy(settings.policy) if settings.policy else Policy()
    public_keys = [signing.public_key(path) for path in settings.public_keys]
    if not public_keys and (policy.signed_version or policy.signed_evidence):
        raise UsageError(
            f"the policy {policy.name} requires signatures, but no key was given to check them",
            "pass --public-key FILE",
        )
    registry, version = open_version(settings, console)
    if not settings.policy:
        policy = _with_threshold(policy, version)
    store = stages_of_model(registry, version.model)
    check_candidate(registry, version, policy, public_keys, settings, console)
    if settings.dry_run:
        return _decided(registry, store, version, stage, policy, public_keys, dry_run=True)
    with store.lock() as require_allowed:
        version = _still(registry, version)
        done = _decided(registry, store, version, stage, policy, public_keys)
        if done.outcome != PASS:
            return done
        holder = store.holder(stage)
        if holder is None or holder.version.number != version.number:
            entry = blank_entry(
                stage,
                PROMOTE,
                settings.reason,
                [one.id for one in done.counted],
                policy.sha256,
                done.decision.conditions,
            )
            done.entry = write_change(store, registry, entry, holder, version, require_allowed)
        return done


def _still(registry: Registry, version: Version) -> Version:
    """Return the current version after its bytes were read.

    Raises:
        DataError: the version was replaced meanwhile.
    """
    now = registry.find_version(version.model, version.number)
    if (
        now is None
        or now.archived
        or now.tags.get(keys.IDENTITY) != version.tags.get(keys.IDENTITY)
        or now.path != version.path
    ):
        raise DataError(
            f"version {version.number} of {version.model} changed while it was read",
            "run the same command again",
        )
    return now


def _with_threshold(policy: Policy, version: Version) -> Policy:
    """Without a policy, the threshold stored with the version counts."""
    try:
        wanted = float(version.tags.get(keys.SUCCESS_THRESHOLD, ""))
    except ValueError:
        return policy
    return replace(policy, success_rate=wanted) if 0 <= wanted <= 1 else policy


def _decided(
    registry: Registry,
    store: StageStore,
    version: Version,
    stage: str,
    policy: Policy,
    public_keys: Sequence[signing.PublicKey],
    dry_run: bool = False,
) -> Promotion:
    attached = attached_to(version, registry.version_reader(version), public_keys)
    notes: list[str] = []
    usable, twice = counted_once(_signed(attached, policy, notes))
    notes += twice
    counted, too_old = _fresh(usable, policy)
    holder = store.holder(stage)
    decision = decide(policy, counted, _incumbent(registry, holder, version, policy, public_keys), too_old)
    return Promotion(
        version,
        registry.uri(version),
        stage,
        policy,
        decision,
        holder.version.number if holder else "",
        counted,
        dry_run=dry_run,
        notes=notes,
    )


def _signed(attached: Sequence[Attached], policy: Policy, notes: list[str]) -> list[Evidence]:
    found = []
    for one in attached:
        if policy.signed_evidence and not one.signed_by:
            notes.append(
                f"the evaluation {one.evidence.id[:16]} is not signed, and the policy counts only signed ones"
            )
            continue
        found.append(one.evidence)
    return found


def _fresh(evidence: Sequence[Evidence], policy: Policy) -> tuple[list[Evidence], int]:
    """Return the evidence that is recent enough, and how much is not."""
    if policy.newer_than_seconds is None:
        return list(evidence), 0
    now = datetime.now(UTC)
    fresh = [one for one in evidence if (now - one.evaluated_at).total_seconds() <= policy.newer_than_seconds]
    return fresh, len(evidence) - len(fresh)


def _incumbent(
    registry: Registry,
    holder: Holder | None,
    candidate: Version,
    policy: Policy,
    public_keys: Sequence[signing.PublicKey],
) -> Incumbent | None:
    """Return the version to compare with. Its evidence does not age, because its bytes have not changed."""
    if holder is None or not policy.compares:
        return None
    version = holder.version
    if version.number == candidate.number or (
        version.tags.get(keys.MANIFEST_SHA256) == candidate.tags.get(keys.MANIFEST_SHA256)
    ):
        return None
    try:
        attached = attached_to(version, registry.version_reader(version), public_keys)
    except DataError as error:
        return Incumbent(version.number, (), error.message)
    return Incumbent(version.number, counted_once(_signed(attached, policy, []))[0])


def require_version(registry: Registry, model: str, number: str) -> Version:
    """Return a version.

    Raises:
        SourceNotFound: there is no version with this number.
    """
    version = registry.find_version(model, number)
    if version is None:
        raise SourceNotFound(
            f"there is no version {number} of the model {model} in {registry.description}",
            "it was deleted; promote another one",
        )
    return version
