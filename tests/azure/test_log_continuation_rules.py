"""How points reach a run of Azure ML once, whatever failed before. The run is in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aml_mirror.core.errors import DataError, MirrorError, ServiceUnavailable
from aml_mirror.registries import keys, log_sizes
from aml_mirror.registries.azureml import log_writer, metric_writer, retry_with_read_back, version_tags
from aml_mirror.registries.azureml.limits import LEAST_PARAM_VALUE, LIMITS
from aml_mirror.registries.azureml.log_writer import PROGRESS, AzureMLLogWriter
from aml_mirror.registries.azureml.metric_writer import MetricWriter
from aml_mirror.registries.records import Point, Upload
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.stored_version import sha256
from stored_in_memory import FOLDER, LOG, STATE, Stored

POINTS: list[Point] = [("loss", float(step), 1000 + step, step) for step in range(450)]


class Run:
    """One MLflow run. ``fails`` says of each request that writes whether it fails, and is carried out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.points: list[Point] = []
        self.tags: dict[str, str] = {}
        self.params: dict[str, str] = {}
        self.requests = 0
        self.fails: dict[int, bool] = {}
        self.refuses: Any = lambda points: None
        for module in (log_writer, metric_writer):
            monkeypatch.setattr(module, "log_batch", self.log)
        monkeypatch.setattr(retry_with_read_back, "time", SimpleNamespace(sleep=lambda seconds: None))

    def log(self, client: Any, run_id: str, points: list[Point], tags: dict[str, str]) -> None:
        if failure := self.refuses(points):
            raise failure
        self.requests += 1
        is_done = self.fails.get(self.requests)
        if is_done is not False:
            self.points += points
            self.tags |= tags
        if is_done is not None:
            raise ServiceUnavailable("no answer", "")

    def log_batch(self, run_id: str, params: Any = (), tags: Any = (), synchronous: bool = True) -> None:
        longest = max((len(param.value) for param in params), default=0)
        if longest > LEAST_PARAM_VALUE:
            raise ServiceUnavailable("a value exceeds the length that is allowed", "")
        self.params |= {param.key: param.value for param in params}

    def get_run(self, run_id: str) -> Any:
        return SimpleNamespace(data=SimpleNamespace(tags=dict(self.tags), params=dict(self.params)))

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.tags[key] = value


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(monkeypatch)


class Claim:
    lost = False
    released = 0

    def release(self) -> None:
        self.released += 1


def attempt(operation: Any) -> Any:
    """Try twice, as the workspace does for longer."""
    try:
        return operation()
    except ServiceUnavailable as failure:
        if failure.worth_trying_for == 0:
            raise
        return operation()


def continued(run: Run, stored: Stored, claim: Claim | None = None) -> AzureMLLogWriter:
    workspace = stored.workspace
    workspace.client, workspace.limits, workspace.retry = run, LIMITS, attempt
    return AzureMLLogWriter(workspace, stored.version, FOLDER, claim or Claim())  # type: ignore[arg-type]


@pytest.fixture
def stored() -> Stored:
    return Stored()


def all_of(points: list[Point] = POINTS) -> Iterator[Point]:
    return iter(points)


def test_points_that_a_log_gained_are_sent_once_however_often_it_is_begun(run: Run, stored: Stored) -> None:
    writer = continued(run, stored)
    assert writer.log_points(all_of, "a") == 450
    assert run.points == POINTS and run.requests == 3
    assert continued(run, stored).log_points(all_of, "a") == 450
    assert run.points == POINTS and run.requests == 3
    # Another update sends its own, even if it begins alike.
    run.points.clear()
    assert continued(run, stored).log_points(lambda: all_of(POINTS[:200]), "b") == 200
    assert continued(run, stored).log_points(all_of, "c") == 450
    assert run.points == [*POINTS[:200], *POINTS]


