"""Adds new log contents to a mirrored run: points, and the longer files.

1. The beginning of each log must be what was mirrored: its SHA-256 is compared.
2. Points beyond those that were sent are added to the same MLflow run. Series keep their names.
3. A later session may repeat steps that were sent. Sent points cannot be removed. For such a series, only
   points beyond its last step are added, and a warning says so.
4. The longer files are stored with the version and registered with the run. The tag is written last.

A killed update is finished with the sizes at which it began, so no point is sent twice.

Logs that have the same sizes but were touched are read again and compared, once. Then the tag has their new
stamps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from aml_mirror.core.errors import DataError
from aml_mirror.metrics.series import Metrics, read_metrics
from aml_mirror.metrics.summaries import Series
from aml_mirror.pipeline import log_state, training_times
from aml_mirror.pipeline.locate import LocatedRun
from aml_mirror.pipeline.log_state import LogState, LogTag, Recorder
from aml_mirror.pipeline.model_paths import artifact_path
from aml_mirror.registries import records
from aml_mirror.registries.base import LogWriter, Registry
from aml_mirror.registries.records import Point, Upload, Version
from aml_mirror.sources.growing import log_view


@dataclass(slots=True)
class Update:
    """What an update added."""

    points: int = 0
    bytes_sent: int = 0
    warnings: list[str] = field(default_factory=list)


def is_needed(subject: LocatedRun, version: Version) -> bool:
    """Tell, without a request, whether the sizes or stamps of the logs changed since they were mirrored.

    A version of an earlier release has no such state, and counts as unchanged.
    """
    tag = log_state.tag_of(version.tags)
    return tag is not None and not (_has_sizes(tag, subject) and _has_stamps(tag, subject))


def _has_sizes(tag: LogTag, subject: LocatedRun) -> bool:
    return tag.sizes == log_state.sizes_digest(log_state.log_sizes(subject.tree, subject.run))


def _has_stamps(tag: LogTag, subject: LocatedRun) -> bool:
    return tag.stamps in ("", _stamps(subject))


def _stamps(subject: LocatedRun) -> str:
    return log_state.stamps_digest(subject.tree, log_state.log_sizes(subject.tree, subject.run))


def update(
    registry: Registry, subject: LocatedRun, version: Version, with_files: bool = True
) -> Update | None:
    """Add the new log contents. None if there are none, or if another mirror added them meanwhile.

    Args:
        with_files: whether event files are stored, not just their points.

    Raises:
        DataError: the beginning of a log is not what was mirrored, or the state was changed.
    """
    writer = registry.continue_logs(version)
    if writer is None:
        return None
    try:
        done = _update(writer, subject, version, with_files)
    except BaseException:
        writer.close()
        raise
    writer.close()
    return done


def require_same_beginnings(registry: Registry, subject: LocatedRun, version: Version) -> None:
    """Compare the logs of a run with what was mirrored, if the version has a record of that.

    Raises:
        DataError: the beginning of a log is not what was mirrored.
    """
    tag = log_state.tag_of(version.tags)
    writer = registry.continue_logs(version) if tag else None
    if tag is None or writer is None:
        return
    try:
        before = log_state.parse(writer.read(tag.name, log_state.MAX_BYTES), tag)
    finally:
        writer.close()
    if before is not None:
        _check_beginnings(subject, before)


def _check_beginnings(subject: LocatedRun, before: LogState) -> list[str]:
    """Return warnings about missing logs. Raises DataError if a log was changed."""
    logs = log_state.log_sizes(subject.tree, subject.run)
    warnings = []
    for path, (size, digest) in before.files.items():
        if path not in logs:
            warnings.append(f"{path} no longer exists; what was mirrored from it stays")
        elif logs[path] < size or log_state.digest_of_start(subject.tree, path, size) != digest:
            raise DataError(
                f"the beginning of {path} is not what was mirrored: it was changed or truncated",
                "nothing was added; mirror the run under another --run-id if it is another training",
            )
    return warnings


def restore_state(registry: Registry, subject: LocatedRun, version: Version) -> bool:
    """Rebuild a lost log state from the run; False if the run's logs are different by now."""
    tag = log_state.tag_of(version.tags)
    writer = registry.continue_logs(version) if tag else None
    if tag is None or writer is None:
        return False
    try:
        logs = log_state.log_sizes(subject.tree, subject.run)
        for sizes in (logs, *writer.seen_sizes()):
            if tag.sizes != log_state.sizes_digest(sizes):
                continue
            tree = log_view(subject.tree, logs, sizes)
            if any(path not in tree.files for path in sizes):
                continue
            metrics = read_metrics(tree, [path for path in subject.run.logs if path in tree.files])
            if writer.limits.series is not None:
                metrics = metrics.limited(writer.limits.series)
            recorder = Recorder()
            for _ in recorder.recording(metrics.stream):
                pass
            state = log_state.state_of(tree, sizes, metrics, recorder)
            if state.tag(tag.stamps) == tag:
                writer.finish(tag.name, state.as_json(), str(tag))
                return True
    finally:
        writer.close()
    return False


