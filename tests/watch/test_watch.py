"""Passes of a watcher with OSMO's REST API and a real MLflow server: what is mirrored, and when."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient

from aml_mirror.core.errors import UsageError
from aml_mirror.support.progress import Console
from aml_mirror.watch.journal import DAY
from aml_mirror.watch.watch import Watch
from builders.declared_runs import tdmpc2
from builders.runs import huggingface_run
from builders.saved import safetensors, write_json
from builders.watching import Watching, settings_of
from osmo_rest import TOKEN, OsmoRest
from osmo_world import OsmoWorld

NOW = datetime(2026, 11, 10, 12, 0, tzinfo=UTC).timestamp()
EVERY = 600.0
MIRROR_ON = {"labels": {"mirror": "on"}}


def small_run(root: Path, seed: int = 0) -> Path:
    """A Hugging Face run of one checkpoint and no event file."""
    folder = root / "checkpoint-1"
    safetensors(folder / "model.safetensors", seed=seed)
    write_json(folder / "config.json", {"model_type": "policy"})
    write_json(folder / "trainer_state.json", {"global_step": 1, "log_history": []})
    return root


Make = Callable[..., Watching]


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """The volume that pods mount, with a folder for each run."""
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume"


@pytest.fixture
def make(rest: OsmoRest, token_file: Path, volume: Path, mlflow_url: str, model_name: str) -> Make:
    """Make a watcher of workflows that are labelled mirror=on."""

    def made(
        *flags: str, model: str = model_name, opt_in: tuple[str, ...] = ("--label", "mirror=on")
    ) -> Watching:
        given = settings_of(
            *opt_in, "--model-name", model, "--tracking-uri", mlflow_url, "--osmo-url", rest.url,
            "--osmo-token-file", token_file, "--retry-for", "0s", "--experiment", model_name, *flags,
            OUTPUT_BASE=str(volume),
        )  # fmt: skip
        return Watching(given, NOW)

    return made


def versions(client: MlflowClient, model: str) -> dict[str, dict[str, str]]:
    """Run id -> tags of its version; one version per run."""
    found = {
        item.tags["osmo.run_id"]: dict(item.tags)
        for item in client.search_model_versions(f"name = '{model}'")
    }
    assert len(found) == len(client.search_model_versions(f"name = '{model}'"))
    assert all(tags["mirror.state"] == "complete" for tags in found.values())
    return found


def test_a_run_is_mirrored_once_with_its_labels(
    osmo: OsmoWorld, rest: OsmoRest, volume: Path, make: Make, client: MlflowClient, model_name: str
) -> None:
    small_run(volume / "train-1")
    small_run(volume / "train-2", 1)
    osmo.add("train-1", labels={"mirror": "on", "example.com/team": "arms"})
    osmo.add("train-2")
    osmo.add("train-3", status="RUNNING", **MIRROR_ON)
    osmo.add("train-4", status="FAILED", **MIRROR_ON)
    watching = make()
    summary = watching.one_pass()
    assert watching.outcomes() == [("train-1", "mirrored", 0)]
    counts = json.loads(summary.line())["workflows"]
    assert counts == {
        "listed": 4, "failed_on_osmo": 1, "not_ended": 1, "ended_before_since": 0, "not_selected": 1,
        "postponed": 0,
    }  # fmt: skip
    found = versions(client, model_name)
    assert list(found) == ["train-1"]
    labels = {key: value for key, value in found["train-1"].items() if key.startswith("label.")}
    assert labels == {"label.mirror": "on", "label.example.com/team": "arms"}
    run = client.get_run(found["train-1"]["mlflow_run_id"])
    assert {key: run.data.tags[key] for key in labels} == labels
    assert found["train-1"]["source"] == "osmo-mirror" and "osmo.replay" not in found["train-1"]

    # The next pass requests only the token and the list.
    rest.requests.clear()
    summary = watching.one_pass(EVERY)
    assert (summary.already, summary.found, watching.outcomes()) == (1, 1, [])
    assert [request.partition("?")[0] for request in rest.requests] == [
        "POST /api/auth/jwt/access_token",
        "GET /api/workflow",
    ]
    assert TOKEN not in watching.said.getvalue()

    # It completes later, with a log that another run wrote.
    small_run(volume / "train-3", 3)
    with osmo.changed() as state:
        state["workflows"]["train-3"]["status"] = "COMPLETED"
    watching.one_pass(EVERY)
    assert watching.outcomes() == [("train-3", "mirrored", 0)]


def test_what_failed_is_looked_at_again_in_a_day(
    osmo: OsmoWorld, volume: Path, make: Make, client: MlflowClient, model_name: str
) -> None:
    run = small_run(volume / "train-1")
    weights = run / "checkpoint-1" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5])
    osmo.add("train-1", **MIRROR_ON)
    osmo.add("train-2", {"train": [], "eval": []}, **MIRROR_ON)  # Declared nothing, and is on no volume.
    watching = make()
    assert watching.one_pass().exit_code == 65
    assert watching.outcomes() == [("train-1", "failed", 65), ("train-2", "failed", 66)]
    weights.write_bytes(whole)
    for _ in range(3):
        summary = watching.one_pass(EVERY)
        assert (summary.postponed, summary.exit_code, watching.outcomes()) == (2, 0, [])
    # A watcher on another machine reads the same journal. One that makes different versions does not.
    assert make().one_pass().postponed == 2
    assert make("--checkpoint", "best", "--once").one_pass().postponed == 0
    small_run(volume / "train-2", 1)
    watching.receipts.clear()
    watching.one_pass(DAY)
    assert sorted(watching.outcomes()) == [("train-1", "mirrored", 0), ("train-2", "mirrored", 0)]
    assert set(versions(client, model_name)) == {"train-1", "train-2"}
    assert make().one_pass().postponed == 0


def test_pauses_grow_while_a_service_fails(osmo: OsmoWorld, rest: OsmoRest, make: Make) -> None:
    osmo.add("train-1", {"train": ["azure://acct/runs/{{workflow_id}}"]}, **MIRROR_ON)
    watching = make()
    rest.fault = lambda method, path: (503, "busy") if "/api/workflow/" in path else None
    tried = []
    for number in range(16):
        watching.one_pass(EVERY if number else 0)
        tried += [number for run_id, outcome, code in watching.outcomes() if code == 75]
    # At the next pass, and then after one, two, four and eight passes.
    assert tried == [0, 1, 2, 4, 8]


def test_a_list_that_fails_is_asked_for_at_the_next_pass(
    osmo: OsmoWorld, rest: OsmoRest, volume: Path, make: Make
) -> None:
    small_run(volume / "train-1")
    osmo.add("train-1", **MIRROR_ON)
    watching = make()
    for status, text, code in (
        (500, '{"message": "Internal server error: x"}', 75),
        (429, "slow down", 75),
        (200, "<html>", 65),
        (401, "Jwt is expired", 77),
        (403, '{"message": "no"}', 77),
        (302, "", 78),
    ):
        rest.fault = lambda method, path, status=status, text=text: (  # type: ignore[misc]
            (status, text) if path.startswith("/api/workflow?") else None
        )
        summary = watching.one_pass()
        assert (summary.stop_code, summary.outcome) == (code, "stopped"), (status, summary.error)
    assert watching.outcomes() == []
    rest.fault = lambda method, path: None
    watching.one_pass()
    assert watching.outcomes() == [("train-1", "mirrored", 0)]


def test_an_old_token_is_exchanged_anew_and_a_wrong_one_is_named(
    osmo: OsmoWorld, rest: OsmoRest, make: Make, token_file: Path
) -> None:
    osmo.add("train-1", status="RUNNING", **MIRROR_ON)
    watching = make()
    answers = iter([(401, "Jwt is expired"), None])
    rest.fault = lambda method, path: next(answers, None) if path.startswith("/api/workflow?") else None
    assert watching.one_pass().outcome == "done"
    rest.fault = lambda method, path: None
    token_file.write_text("x" * len(TOKEN))
    summary = watching.one_pass()
    assert summary.stop_code == 77 and "Access Token is invalid" in str(summary.error)
    token_file.unlink()
    assert watching.one_pass().stop_code == 78


def test_ten_thousand_workflows_cost_at_most_twenty_requests(
    osmo: OsmoWorld, rest: OsmoRest, make: Make
) -> None:
    with osmo.changed() as state:
        state["workflows"] = {
            f"other-{number}": {"uuid": str(number), "status": "COMPLETED", "spec": "", "tasks": []}
            for number in range(10_000)
        }
    summary = make().one_pass()
    assert (summary.listed, summary.not_selected) == (10_000, 10_000)
    assert len(rest.requests) == 12  # The token, ten pages, and the one that is not full.


def test_since_counts_from_the_end_and_asks_for_a_day_with_a_margin(
    osmo: OsmoWorld, rest: OsmoRest, volume: Path, make: Make
) -> None:
    for name, submitted, ended in (
        ("long-1", "2026-10-20T00:00:00", "2026-11-09T00:00:00"),
        ("old-2", "2026-10-30T00:00:00", "2026-11-01T00:00:00"),
        ("ancient-3", "2026-01-30T00:00:00", "2026-11-09T00:00:00"),
    ):
        small_run(volume / name, int(name[-1]))
        osmo.add(name, submit_time=submitted, end_time=ended, **MIRROR_ON)
    watching = make("--since", "7d")
    summary = watching.one_pass()
    assert watching.outcomes() == [("long-1", "mirrored", 0)]
    assert (summary.listed, summary.ended_before) == (2, 1)
    # Seven days, the 30 days before them, and one day for time zones.
    assert any("submitted_after=2026-10-03T00%3A00%3A00" in request for request in rest.requests)
    assert make("--since", "7d", "--longest-run", "300d").one_pass().listed == 3


def test_opt_in_by_id_pool_user_and_shard(osmo: OsmoWorld, volume: Path, make: Make) -> None:
    for number, pool in enumerate(("a", "b", "b", "b")):
        small_run(volume / f"train-{number}", number)
        osmo.add(f"train-{number}", pool=pool, user="ada" if number < 3 else "bob")
    osmo.add("other-9", pool="b")
    watching = make("--pool", "b", "--user", "ada", "--exclude-run", "*-1", opt_in=("--match", "train-*"))
    assert watching.one_pass().listed == 3
    assert watching.outcomes() == [("train-2", "mirrored", 0)]
    shards = [make("--shard", f"{index}/2", opt_in=("--match", "train-*")) for index in (0, 1)]
    found = [shard.one_pass() for shard in shards]
    assert sum(one.found for one in found) == 4
    assert sum(one.other_shards for one in found) == 4


def test_the_model_is_named_by_a_template(
    osmo: OsmoWorld, volume: Path, make: Make, client: MlflowClient, model_name: str
) -> None:
    small_run(volume / "reach-1")
    tdmpc2(volume / "reach-2")
    osmo.add("reach-1", labels={"mirror": "on", "robot": "ur5e"})
    osmo.add("reach-2", labels={"mirror": "on"})
    watching = make(model=model_name + "-{workflow}-{label.robot}-{framework}")
    watching.one_pass()
    assert watching.outcomes() == [("reach-1", "mirrored", 0), ("reach-2", "failed", 64)]
    assert "has no label robot" in watching.said.getvalue()
    assert list(versions(client, f"{model_name}-reach-ur5e-huggingface")) == ["reach-1"]
    assert watching.one_pass(EVERY).already == 1
    # A run that a user has mirrored under a matching name is not mirrored again.
    watching = make(model=model_name + "-{workflow}-{framework}")
    watching.one_pass()
    assert watching.outcomes() == [("reach-2", "mirrored", 0)]
    assert list(versions(client, f"{model_name}-reach-tdmpc2")) == ["reach-2"]


def test_a_run_of_several_versions_that_was_killed_between_them(
    osmo: OsmoWorld, volume: Path, make: Make, client: MlflowClient, model_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    huggingface_run(volume / "train-1", points=1)
    osmo.add("train-1", **MIRROR_ON)
    watching = make("--checkpoint", "all")
    from aml_mirror.pipeline.mirror import Mirror

    real = Mirror._settled

    class Killed(BaseException):
        pass

    def once(self: Mirror, *arguments: object) -> object:
        if len(client.search_model_versions(f"name = '{model_name}'")) == 1:
            raise Killed
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Mirror, "_settled", once)
    with pytest.raises(Killed):
        watching.one_pass()
    monkeypatch.undo()
    assert len(client.search_model_versions(f"name = '{model_name}'")) == 1
    summary = make("--checkpoint", "all").one_pass()
    assert summary.mirrored == 1
    assert len(client.search_model_versions(f"name = '{model_name}'")) == 2
    assert make("--checkpoint", "all").one_pass().already == 1


def test_a_watcher_says_what_opted_in(make: Make) -> None:
    for flags, word in (((), "which workflows to mirror"), (("--match", "*", "--every", "0"), "--every")):
        settings = make(*flags, opt_in=()).settings
        with pytest.raises(UsageError, match=word):
            Watch(settings, Console(), print, print)


def test_an_osmo_without_labels_is_not_taken_for_one_where_nothing_opted_in(
    osmo: OsmoWorld, volume: Path, make: Make
) -> None:
    with osmo.changed() as state:
        state["version"] = "6.3"
    small_run(volume / "train-1")
    osmo.add("train-1")
    summary = make().one_pass()
    assert summary.stop_code == 64 and "no labels" in str(summary.error)
    watching = make(opt_in=("--match", "train-*"))
    watching.one_pass()
    assert watching.outcomes() == [("train-1", "mirrored", 0)]
    shutil.rmtree(volume / "train-1")
    assert watching.one_pass().already == 1
