"""What a mirror recognises and what it reads, with a registry in a folder and no process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aml_mirror.core.errors import DataError
from aml_mirror.pipeline import decide, log_update
from aml_mirror.pipeline import mirror as mirror_module
from aml_mirror.pipeline.destination import destination
from aml_mirror.pipeline.locate import locate
from aml_mirror.pipeline.mirror import Mirror
from aml_mirror.pipeline.receipt import Progress
from aml_mirror.registries import keys
from aml_mirror.registries.records import Version
from aml_mirror.sources.registry import open_source
from builders.runs import huggingface_run
from builders.shelf import CONSOLE, Shelf, ShelfReader, mirror, settings


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-1", points=3, size=8)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf", "")


def change(shelf: Shelf, **tags: str) -> Version:
    """Change tags of the only version, as another program may."""
    (version,) = shelf.all_of("m")
    shelf.annotate(version, {name.replace("_", "."): text for name, text in tags.items()})
    return version


def touch(run: Path) -> None:
    for path in run.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail if a checkpoint is read."""
    monkeypatch.setattr(decide, "hash_files", lambda *given: pytest.fail("the checkpoint is hashed"))
    yield


def test_what_is_mirrored_is_recognised_without_reading_it(
    run: Path, shelf: Shelf, request: pytest.FixtureRequest
) -> None:
    assert mirror(run, shelf).outcome == "mirrored"
    request.getfixturevalue("unread")
    again = mirror(run, shelf)
    assert (again.outcome, again.model_version, again.bytes_sent) == ("already-mirrored", "1", 0)


def test_an_incomplete_version_is_never_recognised(run: Path, shelf: Shelf) -> None:
    mirror(run, shelf)
    change(shelf, mirror_state=keys.INCOMPLETE)
    again = mirror(run, shelf)
    assert (again.outcome, again.model_version) == ("mirrored", "1")
    assert [version.complete for version in shelf.all_of("m")] == [True]


def test_what_was_only_touched_is_hashed_once(
    run: Path, shelf: Shelf, request: pytest.FixtureRequest
) -> None:
    mirror(run, shelf)
    touch(run)
    assert mirror(run, shelf).outcome == "already-mirrored"
    request.getfixturevalue("unread")
    assert mirror(run, shelf).outcome == "already-mirrored"