def _update(writer: LogWriter, subject: LocatedRun, version: Version, with_files: bool) -> Update | None:
    done: Update | None = None
    # A killed update is finished first, then the newer contents are added.
    for _ in range(2):
        tag = log_state.tag_of(writer.tags)
        if tag is None or (_has_sizes(tag, subject) and _has_stamps(tag, subject)):
            return done
        now = log_state.log_sizes(subject.tree, subject.run)
        before = log_state.parse(writer.read(tag.name, log_state.MAX_BYTES), tag)
        if before is None:
            raise DataError(
                f"the log state of version {version.number} of {version.model} is missing or was changed",
                f"check the version with: aml-mirror verify {version.model}:{version.number}",
            )
        if _has_sizes(tag, subject):
            _check_beginnings(subject, before)
            writer.finish(tag.name, before.as_json(), str(replace(tag, stamps=_stamps(subject))))
            return done
        added = _advance(writer, subject, before, writer.begun(now), with_files)
        done = (
            added
            if done is None
            else Update(
                done.points + added.points,
                done.bytes_sent + added.bytes_sent,
                [*done.warnings, *(text for text in added.warnings if text not in done.warnings)],
            )
        )
    return done


def _advance(
    writer: LogWriter, subject: LocatedRun, before: LogState, sizes: dict[str, int], with_files: bool
) -> Update:
    """Update the version from one state of the logs to the one with these sizes."""
    logs = log_state.log_sizes(subject.tree, subject.run)
    tree = log_view(subject.tree, logs, sizes)
    done = Update(warnings=_check_beginnings(subject, before))
    metrics = _with_names(
        read_metrics(tree, [path for path in subject.run.logs if path in tree.files]), before
    )
    metrics, left_out = _limited(metrics, before, writer.limits)
    done.warnings += [*metrics.warnings, *left_out]
    superseded = _superseded(metrics, before)
    if superseded:
        done.warnings.append(
            f"a later session repeats points of {len(superseded)} series that were already sent: those stay, "
            f"and only points beyond the last step are added: {', '.join(sorted(superseded)[:20])}"
        )
    recorder = Recorder()

    def beyond() -> Iterator[Point]:
        recorder.series = {}
        for point in metrics.stream():
            name, known = point[0], before.series.get(point[0])
            one = recorder.take(point)
            if known is None:
                yield point
            elif name in superseded:
                if point[3] > known.last_step:
                    yield point
            elif one.points > known.points:
                yield point

    done.points = writer.log_points(beyond, log_state.sizes_digest(sizes))
    uploads = [
        Upload(path, f"tensorboard/{artifact_path(path)}", size)
        for path, size in sizes.items()
        if with_files and ".tfevents." in path and before.sizes.get(path) != size
    ]
    done.bytes_sent = writer.put_logs(tree, uploads)
    # The points of a series that no longer exists remain sent.
    for _ in beyond():
        pass
    state = log_state.state_of(tree, sizes, metrics, recorder)
    state = replace(state, series={**before.series, **state.series})
    trained = training_times.as_tag(metrics, tree) if metrics.times.last is not None else ""
    tag = state.tag(_stamps(subject))
    writer.finish(tag.name, state.as_json(), str(tag), trained)
    return done


def _with_names(metrics: Metrics, before: LogState) -> Metrics:
    """Return the metrics with each series under the name with which it was sent."""
    names = {(one.folder, one.tag): name for name, one in before.series.items()}
    taken, renamed = set(before.series), list[Series]()
    for series in metrics.series:
        name = names.get((series.folder, series.tag))
        if name is None:
            name, count = series.name, 1
            while name in taken:
                count += 1
                name = f"{series.name}_{count}"
            taken.add(name)
        renamed.append(replace(series, name=name))
    return replace(metrics, series=tuple(renamed))


def _limited(metrics: Metrics, before: LogState, limits: records.Limits) -> tuple[Metrics, list[str]]:
    """Keep the series that were sent, and add new ones as far as the registry has room."""
    known = tuple(series for series in metrics.series if series.name in before.series)
    new = tuple(series for series in metrics.series if series.name not in before.series)
    if limits.series is None or len(before.series) + len(new) <= limits.series:
        return metrics, []
    room = max(limits.series - len(before.series), 0)
    more = replace(metrics, series=new).limited(room) if room else replace(metrics, series=())
    left = sorted({series.name for series in new} - {series.name for series in more.series})
    return replace(metrics, series=(*known, *more.series)), [
        f"{len(left)} new series are left out, because a run can have {limits.series}: {', '.join(left[:20])}"
    ]


def _superseded(metrics: Metrics, before: LogState) -> set[str]:
    """Return the series whose first points differ from those that were sent."""
    recorder, right = Recorder(), set()
    for point in metrics.stream():
        known = before.series.get(point[0])
        one = recorder.take(point)
        if known is not None and one.points == known.points and one.digest.hexdigest() == known.digest:
            right.add(point[0])
    there = {series.name for series in metrics.series}
    return {name for name in before.series if name in there and name not in right}
