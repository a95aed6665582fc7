"""What is added to a version whose logs grew. The registry's record is a dictionary here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aml_mirror.core.errors import DataError
from aml_mirror.core.run import Run
from aml_mirror.metrics.series import read_metrics
from aml_mirror.pipeline import log_update
from aml_mirror.pipeline.log_state import (
    MAX_BYTES,
    Recorder,
    digest_of_start,
    log_sizes,
    stamps_digest,
    state_of,
)
from aml_mirror.pipeline.log_update import Update, is_needed, update
from aml_mirror.registries import keys
from aml_mirror.registries.records import Limits, Point, Upload, Version
from aml_mirror.sources.growing import log_view
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.runs import WALL_TIME, write_events


class Kept:
    """A :class:`aml_mirror.registries.base.LogWriter`, and the registry that returns it."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.limits = Limits()
        self.tags: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.points: list[tuple[str, int]] = []
        self.stored: dict[str, int] = {}
        self.closed = 0

    def mirrored(self) -> None:
        """Record the current state of the logs."""
        located = self.located()
        sizes = log_sizes(located.tree, located.run)
        logs = log_view(located.tree, sizes)
        metrics, recorder = read_metrics(logs), Recorder()
        for _ in recorder.recording(metrics.stream):
            pass
        state = state_of(logs, sizes, metrics, recorder)
        tag = state.tag(stamps_digest(located.tree, state.files))
        self.finish(tag.name, state.as_json(), str(tag))

    def located(self) -> Any:
        source = LocalSource(self.run)
        return SimpleNamespace(tree=Tree(source, source.scan()), run=Run([]), source=source)

    def update(self) -> Update | None:
        self.points.clear()
        registry: Any = SimpleNamespace(continue_logs=lambda version: self)
        return update(registry, self.located(), Version("m", "1", self.tags))

    def read(self, name: str, limit: int) -> bytes | None:
        assert limit == MAX_BYTES
        return self.texts[name].encode() if name in self.texts else None

    def begun(self, sizes: dict[str, int]) -> dict[str, int]:
        return sizes

    def seen_sizes(self) -> list[dict[str, int]]:
        return []

    def log_points(self, points: Callable[[], Iterator[Point]], target: str) -> int:
        first = list(points())
        assert list(points()) == first, "the same in each call"
        self.points = [(name, step) for name, _, _, step in first]
        return len(first)

    def put_logs(self, tree: Tree, uploads: list[Upload]) -> int:
        self.stored.update({upload.source: upload.bytes for upload in uploads})
        return sum(upload.bytes for upload in uploads)

    def finish(self, name: str, text: str, tag: str, trained: str = "") -> None:
        self.texts[name] = text
        self.tags = {**self.tags, keys.LOGS: tag}

    def close(self) -> None:
        self.closed += 1


def log(run: Path, tag: str, steps: range, session: int = 0, folder: str = "") -> Path:
    path = run / folder / f"events.out.tfevents.{int(WALL_TIME) + 10_000 * session}.vm.1.0"
    write_events(path, [(tag, step, float(step)) for step in steps], WALL_TIME + 10_000 * session)
    return path


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """A run of ten points that was mirrored."""
    found = Kept(tmp_path)
    log(tmp_path, "loss", range(10))
    found.mirrored()
    return found


def test_what_a_log_gained_is_added_once(kept: Kept) -> None:
    assert kept.update() is None and kept.closed == 1
    path = log(kept.run, "loss", range(14))
    assert is_needed(kept.located(), Version("m", "1", kept.tags))
    done = kept.update()
    assert done is not None and done.points == 4 and done.warnings == []
    assert kept.points == [("loss", step) for step in range(10, 14)]
    assert kept.stored == {path.name: path.stat().st_size}
    assert not is_needed(kept.located(), Version("m", "1", kept.tags))
    assert kept.update() is None


def test_a_later_session_adds_what_is_beyond_the_last_step_that_was_sent(kept: Kept) -> None:
    log(kept.run, "loss", range(5, 13), session=1)
    done = kept.update()
    assert done is not None
    assert kept.points == [("loss", step) for step in (10, 11, 12)]
    assert any("repeats points of 1 series" in text for text in done.warnings)


def test_a_session_that_goes_on_restates_nothing(kept: Kept) -> None:
    log(kept.run, "loss", range(10, 12), session=1)
    done = kept.update()
    assert done is not None and done.warnings == []
    assert kept.points == [("loss", 10), ("loss", 11)]


def test_a_series_keeps_its_name_and_a_new_one_gets_one_that_is_free(kept: Kept) -> None:
    next(kept.run.glob("events*")).unlink()
    log(kept.run, "loss", range(3), folder="eval")
    done = kept.update()
    assert done is not None and "no longer exists" in done.warnings[0]
    assert {name for name, _ in kept.points} == {"loss_2"}
    log(kept.run, "loss", range(5), folder="eval")
    assert kept.update() is not None
    assert kept.points == [("loss_2", 3), ("loss_2", 4)]


def test_new_series_beyond_what_a_run_takes_are_named(kept: Kept) -> None:
    kept.limits = Limits(series=2)
    for number, tag in enumerate(("reward", "clock", "speed")):
        log(kept.run, tag, range(4), session=number, folder=tag)
    done = kept.update()
    assert done is not None and "2 new series are left out, because a run can have 2" in done.warnings[-1]
    assert {name for name, _ in kept.points} == {"reward"}


@pytest.mark.parametrize("how", ["cut", "changed"])
def test_a_log_whose_beginning_is_another_one(kept: Kept, how: str) -> None:
    path = next(kept.run.glob("events*"))
    data = path.read_bytes()
    path.write_bytes(data[:-40] if how == "cut" else b"\0" + data[1:] + data)
    with pytest.raises(DataError, match=r"the beginning of .* is not what was mirrored"):
        kept.update()
    assert kept.points == [] and kept.closed == 1
    registry: Any = SimpleNamespace(continue_logs=lambda version: kept)
    with pytest.raises(DataError, match="the beginning of"):
        log_update.require_same_beginnings(registry, kept.located(), Version("m", "1", kept.tags))


@pytest.mark.parametrize("text", [None, "{}", "other"])
def test_a_state_that_is_not_the_one_that_is_named(kept: Kept, text: str | None) -> None:
    log(kept.run, "loss", range(14))
    ((name, whole),) = kept.texts.items()
    changed = whole.replace('"points": 10', '"points": 9') if text == "other" else text
    kept.texts = {} if changed is None else {name: changed}
    with pytest.raises(DataError, match="is missing or was changed"):
        kept.update()
    assert kept.points == []


def test_the_digest_of_a_start_is_of_all_its_bytes_or_of_none(kept: Kept) -> None:
    tree = kept.located().tree
    (path,) = tree.files
    size = tree.size(path)
    assert digest_of_start(tree, path, size) != digest_of_start(tree, path, size - 1) != ""
    assert digest_of_start(tree, path, size + 1) == ""