@pytest.mark.parametrize("is_done", [True, False])
def test_a_request_without_an_answer_is_not_carried_out_twice(
    run: Run, stored: Stored, is_done: bool
) -> None:
    run.fails = {2: is_done}
    assert continued(run, stored).log_points(all_of, "a") == 450
    assert run.points == POINTS and run.requests == (3 if is_done else 4)


def test_an_update_that_was_killed_continues_at_its_mark_unless_the_points_are_others(
    run: Run, stored: Stored
) -> None:
    run.fails = {2: False, 3: False}
    with pytest.raises(ServiceUnavailable):
        continued(run, stored).log_points(all_of, "a")
    assert run.points == POINTS[:200] and run.tags[PROGRESS].startswith("a:200:")
    assert continued(run, stored).log_points(all_of, "a") == 450 and run.points == POINTS
    run.tags[PROGRESS] = "a:200:other"
    assert continued(run, stored).log_points(all_of, "a") == 450
    assert run.points == [*POINTS, *POINTS]


def test_without_the_claim_no_point_is_sent_and_no_version_is_tagged(run: Run, stored: Stored) -> None:
    claim = Claim()
    writer, claim.lost = continued(run, stored, claim), True
    for write in (
        lambda: writer.log_points(all_of, "a"),
        lambda: writer.finish("logs-x.json", "{}", "4:x:y"),
        lambda: writer.begun({"events": 1}),
    ):
        with pytest.raises(ServiceUnavailable, match="another mirror took over the MLflow run r"):
            write()
    assert run.points == [] and stored.tags[keys.LOGS] == f"3:{sha256(STATE)}:x"
    writer.close()
    assert claim.released == 1


class LostAfter(Claim):
    """A claim that is lost after this many questions."""

    def __init__(self, count: int) -> None:
        self.count = count

    @property
    def lost(self) -> bool:  # type: ignore[override]
        self.count -= 1
        return self.count < 0


def test_a_claim_that_is_lost_before_the_tag_leaves_the_tag(run: Run, stored: Stored) -> None:
    before = stored.tags[keys.LOGS]
    with pytest.raises(ServiceUnavailable, match="another mirror took over"):
        continued(run, stored, LostAfter(2)).finish("logs-x.json", "{}", "4:x:y")
    assert stored.tags[keys.LOGS] == before
    assert f"{FOLDER.own}.logs-x.json" in stored.blobs.data


def test_a_longer_log_replaces_the_shorter_one_and_its_digest(
    run: Run, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "events").write_bytes(LOG + b"more")
    source = LocalSource(tmp_path)
    tree = Tree(source, source.scan())
    referred: list[str] = []
    references = SimpleNamespace(refer=lambda path, store, blob: referred.append(blob))
    monkeypatch.setattr(log_writer, "RunArtifacts", lambda *given: object())
    monkeypatch.setattr(log_writer, "ArtifactReferences", lambda *given: references)
    info = SimpleNamespace(artifact_uri="", experiment_id="7")
    found = run.get_run("r")
    monkeypatch.setattr(run, "get_run", lambda run_id: SimpleNamespace(info=info, data=found.data))
    uploads = [Upload("events", "tensorboard/events", len(LOG) + 4)]
    # An update that was killed has stored it.
    for sent in (len(LOG) + 4, 0):
        update = continued(run, stored)
        assert update.put_logs(tree, uploads) == sent
    assert referred == [f"{FOLDER.own}/tensorboard/events"] * 2
    assert "wrong mirror/tensorboard/events" in stored.problems()
    update.finish("logs-x.json", "{}", f"4:{sha256(b'{}')}:y")
    assert stored.tags[version_tags.STORED] != stored.tags[version_tags.STORED_SHA256]
    stored.blobs.put(f"{FOLDER.own}.logs-{sha256(b'{}')}.json", b"{}")
    assert stored.problems() == []


