"""decide.py: what is hashed, what is refused before that, and what a person has to decide. No registry."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aml_mirror.core.errors import DataError, Unreadable, UsageError
from aml_mirror.core.run import Checkpoint
from aml_mirror.pipeline import decide
from aml_mirror.pipeline.contradictions import Contradictions
from aml_mirror.pipeline.decide import Decisions, Recognized
from aml_mirror.pipeline.destination import Destination
from aml_mirror.pipeline.locate import locate
from aml_mirror.pipeline.plan import Plan
from aml_mirror.registries import keys
from aml_mirror.registries.records import Limits, Version
from aml_mirror.sources.local import LocalSource
from builders.runs import huggingface_run
from builders.shelf import CONSOLE, settings


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-1", points=3, size=8)


class WithETags(LocalSource):
    """A folder whose stamps count as ETags, so that a store could copy its files."""

    has_etags = True


def decided(
    run: Path, *versions: Version, limits: Limits | None = None, copies: bool = False, **more: Any
) -> Plan | Recognized:
    given = settings(run, **more)
    registry: Any = SimpleNamespace(limits=limits, can_copy=lambda source: copies)
    target = Destination("m", "m", registry)
    located = locate(WithETags(run), given)
    decisions = Decisions(located, target, given, CONSOLE, versions)
    (selected,) = decisions.selected()
    return decisions.decide(selected)


def planned(run: Path, *versions: Version, **more: Any) -> Plan:
    found = decided(run, *versions, **more)
    assert isinstance(found, Plan)
    return found


def test_more_files_than_a_version_can_have_are_refused_before_one_is_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(planned(run, limits=Limits(files=2)).manifest.items) == 2
    monkeypatch.setattr(decide, "hash_files", lambda *given: pytest.fail("the checkpoint is hashed"))
    with pytest.raises(DataError, match="has 2 files, but a version can have 1"):
        planned(run, limits=Limits(files=1))


def test_what_speaks_against_the_end_stops_only_who_asks_for_the_end(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Contradictions(("it may be older",), "two trainings", ("a", "b"))
    monkeypatch.setattr(decide, "contradictions", lambda *given: found)
    with pytest.raises(UsageError, match="two trainings") as raised:
        planned(run)
    assert raised.value.hint == "pass one of: --checkpoint a, --checkpoint b"
    assert "it may be older" in planned(run, checkpoint="checkpoint-20").warnings


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_best_checkpoint_that_cannot_be_judged_is_none(
    run: Path, monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    state = '{"best_model_checkpoint": "x/checkpoint-10", "best_metric": 0.5, "log_history": []}'
    (run / "checkpoint-20" / "trainer_state.json").write_text(state)

    def judge(tree: object, checkpoint: Checkpoint) -> str:
        if checkpoint.path == "checkpoint-10" and is_gone:
            raise Unreadable("it is gone", "")
        return ""

    monkeypatch.setattr(decide, "judge", judge)
    plan = planned(run)
    assert (plan.best is None) == is_gone
    told = "the best checkpoint checkpoint-10 is not complete: it is gone"
    assert (told in plan.warnings) == is_gone


def test_what_the_store_copies_is_hashed_only_where_a_hash_is_needed(run: Path) -> None:
    assert planned(run).manifest.integrity == "sha256"
    assert planned(run, copies=True).manifest.integrity == "copied"
    assert planned(run, copies=True, hash=True).manifest.integrity == "sha256"
    # A version that was hashed, from a volume perhaps, can only be recognised by its hash.
    for integrity, wanted in (("sha256", "sha256"), ("copied", "copied")):
        earlier = Version("m", "1", {keys.INTEGRITY: integrity, keys.STATE: keys.COMPLETE})
        assert planned(run, earlier, copies=True).manifest.integrity == wanted


def test_a_version_counts_by_its_quick_key_or_its_identity(run: Path) -> None:
    plan = planned(run)
    for tags, is_moved in (
        ({keys.QUICK_KEY: plan.quick_key}, False),
        ({keys.IDENTITY: plan.identity, keys.QUICK_KEY: "another"}, True),
    ):
        found = decided(run, Version("m", "3", tags))
        assert isinstance(found, Recognized) and found.is_moved == is_moved
        assert (found.version.number, found.files, found.quick_key) == ("3", 2, plan.quick_key)
    other = Version("m", "3", {keys.IDENTITY: "0" * 64, keys.QUICK_KEY: "another"})
    assert isinstance(decided(run, other), Plan)


def test_of_several_versions_with_one_quick_key_the_first_counts(run: Path) -> None:
    key = {keys.QUICK_KEY: planned(run).quick_key}
    found = decided(run, Version("m", "2", key), Version("m", "4", key))
    assert isinstance(found, Recognized) and found.version.number == "2"
