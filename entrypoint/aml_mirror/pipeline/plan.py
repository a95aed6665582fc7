"""What a mirror would do, decided from the run alone: nothing here writes anywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from posixpath import splitext

from aml_mirror.core.errors import DataError, MirrorError, Unreadable, UsageError
from aml_mirror.core.manifest import Manifest, ManifestEntry, identity
from aml_mirror.core.settings import Settings
from aml_mirror.layouts import DetectedRun, Run, find_run, unknown_beside
from aml_mirror.layouts.base import Checkpoint
from aml_mirror.metrics.series import Metrics, read_metrics
from aml_mirror.pipeline.completeness import judge
from aml_mirror.pipeline.contradictions import contradictions
from aml_mirror.pipeline.parameters import parameters
from aml_mirror.pipeline.select import SelectedCheckpoint, narrow, path_in, pick
from aml_mirror.safety.verdict import Safety, inspect, require_harmless
from aml_mirror.safety.words import CODE, SUSPICIOUS, UNKNOWN
from aml_mirror.sources.base import Source, run_id_of
from aml_mirror.sources.hashing import hash_files, listed_files
from aml_mirror.sources.tree import Tree
from aml_mirror.support import redaction
from aml_mirror.support.progress import Console

SCHEMA = "aml-mirror/plan/v1"
# What an artifact store may refuse in a name or read as something else: control characters, what URLs and
# Windows paths give a meaning (MLflow's validate_path_is_safe refuses "#" and decodes "%").
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f#%?\\:*"<>|\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]')

# Bytes of a name that ext4, XFS, NTFS and APFS take.
_MAX_NAME = 255
_BLANKS = re.compile(r"^\s+|\s+$")


@dataclass(slots=True)
class LocatedRun:
    """The run that was found in a source, before a checkpoint is chosen."""

    source: Source
    found: DetectedRun
    tree: Tree
    run: Run
    run_id: str
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Plan:
    """Everything that is decided about one checkpoint of one run."""

    subject: LocatedRun
    checkpoint: Checkpoint
    manifest: Manifest
    metrics: Metrics
    params: dict[str, str]
    best: Checkpoint | None
    """The run's best checkpoint, where it keeps one and that is complete."""
    model_name: str
    warnings: list[str]
    safety: Safety
    """Whether loading the checkpoint can run code that its maker chose."""

    @property
    def identity(self) -> str:
        """See :func:`aml_mirror.core.manifest.identity`."""
        return identity(self.subject.run_id, self.checkpoint.path, self.manifest.sha256)

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of the checkpoint's own files, of links that are not followed, and of leftovers."""
        tree = self.subject.tree
        return tuple(sorted({*self.checkpoint.left_out, *tree.refused.items(), *tree.leftovers.items()}))

    @property
    def absent(self) -> list[str]:
        """What the run does not have of: metrics, parameters, a best checkpoint; no warning says so too."""
        there = {
            "metrics": self.metrics.series or self.metrics.note in self.warnings,
            "parameters": self.params,
            "best checkpoint": self.subject.run.best,
        }
        return [name for name, value in there.items() if not value]

    def as_dict(self) -> dict[str, object]:
        """The object that ``plan --json`` prints."""
        best = self.best
        return {
            "schema": SCHEMA,
            "run_id": self.subject.run_id,
            "source": self.subject.source.uri,
            "framework": self.subject.found.layout.name,
            "run_root": self.subject.found.root or ".",
            "checkpoint": {
                "path": self.checkpoint.path,
                "step": self.checkpoint.step,
                "role": self.checkpoint.role,
                "complete": True,
            },
            "best": {"path": best.path, "step": best.step} if best else None,
            "files": [{"path": item.source, "bytes": item.bytes} for item in self._by_source()],
            "left_out_files": [{"path": path, "reason": reason} for path, reason in self.left_out],
            "metrics": {
                "series": len(self.metrics.series),
                "points": self.metrics.points,
                "points_read": self.metrics.points_read,
                "tags": list(self.metrics.tags),
                "skipped_records": self.metrics.skipped_records,
                "sources": self.metrics.sources,
            },
            "metrics_note": self.metrics.note or None,
            "params": self.params,
            "identity": self.identity,
            "manifest_sha256": self.manifest.sha256,
            "safety": self.safety.as_dict(),
            "model_name": self.model_name or None,
            "warnings": self.warnings,
        }

    @property
    def event_files(self) -> list[str]:
        """Paths of the TensorBoard files of the run."""
        return [path for path in self.subject.tree.files if ".tfevents." in path.rpartition("/")[2]]

    def _by_source(self) -> list[ManifestEntry]:
        return sorted(self.manifest.items, key=lambda item: item.source)