def test_another_mirror_that_finished_it_meanwhile_is_believed(
    run: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror(run, shelf)
    # As if its version had been registered after the lookup.
    monkeypatch.setattr(shelf, "versions", lambda *given: [])
    assert mirror(run, shelf).outcome == "already-mirrored"
    assert len(shelf.all_of("m")) == 1


@pytest.mark.parametrize("what", ["file", "own"])
def test_hash_compares_what_is_stored(
    run: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    mirror(run, shelf)
    assert mirror(run, shelf, hash=True).outcome == "already-mirrored"
    if what == "own":
        problems = [("mirror/MODEL_CARD.md", "why")], ["mirror/safety.json"]
        monkeypatch.setattr(ShelfReader, "own_problems", lambda self: problems)
    else:
        (stored,) = shelf.folder.glob("files/*/model/config.json")
        stored.write_text("[]")
    named = "mirror/MODEL_CARD.md, mirror/safety.json" if what == "own" else "config.json"
    with pytest.raises(DataError, match=f"is no longer what was mirrored: {named}$"):
        mirror(run, shelf, hash=True)
    # Without it, nobody looks.
    assert mirror(run, shelf).outcome == "already-mirrored"


def test_hash_compares_the_logs_of_the_run_too(
    run: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror(run, shelf)
    compared: list[str] = []
    monkeypatch.setattr(
        log_update,
        "require_same_beginnings",
        lambda registry, located, version: compared.append(version.number),
    )
    mirror(run, shelf)
    assert compared == []
    mirror(run, shelf, hash=True)
    assert compared == ["1"]


def test_a_version_whose_bytes_the_service_copied_is_recognised(
    run: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Version("m", "7", {keys.QUICK_KEY: "another", keys.STATE: keys.COMPLETE})
    asked: list[int] = []

    def copied_version(registry: object, plan: object, versions: list[Version]) -> Version:
        asked.append(len(versions))
        return copied

    monkeypatch.setattr(mirror_module, "copied_version", copied_version)
    monkeypatch.setattr(shelf, "refresh", lambda version, key: asked.append(len(key)))
    assert mirror(run, shelf).model_version == "7"
    # Its quick key is noted, so that the next mirror need not hash.
    assert asked == [0, 64]


def test_a_checkpoint_is_sent_while_it_is_hashed_only_where_there_is_no_version_of_it(run: Path) -> None:
    class ReadsOnce(Shelf):
        def read_once(self, source: object, model: str, quick_key: str, size: int) -> Any:
            return (model, quick_key, size)

    given = settings(run)
    located, target = locate(open_source(given, print), given), destination(given)
    begun = Version("m", "1", {keys.CHECKPOINT: "checkpoint-20", keys.STATE: keys.INCOMPLETE})
    reads = mirror_module._reader(ReadsOnce(run, ""), located, target, [begun])  # type: ignore[arg-type]
    assert reads("checkpoint-20", "key", 5) is None
    assert reads("checkpoint-10", "key", 5) == ("m", "key", 5)
    assert mirror_module._reader(Shelf(run, ""), located, target, [])("checkpoint-10", "key", 5) is None  # type: ignore[arg-type]


def test_a_dry_run_writes_nothing(run: Path, shelf: Shelf) -> None:
    planned = mirror(run, shelf, dry_run=True)
    assert (planned.outcome, planned.manifest_sha256, planned.checkpoint) == (
        "planned",
        None,
        "checkpoint-20",
    )
    assert planned.bytes > 0 and not shelf.folder.exists()


def test_a_verdict_of_an_older_scanner_is_replaced_and_not_by_a_dry_run(run: Path, shelf: Shelf) -> None:
    mirror(run, shelf)
    change(shelf, safety_scanner="1")
    mirror(run, shelf, refuse_pickle=True, dry_run=True)
    assert keys.SAFETY_NOW not in shelf.all_of("m")[0].tags
    mirror(run, shelf, refuse_pickle=True)
    assert shelf.all_of("m")[0].tags[keys.SAFETY_NOW] == "safetensors"


def test_a_pickle_is_refused_before_anything_is_sent(run: Path, shelf: Shelf) -> None:
    weights = run / "checkpoint-20" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    (run / "checkpoint-20" / "pytorch_model.bin").write_bytes(b"\x80\x02cos\nsystem\n.")
    with pytest.raises(DataError):
        mirror(run, shelf, refuse_pickle=True, checkpoint="checkpoint-20")
    assert not shelf.folder.exists()


def recognised(run: Path, shelf: Shelf, versions: list[Version], **more: Any) -> list[str | None]:
    given = settings(run, **more)
    located = locate(open_source(given, print), given)
    found = Mirror(given, CONSOLE, Progress(), registry=shelf).recognized(
        located, destination(given), shelf, versions
    )
    assert {receipt.outcome for receipt in found} <= {"already-mirrored"}
    return [receipt.model_version for receipt in found]


def test_a_backlog_is_recognised_by_quick_keys_alone(
    run: Path, shelf: Shelf, request: pytest.FixtureRequest
) -> None:
    for receipt in Mirror(settings(run, checkpoint="all"), CONSOLE, Progress(), registry=shelf).run():
        assert receipt.outcome == "mirrored"
    first, second = shelf.all_of("m")
    request.getfixturevalue("unread")
    assert recognised(run, shelf, [first, second], checkpoint="all") == ["1", "2"]
    # All or nothing.
    assert recognised(run, shelf, [first], checkpoint="all") == []
    assert recognised(run, shelf, [first, second], checkpoint="all", hash=True) == []
    incomplete = Version("m", "2", {**second.tags, keys.STATE: keys.INCOMPLETE})
    assert recognised(run, shelf, [first, incomplete], checkpoint="all") == []
    assert recognised(run, shelf, [first, second]) == ["2"]
    # Logs that changed have to be read.
    changed = Version("m", "2", {**second.tags, keys.LOGS: f"1:{'0' * 64}:{'1' * 64}:x"})
    assert recognised(run, shelf, [changed]) == []


def test_an_archived_version_is_told(run: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror(run, shelf)
    archived = [replace(version, archived=True) for version in shelf.all_of("m")]
    monkeypatch.setattr(shelf, "versions", lambda *given: archived)
    assert "version 1 of m is archived" in mirror(run, shelf).warnings[-1]


def test_a_best_checkpoint_that_cannot_be_read_is_told(
    run: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = '{"best_model_checkpoint": "x/checkpoint-10", "best_metric": 0.5, "log_history": []}'
    (run / "checkpoint-20" / "trainer_state.json").write_text(state)
    (plan,) = decide.plans(settings(run), CONSOLE)
    assert plan.best is not None and plan.best.path == "checkpoint-10"
    weights = run / "checkpoint-10" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    (plan,) = decide.plans(settings(run), CONSOLE)
    assert plan.best is None
    assert any(text.startswith("the best checkpoint checkpoint-10 is not complete") for text in plan.warnings)
