"""What a mirror writes, and what it leaves if it fails: with a registry in a folder and no process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aml_mirror.core.errors import DataError, Interrupted
from aml_mirror.metrics.summaries import Series
from aml_mirror.pipeline import decide, publish
from aml_mirror.pipeline.locate import locate
from aml_mirror.pipeline.mirror import Mirror
from aml_mirror.pipeline.receipt import Progress
from aml_mirror.registries import keys
from aml_mirror.sources.registry import open_source
from builders.runs import huggingface_run, write_weights
from builders.shelf import CONSOLE, Shelf, ShelfWriter, mirror, settings, status


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-1", points=3, size=8)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf", "")


@pytest.mark.parametrize("stop", [DataError("no"), Interrupted(15), RuntimeError("a bug")])
def test_an_attempt_that_fails_closes_its_run(
    run: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    def fail(*given: Any) -> None:
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(ShelfWriter, "register", fail)
        with pytest.raises(type(stop)):
            mirror(run, shelf)
    assert status(shelf) == ("KILLED" if isinstance(stop, Interrupted) else "FAILED")
    assert shelf.all_of("m") == []
    # The lock was released, and the next attempt continues the run.
    assert mirror(run, shelf).outcome == "mirrored" and status(shelf) == "FINISHED"


@pytest.mark.parametrize("count", [2, 12])
@pytest.mark.parametrize("how", ["changed", "deleted"])
def test_a_file_that_changes_between_its_upload_and_the_registration(
    run: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, how: str, count: int
) -> None:
    for number in range(count - 2):
        (run / "checkpoint-20" / f"part-{number}.json").write_text("{}")
    weights = run / "checkpoint-20" / "model.safetensors"
    real = ShelfWriter.put_texts

    def put_texts(writer: ShelfWriter, texts: dict[str, str]) -> None:
        if "MODEL_CARD.md" in texts:
            weights.unlink()
            if how == "changed":
                write_weights(weights, seed=9, size=8)
        real(writer, texts)

    monkeypatch.setattr(ShelfWriter, "put_texts", put_texts)
    with pytest.raises(DataError, match=r"model\.safetensors changed while the run was mirrored"):
        mirror(run, shelf)
    assert shelf.all_of("m") == [] and status(shelf) == "FAILED"


@pytest.mark.parametrize("how", ["cut", "deleted", "replaced"])
def test_an_event_file_that_changes_before_its_upload(
    run: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    events = next((run / "runs").rglob("events*"))
    whole, real = events.read_bytes(), ShelfWriter.put_model

    def put_model(writer: ShelfWriter, *given: Any) -> Any:
        events.unlink()
        if how == "cut":
            events.write_bytes(whole[: len(whole) // 2])
        elif how == "replaced":
            events.mkdir()
        return real(writer, *given)

    monkeypatch.setattr(ShelfWriter, "put_model", put_model)
    with pytest.raises(DataError, match="events"):
        mirror(run, shelf)
    assert shelf.all_of("m") == [] and status(shelf) == "FAILED"


def test_event_files_are_left_out_where_a_person_says_so(run: Path, shelf: Shelf) -> None:
    mirror(run, shelf, no_event_files=True)
    assert not list(shelf.folder.rglob("*tfevents*"))
    assert len(json.loads(next(shelf.folder.glob("files/*/metrics.json")).read_text())) == 3
    mirror(run, Shelf(shelf.folder.with_name("other"), ""))
    assert len(list(shelf.folder.with_name("other").rglob("*tfevents*"))) == 1


def test_secrets_of_tags_and_labels_are_masked(run: Path, shelf: Shelf) -> None:
    secret = "hunter2hunter2"
    given = {"robot": "ur5e", "api_key": secret}
    mirror(run, shelf, tags=given, run_labels={"team": "arms", "password": secret})
    (version,) = shelf.all_of("m")
    assert (version.tags["robot"], version.tags["label.team"]) == ("ur5e", "arms")
    assert secret not in json.dumps(version.tags) and "api_key" in version.tags
    assert not [path for path in shelf.folder.rglob("*.json") if secret in path.read_text()]


def test_bookkeeping_of_the_run_is_not_on_the_version(run: Path, shelf: Shelf) -> None:
    mirror(run, shelf)
    (version,) = shelf.all_of("m")
    assert not version.tags.keys() & keys.OF_THE_RUN_ALONE
    tags = json.loads(next(shelf.folder.glob("runs/*.json")).read_text())
    assert {keys.NOTE, keys.TRAINED} <= tags.keys()


@pytest.mark.parametrize(("count", "told"), [(3, True), (400, False)])
def test_names_of_metrics_that_were_changed_are_a_tag_unless_it_is_too_long(
    run: Path, count: int, told: bool
) -> None:
    (plan,) = decide.plans(settings(run), CONSOLE)
    series = tuple(Series(f"n{number}", f"n {number}", "") for number in range(count))
    plan = replace(plan, metrics=replace(plan.metrics, series=series))
    tags = publish.tags_of(plan, settings(run))
    assert (keys.METRIC_NAMES in tags) == told
    if told:
        assert json.loads(tags[keys.METRIC_NAMES]) == {"n0": "n 0", "n1": "n 1", "n2": "n 2"}


@pytest.mark.parametrize(("replayed", "source"), [("run-1", "learned"), ("run-9", "run-9")])
def test_a_replay_names_the_run_that_it_mirrors(
    run: Path, shelf: Shelf, replayed: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that the source corrected (a UUID) is the corrected one in the tag, too."""
    given = settings(run, run_id="run-1", replay_run_id=replayed)
    located = replace(locate(open_source(given, print), given), run_id="learned")
    (receipt,) = Mirror(
        given, CONSOLE, Progress(), registry=shelf, locate=lambda source, settings: located
    ).run()
    (version,) = shelf.all_of("m")
    assert (receipt.run_id, version.tags[keys.REPLAY_SOURCE], version.tags[keys.SOURCE]) == (
        "learned",
        source,
        "osmo-replay",
    )


def test_a_version_is_hashed_where_every_file_of_it_was() -> None:
    def integrity(*stored: str | None) -> str:
        items = [SimpleNamespace(path=str(number)) for number in range(2)]
        plan: Any = SimpleNamespace(manifest=SimpleNamespace(items=items, integrity="copied"))
        files = {str(number): SimpleNamespace(sha256=digest) for number, digest in enumerate(stored)}
        moved: Any = SimpleNamespace(stored=files)
        return publish._integrity_of(plan, moved)

    assert integrity("0" * 64, "1" * 64) == "sha256"
    for stored in (("0" * 64, None), ("0" * 64,), ()):
        assert integrity(*stored) == "copied", stored