def find(source: Source, settings: Settings) -> LocatedRun:
    """List a source and find the one run in it.

    Raises:
        SourceNotFound, NotAllowed: see :meth:`Source.list`.
        DataError: it holds no run.
        UsageError: it holds several.
        NotAllowed, ServiceUnavailable: a part of it cannot be listed.
    """
    listing = source.scan()
    require_listed(listing.unknown, settings)
    whole = Tree(source, listing)
    return describe(whole, find_run(whole, settings.framework, path_in(settings.checkpoint)), settings)


def require_listed(unknown: dict[str, MirrorError], settings: Settings) -> None:
    """Check that nothing of a run is hidden: what cannot be listed may be its newest checkpoint.

    What ``--exclude`` names by its path or name may be hidden.

    Args:
        unknown: see :class:`aml_mirror.sources.base.Listing`.

    Raises:
        NotAllowed, ServiceUnavailable: something is hidden, for lack of access or by a fault.
    """
    for path, error in sorted(unknown.items()):
        forms = (path, path.rpartition("/")[2])
        if not any(fnmatchcase(form, pattern) for form in forms for pattern in settings.exclude):
            raise error


def describe(whole: Tree, found: DetectedRun, settings: Settings) -> LocatedRun:
    """Read what a run holds that was found in a tree."""
    source = whole.source
    tree = found.tree(whole)
    run = found.read(whole)
    subject = LocatedRun(source, found, tree, run, run_id_of(source) or settings.run_id or source.name)
    for path, why in sorted(tree.refused.items()):
        subject.warnings.append(f"{path} was left out: {why}")
    for path in tree.nameless:
        subject.warnings.append(
            f"{path} was left by an interrupted copy: a file may be missing, the newest checkpoint perhaps"
        )
    subject.warnings.extend(run.warnings)
    for root in [] if settings.framework else unknown_beside(whole, found):
        subject.warnings.append(
            f"{root} was not looked at; it may be another run, of no known framework: --source takes it alone"
        )
    return subject


def decide(
    subject: LocatedRun, chosen: SelectedCheckpoint, settings: Settings, console: Console, read: bool
) -> Plan:
    """Decide everything about one checkpoint: hash its files, read the metrics, flatten the parameters.

    Args:
        read: whether to read and hash the checkpoint; else the store's own word (ETags) is taken for it.

    Raises:
        DataError: a file changed while it was read.
        DataError: the checkpoint is suspicious, and ``--refuse-pickle`` refuses that.
        UsageError: what was logged points to another checkpoint than the one taken for the final one.
        NotAllowed: a file may not be read.
    """
    checkpoint = chosen.checkpoint
    safety = inspect(subject.tree, checkpoint.files, checkpoint.weights, settings.allow)
    if settings.refuse_pickle:
        require_harmless(safety, checkpoint.path)
    metrics = read_metrics(subject.tree, subject.run.logs)
    against = contradictions(subject.found.layout.name, subject.run, checkpoint, metrics)
    if against.undecided and settings.checkpoint == "final":
        raise UsageError(against.undecided, pick(against.choices))
    paths = model_paths(checkpoint)
    require_names(paths)
    if read:
        with console.stage("hashing", sum(map(subject.tree.size, paths))) as progress:
            manifest = hash_files(subject.tree, paths, progress)
    else:
        manifest = listed_files(subject.tree, paths)
    best, why = subject.run.best, ""
    if best and best.path != checkpoint.path and (why := _why_not(subject.tree, best)):
        best = None
    warnings = [*subject.warnings, *remarks(chosen), *against.warnings, *metrics.warnings]
    if metrics.note and subject.found.layout.name == "generic":
        # Of a known framework it is known that it logs elsewhere, or was told not to log.
        warnings.append(metrics.note)
    if why and subject.run.best:
        warnings.append(f"the best checkpoint {subject.run.best.path} is not complete: {why}")
    warnings.extend(safety_warnings(safety))
    return Plan(
        subject,
        checkpoint,
        manifest,
        metrics,
        parameters(subject.run.params, settings.parameters),
        best,
        settings.model_name,
        [redaction.text(warning) for warning in warnings],
        safety,
    )


