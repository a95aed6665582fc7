"""The pipeline, short enough to be read as the specification.

A run is found in its source and a checkpoint chosen. If the workspace has a version with this quick key,
nothing is read. Else the checkpoint is hashed; if the workspace has a version with this identity, nothing
is sent. Else one MLflow run is taken up or created, and gets parameters, points and files; then one
version is registered; and the mark that it is complete is written last.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator

from aml_mirror.core.errors import DataError, Interrupted, MirrorError
from aml_mirror.core.settings import Settings
from aml_mirror.layouts.base import Checkpoint
from aml_mirror.pipeline import model_card, plan
from aml_mirror.pipeline.apply_limits import apply_limits
from aml_mirror.pipeline.plan import LocatedRun, Plan
from aml_mirror.pipeline.provenance import statement
from aml_mirror.pipeline.receipt import Receipt
from aml_mirror.pipeline.select import SelectedCheckpoint, choose
from aml_mirror.pipeline.target_names import checked_names
from aml_mirror.registries import base
from aml_mirror.registries.base import Registry, Upload, Version, Writer
from aml_mirror.registries.pinned_manifest import pinned_manifest
from aml_mirror.registries.registry import open_registry, required_type
from aml_mirror.safety.verdict import inspect, require_harmless
from aml_mirror.safety.words import FIRST_SCANNER, HARMLESS, SCANNER, current
from aml_mirror.sources.base import Source
from aml_mirror.sources.hashing import quick_key
from aml_mirror.sources.registry import open_source
from aml_mirror.support import redaction
from aml_mirror.support.progress import Console


class Mirror:
    """The mirror of one run. ``receipt`` is filled as things become known, for a failure too.

    Args:
        settings: what is asked for.
        console: what the person sees.
        receipt: to be filled.
        registry, source: where they are open already; else the ones that the settings name.
        locate: lists a source and finds the one run in it.
    """

    def __init__(
        self,
        settings: Settings,
        console: Console,
        receipt: Receipt,
        registry: Registry | None = None,
        source: Source | None = None,
        locate: Callable[[Source, Settings], LocatedRun] = plan.find,
    ) -> None:
        self._settings = settings
        self._console = console
        self._registry = registry
        self._source = source
        self._locate = locate
        self._started = time.monotonic()
        self._signed: tuple[str, Callable[[str], str]] | None = None
        self.receipt = receipt
        receipt.run_id, receipt.model_name = settings.run_id or None, settings.model_name or None

    def run(self, known: list[Version] | None = None) -> Iterator[Receipt]:
        """Mirror what the settings ask for and yield a receipt for each version.

        Args:
            known: the versions of this run, where the workspace was asked for them already.

        Raises:
            MirrorError: with the exit code; what was done so far stays and is taken up by the next try.
            Interrupted: a signal arrived; likewise.
        """
        settings = self._settings
        model, experiment = checked_names(settings)
        self._signed = _signing(settings)
        registry = self._registry or open_registry(settings, self._console.say)
        self.receipt.experiment = experiment

        source = self._source or open_source(settings, self._console.say)
        self.receipt.source = source.uri
        subject = self._locate(source, settings)
        self._note(subject)

        if known is None:
            known = registry.versions(experiment, model, subject.run_id)
        known = [item for item in known if item.complete]
        for chosen in self._chosen(subject, known):
            yield self._mirror(registry, experiment, subject, self._narrowed(chosen), known)
            self.receipt.next_version()

    def recognised(self, subject: LocatedRun, known: list[Version]) -> Iterator[Receipt]:
        """Yield receipts if all that the settings ask for is known by its quick key; else nothing.

        The workspace is not asked, and no byte of a checkpoint is read.
        """
        self._note(subject)
        found = {item.tags.get(base.QUICK_KEY): item for item in known if item.complete}
        try:
            wanted = [self._narrowed(chosen) for chosen in self._chosen(subject, list(found.values()))]
        except MirrorError:
            return
        keys = [self._quick_key(subject, chosen.checkpoint) for chosen in wanted]
        if self._settings.hash or not all(key in found for key in keys):
            return
        for chosen, key in zip(wanted, keys, strict=True):
            self.receipt.checkpoint, self.receipt.step = chosen.checkpoint.path, chosen.checkpoint.step
            yield self._already(subject, chosen, found[key])
            self.receipt.next_version()

    def _note(self, subject: LocatedRun) -> None:
        self.receipt.run_id = subject.run_id
        self.receipt.framework = subject.found.layout.name

    def _chosen(self, subject: LocatedRun, known: list[Version]) -> Iterable[SelectedCheckpoint]:
        settings = self._settings
        quick = {item.tags.get(base.QUICK_KEY): item for item in known}

        def trusted(checkpoint: Checkpoint) -> bool:
            return (
                self._quick_key(subject, self._narrowed(SelectedCheckpoint(checkpoint)).checkpoint) in quick
            )

        wanted = choose(subject.tree, subject.run, settings.checkpoint, settings.strict, trusted)
        return self._harmless(subject, list(wanted), quick) if settings.refuse_pickle else wanted

    def _harmless(
        self, subject: LocatedRun, wanted: list[SelectedCheckpoint], quick: dict[str | None, Version]
    ) -> list[SelectedCheckpoint]:
        """Look at all before the first is sent; what an unchanged version says of one is not read again."""
        for chosen in wanted:
            checkpoint = self._narrowed(chosen).checkpoint
            version = quick.get(self._quick_key(subject, checkpoint))
            if version is None or not _judged_harmless(version):
                require_harmless(
                    inspect(subject.tree, checkpoint.files, checkpoint.weights, self._settings.allow),
                    checkpoint.path,
                )
        return wanted

    def _mirror(
        self,
        registry: Registry,
        experiment: str,
        subject: LocatedRun,
        chosen: SelectedCheckpoint,
        known: list[Version],
    ) -> Receipt:
        checkpoint = chosen.checkpoint
        self.receipt.checkpoint, self.receipt.step = checkpoint.path, checkpoint.step
        key = self._quick_key(subject, checkpoint)
        for version in known:
            if version.tags.get(base.QUICK_KEY) == key:
                self._require_intact(registry, version)
                return self._already(subject, chosen, version)

        decided = plan.decide(
            subject, chosen, self._settings, self._console, self._read(registry, subject, known)
        )
        for version in known:
            if version.tags.get(base.IDENTITY) == decided.identity:
                self._require_intact(registry, version)
                registry.refresh(version, key)
                return self._already(subject, chosen, version)

        if decided.absent:
            self._console.say_once(f"{subject.run_id} has no {', no '.join(decided.absent)}")
        decided, left_out = apply_limits(decided, registry.limits)
        tags = self._tags(decided, key)
        writer = registry.begin(experiment, subject.run_id, tags)
        if isinstance(writer, Version):
            return self._already(subject, chosen, writer)
        self.receipt.mlflow_run_id = writer.run_id
        try:
            return self._write(decided, left_out, writer, tags)
        except Interrupted as stop:
            writer.abort("KILLED", stop.message)
            raise
        except BaseException as error:
            writer.abort("FAILED", str(error))
            raise

    def _write(
        self, decided: Plan, left_out: list[dict[str, str]], writer: Writer, tags: dict[str, str]
    ) -> Receipt:
        tree, receipt = decided.subject.tree, self.receipt
        metrics = decided.metrics
        writer.log_params(decided.params)
        with self._console.stage("metrics", metrics.points, "points") as progress:
            writer.log_metrics(metrics.stream, progress)

        with self._console.stage("checkpoint", decided.manifest.bytes) as progress:
            moved = writer.put_model(tree, decided.manifest, progress)
        uploads = [
            Upload(path, f"tensorboard/{plan.artifact_path(path)}", tree.size(path))
            for path in ([] if self._settings.no_event_files else decided.event_files)
        ]
        with self._console.stage("event files", sum(upload.bytes for upload in uploads)) as progress:
            sent = writer.put_files(tree, uploads, progress)
        receipt.bytes_sent, receipt.bytes_copied = moved.sent + sent, moved.copied
        decided.warnings.extend(moved.warnings)
        description = model_card.write(decided, self._settings.tags)
        provenance = statement.as_json(decided)
        texts = {
            "manifest.json": decided.manifest.as_json(),
            "safety.json": decided.safety.as_json(),
            statement.ARTIFACT: provenance,
            "MODEL_CARD.md": description,
        }
        if self._signed is not None:
            name, signed = self._signed
            texts[name] = signed(provenance)
        if metrics.renamed:
            texts["metric_names.json"] = json.dumps(metrics.renamed, indent=2, ensure_ascii=False) + "\n"
        writer.put_texts(texts)
        plan.require_unchanged(decided.subject, [item.source for item in decided.manifest.items])

        version = writer.register(description, tags)
        decided.warnings.extend(text for text in writer.warnings if text not in decided.warnings)
        self._fill(decided, left_out, version)
        writer.put_texts({"receipt.json": receipt.whole()})
        writer.finish(version)
        return receipt

    def _require_intact(self, registry: Registry, version: Version) -> None:
        """With --hash, look at what the registry has of a version that is mirrored already.

        Raises:
            DataError: it is not what was mirrored.
        """
        if not self._settings.hash:
            return
        reader = registry.version_reader(version)
        if changed := reader.changed(pinned_manifest(version, reader)):
            raise DataError(
                f"version {version.number} of {version.model} is not what was mirrored any more: "
                f"{', '.join(changed[:20])}",
                f"restore it with: aml-mirror repair {version.model}:{version.number}",
            )

    def _read(self, registry: Registry, subject: LocatedRun, known: list[Version]) -> bool:
        # A version that was hashed, from a volume perhaps, can only be recognised by hashing again.
        hashed = any(version.tags.get(base.INTEGRITY) == "sha256" for version in known)
        return self._settings.hash or hashed or not required_type(self._settings).can_copy(subject.source)

    def _narrowed(self, chosen: SelectedCheckpoint) -> SelectedCheckpoint:
        return plan.narrowed(chosen, self._settings)

    def _quick_key(self, subject: LocatedRun, checkpoint: Checkpoint) -> str:
        return quick_key(subject.tree, subject.run_id, checkpoint.path, checkpoint.files)

    def _tags(self, decided: Plan, key: str) -> dict[str, str]:
        settings, subject = self._settings, decided.subject
        tags = {
            **{name: str(redaction.value(name, value)) for name, value in settings.tags.items()},
            base.RUN_ID: subject.run_id,
            base.OUTPUT_DIR: subject.source.uri,
            base.FRAMEWORK: settings.framework_tag or subject.found.layout.name,
            base.SOURCE: settings.source_tag or ("osmo-replay" if settings.replay_run_id else "osmo-mirror"),
            base.CHECKPOINT: decided.checkpoint.path,
            base.MANIFEST_SHA256: decided.manifest.sha256,
            base.INTEGRITY: decided.manifest.integrity,
            base.SAFETY: decided.safety.verdict,
            base.SAFETY_SCANNER: SCANNER,
            base.IDENTITY: decided.identity,
            base.QUICK_KEY: key,
            base.MODEL_NAME: decided.model_name,
        }
        if decided.checkpoint.step is not None:
            tags[base.STEP] = str(decided.checkpoint.step)
        if decided.checkpoint.base_model:
            tags.setdefault(base.BASE_MODEL, decided.checkpoint.base_model)
        if settings.replay_run_id:
            tags[base.REPLAY] = "true"
            same = settings.replay_run_id == settings.run_id
            tags[base.REPLAY_SOURCE] = subject.run_id if same else settings.replay_run_id
        names = json.dumps(decided.metrics.renamed, ensure_ascii=False, separators=(",", ":"))
        if decided.metrics.renamed and len(names) <= 1000:
            tags[base.METRIC_NAMES] = names
        return tags

    def _already(self, subject: LocatedRun, chosen: SelectedCheckpoint, version: Version) -> Receipt:
        receipt = self.receipt
        receipt.outcome, receipt.exit_code = "already-mirrored", 0
        receipt.model_version, receipt.model_uri = version.number, base.model_uri(version)
        receipt.mlflow_run_id = version.tags.get(base.MLFLOW_RUN_ID)
        receipt.manifest_sha256 = version.tags.get(base.MANIFEST_SHA256)
        receipt.integrity = version.tags.get(base.INTEGRITY)
        receipt.safety = _word_of(version)
        receipt.files = len(chosen.checkpoint.files)
        receipt.bytes = sum(subject.tree.size(path) for path in chosen.checkpoint.files)
        receipt.warnings = [*subject.warnings, *plan.remarks(chosen)]
        if version.archived:
            receipt.warnings.append(
                f"version {version.number} of {version.model} is archived: restore it to use it"
            )
        receipt.seconds = round(time.monotonic() - self._started, 3)
        return receipt

    def _fill(self, decided: Plan, left_out: list[dict[str, str]], version: Version) -> None:
        receipt = self.receipt
        receipt.outcome, receipt.exit_code = "mirrored", 0
        receipt.model_version, receipt.model_uri = version.number, base.model_uri(version)
        receipt.manifest_sha256, receipt.integrity = decided.manifest.sha256, decided.manifest.integrity
        receipt.safety, receipt.allowed = decided.safety.verdict, decided.safety.allowed
        receipt.files, receipt.bytes = len(decided.manifest.items), decided.manifest.bytes
        receipt.series, receipt.points = len(decided.metrics.series), decided.metrics.points
        receipt.left_out = left_out
        receipt.warnings = decided.warnings
        receipt.seconds = round(time.monotonic() - self._started, 3)


def _word_of(version: Version) -> str | None:
    """The verdict of a version of any release, in the words of this one."""
    word = version.tags.get(base.SAFETY)
    return current(word) if word else None


def _judged_harmless(version: Version) -> bool:
    """Whether this very scanner judged a version harmless; what an older one said is judged again."""
    scanner = version.tags.get(base.SAFETY_SCANNER, FIRST_SCANNER)
    return scanner == SCANNER and version.tags.get(base.SAFETY) in HARMLESS


def _signing(settings: Settings) -> tuple[str, Callable[[str], str]] | None:
    """Read the key before anything is sent; returns the artifact's name and what makes it."""
    if not settings.sign_key:
        return None
    # Late: cryptography is needed for nothing else here.
    from aml_mirror.pipeline.provenance import signing

    key = signing.private_key(settings.sign_key)
    return signing.ARTIFACT, lambda text: signing.sign(text, key)


__all__ = ["Mirror", "MirrorError", "apply_limits"]
