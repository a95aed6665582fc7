"""Mirrors one run. This module can be read as the specification.

1. *Destination* (:mod:`.destination`): names, registry and signing key are checked. Nothing is sent.
2. *Locate* (:mod:`.locate`): the source is listed, and the one run in it detected.
3. *Select* (:mod:`.select`): the newest complete checkpoint, or the requested one.
4. *Decide* (:mod:`.decide`): if the registry has a complete version with this quick key, nothing is read.
   Else the checkpoint is hashed; if the registry has a version with this identity, nothing is sent but what
   its logs gained since (:mod:`.log_update`). Else there is a plan, within the registry's limits
   (:mod:`.apply_limits`).
5. *Publish* (:mod:`.publish`): a run is continued or created, and gets parameters, points and files. Then one
   version is registered. The mark that it is complete is written last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from aml_mirror.core.errors import DataError
from aml_mirror.core.run import Checkpoint
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline import log_update
from aml_mirror.pipeline.current_verdict import recorded_verdict
from aml_mirror.pipeline.decide import Decisions, Recognized
from aml_mirror.pipeline.destination import Destination, destination
from aml_mirror.pipeline.locate import LocatedRun, locate
from aml_mirror.pipeline.plan import Plan
from aml_mirror.pipeline.publish import Publication
from aml_mirror.pipeline.receipt import Facts, Progress, Receipt, receipt_of
from aml_mirror.pipeline.same_bytes import copied_version
from aml_mirror.pipeline.select import SelectedCheckpoint
from aml_mirror.registries import keys
from aml_mirror.registries.base import Reading, ReadsOnce, Registry
from aml_mirror.registries.pages import pages_of
from aml_mirror.registries.pinned_manifest import pinned_manifest
from aml_mirror.registries.records import Version
from aml_mirror.registries.registry import open_registry
from aml_mirror.sources.base import Source
from aml_mirror.sources.registry import open_source
from aml_mirror.support.progress import Console
from aml_mirror.telemetry.record import span


class Mirror:
    """The mirror of one run.

    Args:
        settings: the settings of this call.
        console: output for the user.
        progress: called with the facts known so far, for the receipt of a failure.
        registry, source: if they are already open; else those of the settings are opened.
        locate: lists a source and finds the one run in it.
    """

    def __init__(
        self,
        settings: Settings,
        console: Console,
        progress: Progress,
        registry: Registry | None = None,
        source: Source | None = None,
        locate: Callable[[Source, Settings], LocatedRun] = locate,
    ) -> None:
        self._settings = settings
        self._console = console
        self._progress = progress
        self._given_registry = registry
        self._given_source = source
        self._locate = locate
        self._located: LocatedRun | None = None
        self._started = time.monotonic()
        self._knows(Facts(run_id=settings.run_id or None, model_name=settings.model_name or None))

    def run(self, versions: Sequence[Version] | None = None) -> Iterator[Receipt]:
        """Mirror what the settings ask for and yield a receipt for each version.

        Args:
            versions: the versions of this run, if the registry was already asked.

        Raises:
            MirrorError: with the exit code; the work so far stays, and the next attempt continues it.
            Interrupted: a signal arrived; likewise.
        """
        settings, say = self._settings, self._console.say
        target = destination(settings)
        with span("open registry"):
            registry = self._given_registry or open_registry(settings, say)
        self._knows(replace(self._progress.facts, experiment=target.experiment))

        source = self._given_source or open_source(settings, say)
        self._knows(replace(self._progress.facts, source=source.uri))
        with span("locate", source=source.uri):
            located = self._locate(source, settings)
        facts = self._knows(_facts_of(located, self._progress.facts))

        if versions is None:
            with span("look up versions", model=target.model_name):
                versions = registry.versions(target.experiment, target.model_name, located.run_id)
        complete = [version for version in versions if version.complete]
        read_once = _reader(registry, located, target, versions)
        decisions = Decisions(located, target, settings, self._console, complete, read_once)
        for selected in self._selected(decisions, registry):
            self._knows(_facts_at(selected.checkpoint, facts))
            if settings.dry_run:
                yield self._planned(selected, located)
                continue
            self._located = located
            with span("decide", checkpoint=selected.checkpoint.path):
                decision = decisions.decide(selected)
            with span("publish", checkpoint=selected.checkpoint.path):
                receipt = self._settled(decision, registry, target, complete)
            yield receipt
            self._knows(facts)

    def _selected(self, decisions: Decisions, registry: Registry) -> Iterable[SelectedCheckpoint]:
        try:
            return decisions.selected()
        finally:
            for version, tags in [] if self._settings.dry_run else decisions.judged_anew:
                registry.annotate(version, tags)

    def _planned(self, selected: SelectedCheckpoint, located: LocatedRun) -> Receipt:
        """Return the receipt of a dry run. The checkpoint was not hashed, so its digest is unknown."""
        files = selected.checkpoint.files
        return receipt_of(
            self._progress.facts,
            outcome="planned",
            exit_code=0,
            files=len(files),
            bytes=sum(located.tree.size(path) for path in files if located.tree.has(path)),
            warnings=located.warnings,
            seconds=round(self._seconds(), 3),
        )

    def recognized(
        self, located: LocatedRun, target: Destination, registry: Registry, versions: Sequence[Version]
    ) -> list[Receipt]:
        """Return receipts if the quick keys of known versions suffice, else nothing.

        The registry is not asked, and no byte of a checkpoint is read.
        """
        facts = self._knows(_facts_of(located, replace(self._progress.facts, experiment=target.experiment)))
        complete = [version for version in versions if version.complete]
        decisions = Decisions(located, target, self._settings, self._console, complete)
        return [
            self._already(item, registry, _facts_at(item.checkpoint, facts))
            for item in decisions.recognized()
        ]

    def _settled(
        self,
        decision: Plan | Recognized,
        registry: Registry,
        target: Destination,
        complete: Sequence[Version],
    ) -> Receipt:
        facts = self._progress.facts
        if isinstance(decision, Plan) and (version := copied_version(registry, decision, complete)):
            decision = recognized_as(version, decision)
        if isinstance(decision, Recognized):
            if self._settings.hash:
                _require_intact(registry, decision.version)
                if self._located is not None:
                    log_update.require_same_beginnings(registry, self._located, decision.version)
            if decision.is_moved:
                registry.refresh(decision.version, decision.quick_key)
            return self._continued(decision, registry, facts)
        if decision.absent:
            self._console.say_once(f"{facts.run_id} has no {', no '.join(decision.absent)}")
        done = Publication(
            decision, registry, target, self._settings, self._console, self._progress, self._seconds
        ).publish()
        if isinstance(done, Receipt):
            return done
        return self._already(recognized_as(done, decision), registry, facts)

    def _continued(self, item: Recognized, registry: Registry, facts: Facts) -> Receipt:
        """Add new log contents of the run to an existing version, and return its receipt."""
        receipt = self._already(item, registry, facts)
        if self._located is None or not log_update.is_needed(self._located, item.version):
            return receipt
        done = log_update.update(registry, self._located, item.version, not self._settings.no_event_files)
        if done is None:
            return receipt
        return replace(
            receipt,
            outcome="updated",
            points=done.points,
            bytes_sent=done.bytes_sent,
            warnings=(*receipt.warnings, *done.warnings),
            seconds=round(self._seconds(), 3),
        )

    def _already(self, item: Recognized, registry: Registry, facts: Facts) -> Receipt:
        version = item.version
        run_id = version.tags.get(keys.MLFLOW_RUN_ID, "")
        pages = pages_of(registry, version.model, version.number, run_id)
        return receipt_of(
            replace(facts, mlflow_run_id=version.tags.get(keys.MLFLOW_RUN_ID)),
            outcome="already-mirrored",
            exit_code=0,
            model_version=version.number,
            model_uri=registry.uri(version),
            run_page=pages.run or None,
            version_page=pages.version or None,
            files_uri=version.tags.get(keys.FILES_URI),
            manifest_sha256=version.tags.get(keys.MANIFEST_SHA256),
            integrity=version.tags.get(keys.INTEGRITY),
            safety=recorded_verdict(version).word or None,
            files=item.files,
            bytes=item.bytes,
            warnings=item.warnings,
            seconds=round(self._seconds(), 3),
        )

    def _knows(self, facts: Facts) -> Facts:
        self._progress.facts = facts
        return facts

    def _seconds(self) -> float:
        return time.monotonic() - self._started


def recognized_as(version: Version, plan: Plan) -> Recognized:
    """Report that a version has what a plan would mirror."""
    return Recognized(
        version,
        plan.checkpoint,
        plan.quick_key,
        len(plan.manifest.items),
        plan.manifest.bytes,
        plan.warnings,
    )


def _reader(
    registry: Registry, located: LocatedRun, target: Destination, versions: Sequence[Version]
) -> Callable[[str, str, int], Reading | None]:
    """Return the object that lets a registry read files once, if it has no version of a checkpoint.

    If it has one, complete or not, nothing has to be sent in most cases, so the files are hashed first.
    """
    begun = {version.tags.get(keys.CHECKPOINT) for version in versions}

    def read_once(path: str, quick_key: str, size: int) -> Reading | None:
        if path in begun or not isinstance(registry, ReadsOnce):
            return None
        return registry.read_once(located.source, target.model_name, quick_key, size)

    return read_once


def _require_intact(registry: Registry, version: Version) -> None:
    """Check the contents of a version that is already mirrored.

    Raises:
        DataError: they are not what was mirrored.
    """
    reader = registry.version_reader(version)
    changed = reader.changed(pinned_manifest(version, reader))
    wrong, missing = reader.own_problems()
    if changed := [*changed, *(path for path, _ in wrong), *missing]:
        raise DataError(
            f"version {version.number} of {version.model} is no longer what was mirrored: "
            f"{', '.join(changed[:20])}",
            f"restore it with: aml-mirror repair {version.model}:{version.number}",
        )


def _facts_of(located: LocatedRun, facts: Facts) -> Facts:
    return replace(
        facts,
        run_id=located.run_id,
        source=located.source.uri,
        framework=located.detected.layout.name,
    )


def _facts_at(checkpoint: Checkpoint, facts: Facts) -> Facts:
    return replace(facts, checkpoint=checkpoint.path, step=checkpoint.step)