def safety_warnings(safety: Safety) -> list[str]:
    """Say what loading the checkpoint may run, and which files a person accepts nevertheless."""
    warnings = []
    if safety.verdict in (SUSPICIOUS, CODE, UNKNOWN):
        problems = list(safety.problems)
        means = {SUSPICIOUS: "is suspicious", CODE: "holds code", UNKNOWN: "holds what is not known"}
        warnings.append(
            f"the checkpoint {means[safety.verdict]}, {len(problems)} finding(s), the first: {problems[0]}"
        )
    warnings += [f"{item['path']} was accepted (--allow): {item['reason']}" for item in safety.allowed]
    return warnings


def _why_not(tree: Tree, best: Checkpoint) -> str:
    try:
        return judge(tree, best)
    except Unreadable as error:
        return error.message


def remarks(chosen: SelectedCheckpoint) -> list[str]:
    """Say of each checkpoint that was passed over why, and of one that no layout lists that it is taken."""
    found = [f"the checkpoint {path} was passed over: {why}" for path, why in chosen.passed_over]
    if chosen.is_unlisted:
        found.append(f"{chosen.checkpoint.path} was taken since it was named: the layout does not list it")
    return found


def narrowed(chosen: SelectedCheckpoint, settings: Settings) -> SelectedCheckpoint:
    """Apply ``--include`` and ``--exclude``. Raises UsageError where they leave no weights."""
    return replace(chosen, checkpoint=narrow(chosen.checkpoint, settings.include, settings.exclude))


def model_paths(checkpoint: Checkpoint) -> dict[str, str]:
    """Map each file's path in the run to its path in the model version.

    A model version is what inference loads, so the checkpoint's folder becomes its root; companions from
    elsewhere in the run keep their path below the run's root. Characters that an artifact store cannot
    keep become ``_``.
    """
    folder = (
        checkpoint.path if checkpoint.path not in checkpoint.files else checkpoint.path.rpartition("/")[0]
    )
    prefix = "" if folder in ("", ".") else folder + "/"
    paths: dict[str, str] = {}
    taken: set[str] = set()
    # Files of the checkpoint's own folder come first: a companion yields where both want one name.
    for source in sorted(checkpoint.files, key=lambda path: (not path.startswith(prefix), path)):
        path = artifact_path(source.removeprefix(prefix))
        count = 1
        stem, suffix = splitext(path)
        while path in taken:
            count += 1
            path = f"{stem}~{count}{suffix}"
        taken.add(path)
        paths[source] = path
    return paths


def require_names(paths: dict[str, str]) -> None:
    """Check that the files of a version can be in one folder of a file system, where everybody loads it from.

    Args:
        paths: path in the run -> path in the model version.

    Raises:
        DataError: one is a file and a folder, as blobs can be, or a name is too long.
    """
    by_path = {path: source for source, path in paths.items()}
    for path, source in by_path.items():
        parts = path.split("/")
        for count in range(1, len(parts)):
            if other := by_path.get("/".join(parts[:count])):
                raise DataError(
                    f"{other!r} is a file, and a folder with {source!r} in it: no file system takes both",
                    "rename one of them, or leave it out with --exclude",
                )
        if longest := next((part for part in parts if len(part.encode()) > _MAX_NAME), ""):
            raise DataError(
                f"{source!r} has a name of {len(longest.encode())} bytes: file systems take {_MAX_NAME}",
                "rename it, or leave it out with --exclude",
            )


def artifact_path(path: str) -> str:
    """Return a path with what an artifact store cannot keep replaced by ``_``."""
    # A URL loses the blanks around a name.
    parts = [_BLANKS.sub("_", part) for part in _UNSAFE.sub("_", path).split("/")]
    return "/".join(_safe_name(part) for part in parts)


def _safe_name(part: str) -> str:
    # A run's own MLmodel would tell the registry's loader which code to import (mlflow.pyfunc.load_model).
    if part.lower() == "mlmodel":
        return part + "_"
    return "_" if part in (".", "..", "") else part


def require_unchanged(subject: LocatedRun, paths: list[str]) -> None:
    """Check that no file changed since it was listed, without reading one.

    Raises:
        DataError: one did.
    """
    if changed := subject.tree.source.changed(subject.tree.entry(path) for path in paths):
        raise DataError(
            f"{changed[0]} changed while the run was mirrored",
            "wait until the training has ended and nothing writes there any more, then run again",
        )
