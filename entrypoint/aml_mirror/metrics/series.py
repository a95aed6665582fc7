"""The metrics of a run: which points are sent, under which names, in which order.

Pass one reads every event file of the run and keeps a few numbers for each series. Pass two
(:meth:`Metrics.stream`) reads the files again and yields the points. Points are never held in memory, so
memory depends on the number of series and files, not on the length of the training.

A series is one tag in one folder, or in the folders of one writer's sessions
(:mod:`aml_mirror.metrics.sessions`). Pass one processes the sessions backwards, so superseded points are
recognised when they are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aml_mirror.metrics import log_files as framework_logs
from aml_mirror.metrics.readers.event_file import TRUNCATED
from aml_mirror.metrics.readers.other_logs import MAX_LOGS, NONE_FOUND, other_logs
from aml_mirror.metrics.series_names import assign_names, usefulness
from aml_mirror.metrics.sessions import Group, Reader, event_groups, log_groups, wandb_groups
from aml_mirror.metrics.summaries import FIRST_DATE, Restart, Series, Span, WallTimes, restart_of
from aml_mirror.metrics.unread_logs import unread_logs
from aml_mirror.sources.tree import Tree

# The most series of one run. The largest known runs have some thousand (a gradient norm per layer). One takes
# about 1 kB here. So a writer that makes a new tag at every step costs 10 MB, and does not exhaust the pod.
MAX_SERIES = 10_000
# The most names in one warning.
MAX_NAMED = 20
# The end of the year 9999, in seconds since the epoch: the last date that servers can represent.
MAX_WALL_TIME = 253_402_300_799.0


@dataclass(frozen=True, slots=True)
class Metrics:
    """The result of :func:`read_metrics`. ``series`` are sorted by name."""

    series: tuple[Series, ...]
    points_read: int
    """All readable scalar points, including superseded ones."""
    tags: tuple[str, ...]
    """The distinct original tags of these points, sorted; of at most ``MAX_SERIES`` series."""
    skipped_records: int
    sources: tuple[dict[str, Any], ...]
    """``{path, points}`` of each file in reading order, with ``ended`` and ``skipped_records`` if any."""
    warnings: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """The names of the series that a limit left out (:meth:`limited`), sorted."""
    restarts: tuple[Restart, ...] = ()
    """Sessions that began again, one per folder: event files of an older training are beside theirs."""
    times: WallTimes = field(default_factory=WallTimes)
    """The wall times of all points that were read."""
    _groups: tuple[Group, ...] = field(default=(), repr=False)

    @property
    def note(self) -> str:
        """If a run has no metrics: what a person should know about it; else empty."""
        return "" if self.points_read else NONE_FOUND

    @property
    def points(self) -> int:
        """The number of points that :meth:`stream` yields."""
        return sum(series.points for series in self.series)

    @property
    def renamed(self) -> dict[str, str]:
        """Name as sent -> original tag, if they differ, with its folder if several folders have the tag."""
        folders: dict[str, set[str]] = {}
        for series in self.series:
            folders.setdefault(series.tag, set()).add(series.folder)
        return {
            series.name: f"{series.tag} (in {series.folder or '.'})"
            if len(folders[series.tag]) > 1
            else series.tag
            for series in self.series
            if series.name != series.tag
        }

    def stream(self) -> Iterator[tuple[str, float, int, int]]:
        """Yield (name, value, milliseconds since the epoch, step) for each point to be sent.

        The order is fixed: folders by name, their sessions by time, points as written. If a point equals the
        one before it in all four values, its time is increased by one millisecond, because MLflow keeps equal
        rows once. Raises the errors of :meth:`Tree.open`; DataError if a file is no longer the one that pass
        one read.
        """
        before: dict[str, tuple[int, float, int]] = {}
        names = {(series.folder, series.tag): series.name for series in self.series}
        for group in self._groups:
            for session in group.sessions:
                with session.reading() as reader:
                    for tag, step, wall_time, value in reader:
                        name = names.get((group.label, tag))
                        if name is None or not session.keeps(tag, step):
                            continue
                        moment = _milliseconds(wall_time)
                        last = before.get(name)
                        if last and last[0] == step and _same(last[1], value) and last[2] >= moment:
                            moment = last[2] + 1
                        before[name] = (step, value, moment)
                        yield name, value, moment, step

    def limited(self, max_series: int) -> Metrics:
        """Return these metrics with at most ``max_series`` series, the most useful ones.

        Names and points of the remaining series are the same as without a limit. The most useful come first:
        success, reward, score and loss (evaluation before training, means and totals before parts, short
        names before long ones), other metrics of an evaluation, the rest, clocks and counters. Series with a
        single point come last; equal ones are sorted by name.
        """
        if len(self.series) <= max_series:
            return self
        ranked = sorted(self.series, key=lambda s: (s.points == 1, usefulness(s.tag), s.name))
        kept = {series.name for series in ranked[:max_series]}
        left_out = sorted(series.name for series in ranked[max_series:])
        warning = (
            f"{len(left_out)} of {len(self.series)} series are left out, because a run can have "
            f"{max_series}: {_listed(left_out)}"
        )
        return replace(
            self,
            series=tuple(series for series in self.series if series.name in kept),
            left_out=tuple(sorted([*self.left_out, *left_out])),
            warnings=(*self.warnings, warning),
        )


def read_metrics(tree: Tree, logs: Sequence[str] = ()) -> Metrics:
    """Read the metrics of the run whose root is ``tree`` (pass one).

    ``logs`` are the paths of the framework's own logs. They are read only if no event file has points. If
    they have none either, W&B's own log is read, and then any other file whose name is that of a log. Damage,
    and logs that are not read, become warnings. Raises the errors of :meth:`Tree.open` if a file changed or
    cannot be read.
    """
    reading = _Reading()
    groups = event_groups(tree)
    for group in groups:
        reading.read(group)
    if reading.points_read == 0 and logs:
        from_logs = log_groups(tree, framework_logs.newest(tree, list(logs)))
        for group in from_logs:
            reading.read(group)
        groups += from_logs
    if reading.points_read == 0:
        from_wandb = wandb_groups(tree)
        for group in from_wandb:
            reading.read(group)
        groups += from_wandb
    others = [path for path in other_logs(tree) if path not in logs]
    if len(others) > MAX_LOGS:
        reading.name([f"{others[0]} and {len(others) - 1} like it"], f"there are more than {MAX_LOGS}")
    elif reading.points_read == 0 and others:
        from_others = log_groups(tree, framework_logs.newest(tree, others))
        for group in from_others:
            reading.read(group)
        groups += from_others
    elif others:
        reading.leave(others)
    read = {session.path for group in groups for session in group.sessions}
    reading.name(unread_logs(tree, {*read, *logs, *others}))
    return reading.result(groups)


class _Reading:
    """Pass one."""

    def __init__(self) -> None:
        self.points_read = 0
        self._series: dict[tuple[str, str], Series] = {}
        self._tags: set[str] = set()
        self._skipped = 0
        self._sources: dict[str, dict[str, Any]] = {}
        self._warnings: list[str] = []
        self._overflow_points = 0
        self._overflow_tags: set[str] = set()
        self._odd_times = 0
        self._restarts: list[Restart] = []
        self._times = WallTimes()

    def read(self, group: Group) -> None:
        purged_from: int | None = None
        first_later: dict[str, int] = {}
        newest: dict[str, Span] = {}
        restart: Restart | None = None
        superseded = 0
        for session in reversed(group.sessions):
            session.purged_from = purged_from
            spans: dict[str, Span] = {}
            with session.reading() as reader:
                for tag, step, wall_time, value in reader:
                    series = self._series.get((group.label, tag)) or self._new(group.label, tag)
                    if series is None:
                        continue
                    span = spans.get(tag)
                    if span is None:
                        spans[tag] = Span(session.path, step, step)
                    else:
                        span.add(step)
                    if FIRST_DATE <= wall_time <= MAX_WALL_TIME:
                        self._times.add(wall_time)
                    if purged_from is not None and step >= purged_from:
                        superseded += 1
                    elif step >= first_later.get(tag, math.inf):
                        session.superseded_from[tag] = first_later[tag]
                        superseded += 1
                    else:
                        series.add(step, value)
                        if not 0 <= wall_time <= MAX_WALL_TIME:
                            self._odd_times += 1
                superseded += self._finished(session.path, reader)
            for tag, span in spans.items():
                first_later[tag] = min(span.first, first_later.get(tag, span.first))
            restart = restart or restart_of(spans, newest)
            newest = newest or spans
            if reader.purge_step is not None:
                purged_from = (
                    reader.purge_step if purged_from is None else min(purged_from, reader.purge_step)
                )
        for tag, span in newest.items():
            if (group.label, tag) in self._series:
                self._series[group.label, tag].newest = span
        if restart is not None:
            self._restarts.append(restart)
        if superseded:
            self._warnings.append(
                f"{superseded} points in {group.label or 'the run'} are not sent, because a resumed session "
                f"wrote them again ({len(group.sessions)} files)"
            )

    def _new(self, label: str, tag: str) -> Series | None:
        if len(self._series) >= MAX_SERIES:
            self._overflow_points += 1
            if len(self._overflow_tags) < MAX_NAMED:
                self._overflow_tags.add(tag)
            return None
        # One object for all sessions and folders, however often it is read.
        series = self._series[label, tag] = Series(name="", tag=tag, folder=label)
        self._tags.add(tag)
        return series

    def _finished(self, path: str, reader: Reader) -> int:
        """Record what a file yielded; return how many of its points it repeated itself."""
        restated = reader.superseded if isinstance(reader, framework_logs.LogFile) else 0
        source: dict[str, Any] = {"path": path, "points": reader.points + restated}
        self.points_read += reader.points + restated
        is_read = reader.points + restated > 0 or not isinstance(reader, framework_logs.LogFile)
        if reader.ended is not None:
            source["ended"] = reader.ended
            if reader.ended != TRUNCATED:
                how = "is read only in part" if is_read else "was not read"
                self._warnings.append(f"{path} {how}: {reader.ended}")
        if reader.skipped_records:
            source["skipped_records"] = reader.skipped_records
            self._skipped += reader.skipped_records
            self._warnings.append(
                f"{reader.skipped_records} damaged records of {path} are skipped"
                if is_read
                else f"{path} was not read: none of its entries has a step"
            )
        self._sources[path] = source
        return restated

    def leave(self, paths: list[str]) -> None:
        """Report logs that are not read because other files of the run have points."""
        self._warnings.append(
            f"{_listed(paths)} {'was' if len(paths) == 1 else 'were'} not read: the metrics come from the "
            "event files, or from the framework's own log"
        )

    def name(self, logs: list[str], why: str = "logs in this format are not supported") -> None:
        """Report logs that no reader supports."""
        if logs:
            was = "was" if len(logs) == 1 and " and " not in logs[0] else "were"
            self._warnings.append(f"{_listed(logs)} {was} not read: {why}")

    def result(self, groups: list[Group]) -> Metrics:
        if self._overflow_points:
            self._warnings.append(
                f"{self._overflow_points} points are not sent, because the run has more than {MAX_SERIES} "
                f"series; among them {_listed(sorted(self._overflow_tags))}"
            )
        if self._odd_times:
            self._warnings.append(
                f"{self._odd_times} points have a wall time that is not a valid date; it is set to the "
                "nearest valid one"
            )
        found = {key: series for key, series in self._series.items() if series.points}
        for key, name in assign_names(found).items():
            found[key].name = name
        return Metrics(
            series=tuple(sorted(found.values(), key=lambda series: series.name)),
            points_read=self.points_read,
            tags=tuple(sorted(self._tags)),
            skipped_records=self._skipped,
            sources=tuple(self._sources[session.path] for group in groups for session in group.sessions),
            warnings=tuple(self._warnings),
            restarts=tuple(self._restarts),
            times=self._times,
            _groups=tuple(groups),
        )


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _milliseconds(wall_time: float) -> int:
    if not wall_time >= 0:  # negative or NaN
        return 0
    return round(min(wall_time, MAX_WALL_TIME) * 1000)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    return f"{shown} and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else shown
