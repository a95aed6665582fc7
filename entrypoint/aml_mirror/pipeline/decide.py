"""Decides which checkpoints and bytes to mirror, and which of them a registry already has.

``plan``, ``mirror`` and ``backfill`` all use :class:`Decisions`, so that they agree. A plan depends on the
run, on the capabilities of the registry, and on its known versions. Nothing here writes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from aml_mirror.core.errors import MirrorError, Unreadable, UsageError
from aml_mirror.core.manifest import Manifest
from aml_mirror.core.run import Checkpoint
from aml_mirror.core.settings import Settings
from aml_mirror.formats.byte_checks import ByteChecks
from aml_mirror.metrics.series import Metrics, read_metrics
from aml_mirror.pipeline.apply_limits import apply_limits, check_file_count
from aml_mirror.pipeline.completeness import judge
from aml_mirror.pipeline.contradictions import contradictions
from aml_mirror.pipeline.current_verdict import current_verdict
from aml_mirror.pipeline.destination import Destination, intended_destination
from aml_mirror.pipeline.locate import LocatedRun, locate
from aml_mirror.pipeline.log_state import log_sizes
from aml_mirror.pipeline.log_update import is_needed
from aml_mirror.pipeline.model_paths import model_paths
from aml_mirror.pipeline.parameters import parameters
from aml_mirror.pipeline.plan import Plan
from aml_mirror.pipeline.select import SelectedCheckpoint, choose, narrow, pick
from aml_mirror.pipeline.task_name import contradiction
from aml_mirror.registries import keys
from aml_mirror.registries.base import Reading
from aml_mirror.registries.records import Version
from aml_mirror.safety.verdict import Safety, inspect, require_harmless
from aml_mirror.safety.words import CODE, SUSPICIOUS, UNKNOWN
from aml_mirror.sources.growing import log_view
from aml_mirror.sources.hashing import hash_files, listed_files, quick_key
from aml_mirror.sources.registry import open_source
from aml_mirror.sources.tree import Tree
from aml_mirror.support import redaction
from aml_mirror.support.progress import Console


@dataclass(frozen=True, slots=True)
class Recognized:
    """A checkpoint that already has a complete version."""

    version: Version
    checkpoint: Checkpoint
    quick_key: str
    files: int
    bytes: int
    warnings: tuple[str, ...]

    @property
    def is_moved(self) -> bool:
        """Whether the version has another quick key: the same bytes under other stamps."""
        return self.version.tags.get(keys.QUICK_KEY) != self.quick_key


class Decisions:
    """Decides what to do for one run. Each of its files is examined at most once.

    Args:
        located: the run.
        destination: where it goes.
        settings: of this call.
        console: shows the progress of the hashing.
        versions: complete versions of the run in the registry.
        read_once: returns the object that hashes and sends the files of a checkpoint at the same time, given
            the checkpoint's path, its quick key and its size in bytes. None: they are hashed first.
    """

    def __init__(
        self,
        located: LocatedRun,
        destination: Destination,
        settings: Settings,
        console: Console,
        versions: Sequence[Version] = (),
        read_once: Callable[[str, str, int], Reading | None] = lambda path, key, size: None,
    ) -> None:
        self._read_once = read_once
        self._located = located
        self._destination = destination
        self._settings = settings
        self._console = console
        self._versions = versions
        self._by_quick_key = {item.tags.get(keys.QUICK_KEY): item for item in reversed(versions)}
        self._checks = ByteChecks(located.tree)
        self.judged_anew: list[tuple[Version, dict[str, str]]] = []
        """Versions that an older scanner had judged, with the tags for the verdict of the current one."""
        self._problems: dict[Checkpoint, str] = {}
        self._safety: dict[Checkpoint, Safety] = {}

    def selected(self) -> Iterable[SelectedCheckpoint]:
        """Return the checkpoints to mirror, with the files that ``--include`` and ``--exclude`` leave.

        Raises:
            DataError: the requested checkpoint does not exist or is not complete, or ``--refuse-pickle``
                refuses it.
            UsageError: the request matches several checkpoints, or no weights are left.
            NotAllowed: a file may not be read.
        """
        settings, located = self._settings, self._located
        chosen = choose(
            located.tree, located.run, settings.checkpoint, settings.strict, self._is_trusted, self._problem
        )
        narrowed = (replace(item, checkpoint=self._narrowed(item.checkpoint)) for item in chosen)
        if not settings.refuse_pickle:
            return narrowed
        # All of them before the first is sent.
        wanted = list(narrowed)
        for item in wanted:
            key = self._quick_key(item.checkpoint)
            version = self._by_quick_key.get(key)
            if version is not None:
                scan = partial(self._examined, item.checkpoint)
                if current_verdict(version, scan, partial(self._judged_anew, key)).is_harmless:
                    continue
            require_harmless(self._examined(item.checkpoint), item.checkpoint.path)
        return wanted

    def decide(self, selected: SelectedCheckpoint) -> Plan | Recognized:
        """Return the plan for a checkpoint, or the version that it already has.

        No file is read if a version has the quick key of all. Otherwise they are hashed, unless the registry
        copies them by itself without a hash.

        Raises:
            DataError: a file changed while it was read, or the registry does not accept a version with so
                many files.
            UsageError: the logs suggest another checkpoint than the selected final one.
            NotAllowed: a file may not be read.
        """
        key = self._quick_key(selected.checkpoint)
        if version := self._by_quick_key.get(key):
            return self._recognized(selected, version, key)
        plan = self._plan(selected, key)
        for version in self._versions:
            if version.tags.get(keys.IDENTITY) == plan.identity:
                return self._recognized(selected, version, key)
        return plan

    def recognized(self) -> list[Recognized]:
        """Return a version for each requested checkpoint if the quick keys identify all of them; else
        nothing.

        No checkpoint is read.
        """
        try:
            wanted = list(self.selected())
        except MirrorError:
            return []
        quick_keys = [self._quick_key(item.checkpoint) for item in wanted]
        if self._settings.hash or not all(key in self._by_quick_key for key in quick_keys):
            return []
        if any(is_needed(self._located, self._by_quick_key[key]) for key in quick_keys):
            return []
        return [
            self._recognized(item, self._by_quick_key[key], key)
            for item, key in zip(wanted, quick_keys, strict=True)
        ]

    def _judged_anew(self, key: str, version: Version, tags: dict[str, str]) -> None:
        self._by_quick_key[key] = replace(version, tags={**version.tags, **tags})
        self.judged_anew.append((version, tags))

    def _plan(self, selected: SelectedCheckpoint, key: str) -> Plan:
        located, checkpoint, destination = self._located, selected.checkpoint, self._destination
        if destination.limits:
            check_file_count(checkpoint, destination.limits)
        safety = self._examined(checkpoint)
        framework = located.detected.layout.name
        against = contradictions(framework, located.run, checkpoint, self._metrics)
        if against.undecided and self._settings.checkpoint == "final":
            raise UsageError(against.undecided, pick(against.choices))
        self._checks = ByteChecks(located.tree)
        manifest = self._manifest(checkpoint, key)
        best, best_warnings = self._best(checkpoint)
        warnings = (
            *located.warnings,
            *remarks(selected),
            *self._checks.warnings,
            *against.warnings,
            *contradiction(located.run.params, self._settings.task_name),
            *self._metrics.warnings,
            # A known framework logs elsewhere, or was configured not to log.
            *([self._metrics.note] if self._metrics.note and framework == "generic" else []),
            *best_warnings,
            *_safety_warnings(safety),
        )
        plan = Plan(
            located,
            checkpoint,
            manifest,
            self._metrics,
            parameters(located.run.params, self._settings.parameters),
            best,
            destination.model_name,
            tuple(redaction.text(warning) for warning in warnings),
            safety,
            key,
        )
        return apply_limits(plan, destination.limits) if destination.limits else plan

    def _manifest(self, checkpoint: Checkpoint, key: str) -> Manifest:
        tree, paths = self._located.tree, model_paths(checkpoint)
        # A version that was hashed, from a volume perhaps, can only be recognized by hashing again.
        is_hashed = any(version.tags.get(keys.INTEGRITY) == "sha256" for version in self._versions)
        if self._destination.copies(self._located.source) and not (self._settings.hash or is_hashed):
            return listed_files(tree, paths)
        size = sum(map(tree.size, paths))
        if reading := self._read_once(checkpoint.path, key, size):
            with self._console.stage("hashing and sending", size) as progress:
                return reading.hash_files(tree, paths, progress, self._checks.of)
        with self._console.stage("hashing", size) as progress:
            return hash_files(tree, paths, progress, self._checks.of, self._settings.block_size)

    def _best(self, checkpoint: Checkpoint) -> tuple[Checkpoint | None, list[str]]:
        best = self._located.run.best
        if best is None or best.path == checkpoint.path:
            return best, []
        try:
            why = self._problem(self._located.tree, best)
        except Unreadable as error:
            why = error.message
        if why:
            return None, [f"the best checkpoint {best.path} is not complete: {why}"]
        return best, []

    def _recognized(self, selected: SelectedCheckpoint, version: Version, key: str) -> Recognized:
        checkpoint, located = selected.checkpoint, self._located
        size = sum(map(located.tree.size, checkpoint.files))
        warnings = (*located.warnings, *remarks(selected))
        if version.archived:
            told = f"version {version.number} of {version.model} is archived: restore it to use it"
            warnings = (*warnings, told)
        return Recognized(version, checkpoint, key, len(checkpoint.files), size, warnings)

    def _is_trusted(self, checkpoint: Checkpoint) -> bool:
        """Tell whether a version proves that a checkpoint was complete, and nothing changed since."""
        return self._quick_key(self._narrowed(checkpoint)) in self._by_quick_key

    def _narrowed(self, checkpoint: Checkpoint) -> Checkpoint:
        return narrow(checkpoint, self._settings.include, self._settings.exclude)

    def _quick_key(self, checkpoint: Checkpoint) -> str:
        located = self._located
        return quick_key(located.tree, located.run_id, checkpoint.path, checkpoint.files)

    def _problem(self, tree: Tree, checkpoint: Checkpoint) -> str:
        if checkpoint not in self._problems:
            self._problems[checkpoint] = judge(tree, checkpoint)
        return self._problems[checkpoint]

    def _examined(self, checkpoint: Checkpoint) -> Safety:
        if checkpoint not in self._safety:
            self._safety[checkpoint] = inspect(
                self._located.tree, checkpoint.files, checkpoint.weights, self._settings.allow
            )
        return self._safety[checkpoint]

    @cached_property
    def _metrics(self) -> Metrics:
        return read_metrics(
            log_view(self._located.tree, log_sizes(self._located.tree, self._located.run)),
            self._located.run.logs,
        )


def plans(settings: Settings, console: Console) -> Iterator[Plan]:
    """Yield what a first mirror of each requested checkpoint would write, without asking the registry.

    Raises:
        MirrorError: the errors of a mirror before its first request.
    """
    destination = intended_destination(settings)
    located = locate(open_source(settings, console.say), settings)
    decisions = Decisions(located, destination, settings, console)
    for selected in decisions.selected():
        decision = decisions.decide(selected)
        if isinstance(decision, Plan):
            yield decision


def remarks(selected: SelectedCheckpoint) -> list[str]:
    """Say why checkpoints were skipped, and whether a chosen one is not listed by the layout."""
    said = [f"the checkpoint {path} was skipped: {why}" for path, why in selected.passed_over]
    if selected.is_unlisted:
        said.append(f"{selected.checkpoint.path} was selected by name: the layout does not list it")
    return said


def _safety_warnings(safety: Safety) -> list[str]:
    """Return warnings about code that loading may run, and about accepted files."""
    warnings = []
    if safety.verdict in (SUSPICIOUS, CODE, UNKNOWN):
        problems = list(safety.problems)
        means = {SUSPICIOUS: "is suspicious", CODE: "holds code", UNKNOWN: "contains something unknown"}
        warnings.append(
            f"the checkpoint {means[safety.verdict]}, {len(problems)} finding(s), the first: {problems[0]}"
        )
    warnings += [f"{item['path']} was accepted (--allow): {item['reason']}" for item in safety.allowed]
    return warnings
