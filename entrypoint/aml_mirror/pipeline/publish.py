"""Writes one plan into a registry: a run, its files and a version, which is marked complete last."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

from aml_mirror.core.errors import Interrupted
from aml_mirror.core.manifest import TransferResult
from aml_mirror.core.settings import Settings
from aml_mirror.metrics.series import read_metrics
from aml_mirror.pipeline import curves, model_card, training_times
from aml_mirror.pipeline.apply_limits import apply_limits
from aml_mirror.pipeline.curves import Curves
from aml_mirror.pipeline.destination import Destination
from aml_mirror.pipeline.locate import require_unchanged
from aml_mirror.pipeline.log_state import Recorder, log_sizes, stamps_digest, state_of
from aml_mirror.pipeline.model_paths import artifact_path
from aml_mirror.pipeline.plan import Plan
from aml_mirror.pipeline.provenance import ml_bom, statement
from aml_mirror.pipeline.receipt import Facts, Progress, Receipt, receipt_of
from aml_mirror.pipeline.task_name import task_in
from aml_mirror.registries import keys
from aml_mirror.registries.base import Registry, Writer
from aml_mirror.registries.pages import pages_of
from aml_mirror.registries.records import Point, Upload, Version
from aml_mirror.safety.words import SCANNER
from aml_mirror.sources.growing import log_view
from aml_mirror.sources.tree import Tree
from aml_mirror.support import redaction
from aml_mirror.support.progress import Console

_MAX_NAMES = 1000  # The most characters of a tag that maps names of metrics.


class Publication:
    """Writes one plan.

    Args:
        plan: what is written.
        registry, destination: the target.
        settings: of this call.
        console: shows the progress.
        progress: called with the id of the run that is written.
        seconds: returns how long the work has taken so far.
    """

    def __init__(
        self,
        plan: Plan,
        registry: Registry,
        destination: Destination,
        settings: Settings,
        console: Console,
        progress: Progress,
        seconds: Callable[[], float],
    ) -> None:
        self._plan = plan
        self._registry = registry
        self._destination = destination
        self._settings = settings
        self._console = console
        self._progress = progress
        self._seconds = seconds
        self._curves = Curves(plan.metrics.series)

    def publish(self) -> Receipt | Version:
        """Write it, and return the receipt; or the version, if another mirror finished it meanwhile.

        Raises:
            MirrorError: what was written stays, and the next attempt continues.
            Interrupted: a signal arrived; likewise.
        """
        tags = tags_of(self._plan, self._settings)
        writer = self._registry.begin(self._destination.experiment, self._plan.located.run_id, tags)
        if isinstance(writer, Version):
            return writer
        self._progress.facts = replace(self._progress.facts, mlflow_run_id=writer.run_id)
        if address := writer.files_uri():
            tags[keys.FILES_URI] = address
        try:
            return self._write(writer, tags, self._progress.facts)
        except Interrupted as stop:
            writer.abort("KILLED", stop.message)
            raise
        except BaseException as error:
            writer.abort("FAILED", str(error))
            raise

    def _write(self, writer: Writer, tags: dict[str, str], facts: Facts) -> Receipt:
        tree, run = self._plan.located.tree, self._plan.located.run
        # Logs may still grow: what the first attempt saw is sent now, the rest by a later mirror.
        seen = log_sizes(tree, run)
        sizes = writer.pin_logs(seen)
        logs = log_view(tree, seen, sizes)
        self._plan = plan = self._within(logs) if sizes != seen else self._plan
        recorder = Recorder()
        writer.log_params(dict(plan.params))
        with self._console.stage("metrics", plan.metrics.points, "points") as progress:
            writer.log_metrics(lambda: self._noting(recorder), progress)
        with self._console.stage("checkpoint", plan.manifest.bytes) as progress:
            moved = writer.put_model(tree, plan.manifest, progress)
        uploads = [
            Upload(path, f"tensorboard/{artifact_path(path)}", logs.size(path))
            for path in ([] if self._settings.no_event_files else plan.event_files)
            if logs.has(path)
        ]
        with self._console.stage("event files", sum(upload.bytes for upload in uploads)) as progress:
            sent = writer.put_files(logs, uploads, progress)

        described = replace(plan, warnings=(*plan.warnings, *moved.warnings))
        picture = self._picture(recorder)
        pages = pages_of(self._registry, plan.model_name, "", writer.run_id)
        card = model_card.write(described, _told(self._settings, tags), pages, bool(picture))
        writer.put_texts(self._texts(card.text(), picture))
        require_unchanged(plan.located, [item.source for item in plan.manifest.items])

        tags = self._with_log_state(writer, tags, logs, sizes, recorder)
        integrity = _integrity_of(plan, moved)
        shown = {name: value for name, value in tags.items() if name not in keys.OF_THE_RUN_ALONE}
        description = card.description(self._registry.limits.description, pages.artifact)
        version = writer.register(description, {**shown, keys.INTEGRITY: integrity})
        warnings = dict.fromkeys((*described.warnings, *writer.warnings))
        pages = pages_of(self._registry, version.model, version.number, writer.run_id)
        receipt = receipt_of(
            facts,
            outcome="mirrored",
            exit_code=0,
            model_version=version.number,
            model_uri=self._registry.uri(version),
            run_page=pages.run or None,
            version_page=pages.version or None,
            files_uri=tags.get(keys.FILES_URI),
            manifest_sha256=plan.manifest.sha256,
            integrity=integrity,
            safety=plan.safety.verdict,
            allowed=tuple(plan.safety.allowed),
            files=len(plan.manifest.items),
            bytes=plan.manifest.bytes,
            bytes_sent=moved.sent + sent,
            bytes_copied=moved.copied,
            bytes_reused=moved.reused,
            series=len(plan.metrics.series),
            points=plan.metrics.points,
            left_out=plan.left_out,
            warnings=tuple(warnings),
            seconds=round(self._seconds(), 3),
        )
        writer.put_texts({"receipt.json": receipt.whole()})
        writer.finish(version)
        return receipt

    def _within(self, logs: Tree) -> Plan:
        """Return the plan with no more of the logs than an earlier attempt saw."""
        metrics = read_metrics(logs, [path for path in self._plan.located.run.logs if logs.has(path)])
        kept = tuple(item for item in self._plan.beyond_limits if "metric" not in item)
        plan = replace(self._plan, metrics=metrics, beyond_limits=kept)
        limited = apply_limits(plan, self._registry.limits)
        beyond = tuple(item for item in limited.beyond_limits if "metric" in item)
        return replace(plan, metrics=limited.metrics, beyond_limits=(*kept, *beyond))

    def _noting(self, recorder: Recorder) -> Iterator[Point]:
        """Yield the points, and record them for the log state and for the picture."""
        self._curves = Curves(self._plan.metrics.series)
        for point in recorder.recording(self._plan.metrics.stream):
            self._curves.take(point)
            yield point

    def _picture(self, recorder: Recorder) -> str:
        """Return the main curves; empty: none."""
        if not recorder.is_whole:
            # Read again: an attempt that continued another one may have stopped reading early.
            for _ in self._noting(recorder):
                pass
        return self._curves.svg()

    def _with_log_state(
        self,
        writer: Writer,
        tags: dict[str, str],
        logs: Tree,
        sizes: dict[str, int],
        recorder: Recorder,
    ) -> dict[str, str]:
        """Store how far the logs were mirrored, and return the tags including the one that refers to it."""
        metrics = self._plan.metrics
        state = state_of(logs, {path: logs.size(path) for path in sizes if logs.has(path)}, metrics, recorder)
        # The stamps are those of the listing. The next mirror examines anything that was overwritten since.
        tag = state.tag(stamps_digest(self._plan.located.tree, state.files))
        if writer.put_log_state(tag.name, state.as_json()):
            return {**tags, keys.LOGS: str(tag)}
        return tags

    def _texts(self, card: str, picture: str) -> dict[str, str]:
        plan, provenance = self._plan, statement.as_json(self._plan)
        texts = {
            "manifest.json": plan.manifest.as_json(),
            "safety.json": plan.safety.as_json(),
            statement.ARTIFACT: provenance,
            "MODEL_CARD.md": card,
            ml_bom.ARTIFACT: ml_bom.as_json(plan),
        }
        if picture:
            texts[curves.ARTIFACT] = picture
        if self._destination.sign is not None:
            texts |= self._destination.sign(provenance, plan.manifest)
        if plan.metrics.renamed:
            texts["metric_names.json"] = json.dumps(plan.metrics.renamed, indent=2, ensure_ascii=False) + "\n"
        return texts


def _told(settings: Settings, tags: dict[str, str]) -> dict[str, str]:
    """Return the tags that a card shows: those of the user, and the task."""
    return {**settings.tags, **({keys.TASK: tags[keys.TASK]} if keys.TASK in tags else {})}


def _integrity_of(plan: Plan, moved: TransferResult) -> str:
    """Return ``sha256`` also if the service refused to copy: then all files were sent and hashed."""
    stored = moved.stored
    was_hashed = (item.path in stored and stored[item.path].sha256 for item in plan.manifest.items)
    return "sha256" if all(was_hashed) else plan.manifest.integrity


def tags_of(plan: Plan, settings: Settings) -> dict[str, str]:
    """Return the tags of the run and its version: those of the user, then those of the mirror."""
    located = plan.located
    tags = {
        **{name: str(redaction.value(name, value)) for name, value in settings.tags.items()},
        **{keys.LABEL + name: str(redaction.value(name, value)) for name, value in located.labels.items()},
        keys.RUN_ID: located.run_id,
        keys.OUTPUT_DIR: located.source.uri,
        keys.FRAMEWORK: settings.tags.get(keys.FRAMEWORK)
        or settings.framework_tag
        or located.detected.layout.name,
        keys.ROLE: plan.checkpoint.role,
        keys.SOURCE: settings.source_tag or ("osmo-replay" if settings.replay_run_id else "osmo-mirror"),
        keys.CHECKPOINT: plan.checkpoint.path,
        keys.MANIFEST_SHA256: plan.manifest.sha256,
        keys.INTEGRITY: plan.manifest.integrity,
        keys.SAFETY: plan.safety.verdict,
        keys.SAFETY_SCANNER: SCANNER,
        keys.IDENTITY: plan.identity,
        keys.QUICK_KEY: plan.quick_key,
        keys.MODEL_NAME: plan.model_name,
    }
    if trained := training_times.as_tag(plan.metrics, located.tree):
        tags[keys.TRAINED] = trained
    if task := settings.task_name or settings.tags.get(keys.TASK) or task_in(located.run.params):
        tags[keys.TASK] = task
    if settings.success_threshold is not None:
        tags[keys.SUCCESS_THRESHOLD] = f"{settings.success_threshold:g}"
    if plan.checkpoint.step is not None:
        tags[keys.STEP] = str(plan.checkpoint.step)
    if plan.checkpoint.base_model:
        tags.setdefault(keys.BASE_MODEL, plan.checkpoint.base_model)
    if settings.replay_run_id:
        tags[keys.REPLAY] = "true"
        same = settings.replay_run_id == settings.run_id
        tags[keys.REPLAY_SOURCE] = located.run_id if same else settings.replay_run_id
    names = json.dumps(plan.metrics.renamed, ensure_ascii=False, separators=(",", ":"))
    if plan.metrics.renamed and len(names) <= _MAX_NAMES:
        tags[keys.METRIC_NAMES] = names
    tags.setdefault(keys.NOTE, model_card.sentence(plan, _told(settings, tags)))
    return tags