def test_the_tag_of_an_update_is_written_after_its_state(run: Run, stored: Stored) -> None:
    run.tags[keys.TRAINED] = "then"
    writer = continued(run, stored)
    writer.finish("logs-x.json", "{}", "4:x:y", "then")
    assert stored.blobs.data[f"{FOLDER.own}.logs-x.json"] == b"{}"
    assert stored.tags[keys.LOGS] == writer.tags[keys.LOGS] == "4:x:y"
    assert version_tags.STORED not in stored.tags


def test_an_update_reads_no_further_than_its_first_attempt(run: Run, stored: Stored) -> None:
    first, later = {"events": 7}, {"events": 9}
    assert continued(run, stored).begun(first) == first
    assert continued(run, stored).begun(later) == first
    assert continued(run, stored).seen_sizes() == [first, {}]
    # Sizes of an older update say nothing about this one.
    stored.tags[keys.LOGS] = "5:x:y"
    assert continued(run, stored).begun(later) == later
    stored.blobs.put(f"{FOLDER.own}.{log_sizes.BEGUN}", b"[]")
    assert continued(run, stored).seen_sizes() == [{}]


class Writer(MetricWriter):
    def _release(self) -> None:
        return


def writer(run: Run, claim: Claim | None = None, adopted: bool = False) -> Writer:
    workspace: Any = SimpleNamespace(client=run, limits=LIMITS, retry=attempt, notice=lambda text: None)
    data = SimpleNamespace(tags=dict(run.tags), params=dict(run.params))
    found: Any = SimpleNamespace(info=SimpleNamespace(run_id="r"), data=data)
    return Writer(workspace, found, claim or Claim(), {}, adopted)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_done", [True, False])
def test_a_batch_of_a_first_mirror_without_an_answer_is_not_carried_out_twice(
    run: Run, is_done: bool
) -> None:
    run.fails = {2: is_done}
    writer(run).log_metrics(all_of, lambda count: None)
    assert sorted(run.points, key=lambda point: point[3]) == POINTS
    assert run.requests == (3 if is_done else 4)


def test_values_that_are_not_finite_are_left_out_where_they_are_refused(run: Run) -> None:
    points: list[Point] = [*POINTS[:3], ("loss", math.nan, 9, 9), ("loss", math.inf, 10, 10)]
    writer(run).log_metrics(lambda: all_of(points), lambda count: None)
    assert len(run.points) == 5
    run.points.clear()
    run.refuses = lambda given: (
        DataError("a value is wrong", "") if any(not math.isfinite(one[1]) for one in given) else None
    )
    refused = writer(run)
    refused.log_metrics(lambda: all_of([*points, *[(f"s{n}", math.nan, 1, 1) for n in range(9)]]), print)
    assert run.points == POINTS[:3]
    assert refused.warnings == ["metric values that are not finite were left out: a value is wrong"]


def test_a_refusal_of_finite_values_is_an_error(run: Run) -> None:
    run.refuses = lambda given: DataError("the run is deleted", "")
    with pytest.raises(DataError, match="the run is deleted"):
        writer(run).log_metrics(all_of, lambda count: None)


def test_a_parameter_that_is_too_long_is_cut_and_told(run: Run) -> None:
    run.params["lr"] = "1"
    adopted = writer(run, adopted=True)
    adopted.log_params({"lr": "2", "long": "x" * 400, "short": "y"})
    assert run.params["lr"] == "1" and run.params["short"] == "y"
    assert len(run.params["long"]) == LEAST_PARAM_VALUE and "cut: 400 characters" in run.params["long"]
    assert adopted.warnings[0].startswith(f"parameters were cut to {LEAST_PARAM_VALUE} characters")


def test_a_lost_claim_ends_parameters_and_points(run: Run) -> None:
    claim = Claim()
    claim.lost = True
    for write in (
        lambda: writer(run, claim).log_params({"lr": "1"}),
        lambda: writer(run, claim).log_metrics(all_of, lambda count: None),
    ):
        with pytest.raises(MirrorError, match="another mirror took over"):
            write()
    assert (run.params, run.points) == ({}, [])
