"""workspaces/mlflow/turn.py: in any order of requests, one mirror writes and the others find the work done.

Three mirrors start at once on a real MLflow database. Each stops before each of its requests, and a seed
decides which continues. So unusual orders are as likely as the usual ones, and a failure can be repeated.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from aml_mirror.registries import keys
from aml_mirror.registries.mlflow import bakery_lock
from aml_mirror.registries.mlflow.bakery_lock import BakeryLock
from aml_mirror.registries.mlflow.run_lease import CHOOSING, Keeper, Lease
from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry
from aml_mirror.registries.records import Version

MODEL, IDENTITY = "policy", "i" * 64
# All of them in `make test-kill`.
SEEDS = range(60) if os.environ.get("KILL") == "all" else range(0, 60, 3)
TAGS = {keys.MODEL_NAME: MODEL, keys.IDENTITY: IDENTITY, keys.STATE: keys.INCOMPLETE}


class Order:
    """Lets one of several threads continue at a time, in an order that a seed determines."""

    def __init__(self, seed: int, count: int) -> None:
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._waiting: set[int] = set()
        self._working = count
        self._next: int | None = None

    def step(self, who: int) -> None:
        """Wait for this thread's turn."""
        with self._changed:
            self._waiting.add(who)
            self._choose()
            assert self._changed.wait_for(lambda: self._next == who, 60)
            self._next = None
            self._waiting.discard(who)

    def leave(self) -> None:
        with self._changed:
            self._working -= 1
            self._choose()

    def _choose(self) -> None:
        if self._next is None and self._waiting and len(self._waiting) == self._working:
            self._next = self._random.choice(sorted(self._waiting))
            self._changed.notify_all()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    path = tmp_path_factory.mktemp("turn") / "prepared.db"
    shutil.copy(empty_database, path)
    client = MlflowClient(f"sqlite:///{path}", f"sqlite:///{path}")
    client.create_experiment(MODEL)
    client.create_registered_model(MODEL)
    return path


@pytest.fixture
def database(prepared: Path, tmp_path: Path) -> str:
    shutil.copy(prepared, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def finish(workspace: MlflowRegistry, run_id: str) -> None:
    """A writer's last steps, in order."""
    client = workspace.client
    workspace.retry(lambda: client.set_tag(run_id, keys.STATE, keys.COMPLETE))
    tags = {**TAGS, keys.STATE: keys.COMPLETE}
    workspace.retry(lambda: client.create_model_version(MODEL, f"runs:/{run_id}/model", run_id, tags=tags))
    workspace.retry(lambda: client.set_tag(run_id, keys.LEASE, ""))


@pytest.mark.parametrize("seed", SEEDS)
def test_one_writes_in_whatever_order_requests_arrive(
    database: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    count = 3
    order = Order(seed, count)
    here = threading.local()
    monkeypatch.setattr(bakery_lock, "time", SimpleNamespace(sleep=lambda seconds: order.step(here.who)))
    writing: list[int] = []
    ends: list[str] = []
    failures: list[BaseException] = []

    def work(who: int) -> None:
        here.who = who
        try:
            workspace = MlflowRegistry(database, 30, lambda text: None)
            whole: Callable[[Callable[[], Any]], Any] = workspace.retry

            def gated(request: Callable[[], Any]) -> Any:
                order.step(who)
                return whole(request)

            monkeypatch.setattr(workspace, "retry", gated)
            experiment_id = workspace.experiment(MODEL)
            found = BakeryLock(workspace, experiment_id, TAGS, lambda text: None).wait("run")
            if isinstance(found, Version):
                ends.append("already")
                return
            assert not writing, "two at once"
            writing.append(who)
            finish(workspace, found[0].info.run_id)
            writing.remove(who)
            ends.append("written")
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's
            failures.append(error)
        finally:
            order.leave()

    threads = [threading.Thread(target=work, args=(who,)) for who in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(ends) == ["already", "already", "written"]
    client = MlflowClient(database, database)
    experiment = client.get_experiment_by_name(MODEL)
    (run,) = client.search_runs([experiment.experiment_id])
    (version,) = client.search_model_versions(f"name = '{MODEL}'")
    assert version.run_id == run.info.run_id


def made_by(client: MlflowClient, note: str) -> str:
    experiment = client.get_experiment_by_name(MODEL)
    made = client.create_run(experiment.experiment_id, tags={**TAGS, keys.LEASE: note})
    time.sleep(0.01)
    return str(made.info.run_id)


def begun(database: str) -> tuple[MlflowRegistry, BakeryLock, list[str]]:
    workspace, said = MlflowRegistry(database, 30, lambda text: None), list[str]()
    return workspace, BakeryLock(workspace, workspace.experiment(MODEL), TAGS, said.append), said


def test_the_oldest_of_several_dead_runs_is_taken_up(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bakery_lock, "time", SimpleNamespace(sleep=lambda seconds: None))
    client = MlflowClient(database, database)
    dead = [made_by(client, ""), made_by(client, "no note"), made_by(client, "")]
    _, mine, said = begun(database)
    found = mine.wait("run")
    assert not isinstance(found, Version)
    assert (found[0].info.run_id, found[1]) == (dead[0], False)
    assert said == [f"continuing the MLflow run {dead[0]}, which an earlier mirror left RUNNING"]
    # The others are not ours to delete.
    assert {run.info.run_id for run in client.search_runs([found[0].info.experiment_id])} == set(dead)


def test_of_two_runs_that_a_lost_answer_made_one_is_deleted(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bakery_lock, "time", SimpleNamespace(sleep=lambda seconds: None))
    client = MlflowClient(database, database)
    workspace, mine, _ = begun(database)
    real = workspace.create_run

    def create_run(experiment: str, name: str, tags: dict[str, str]) -> Any:
        # The server executed the first request, but its answer was lost.
        real(experiment, name, tags)
        time.sleep(0.01)
        return real(experiment, name, tags)

    monkeypatch.setattr(workspace, "create_run", create_run)
    found = mine.wait("run")
    assert not isinstance(found, Version)
    (left,) = client.search_runs([found[0].info.experiment_id])
    assert left.info.run_id == found[0].info.run_id


def test_a_run_that_was_taken_up_is_given_back_not_deleted(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another mirror starts to write just after we took over a dead run. We must leave the run, not remove
    it.
    """
    client = MlflowClient(database, database)
    workspace, mine, _ = begun(database)
    dead = made_by(client, "")
    other = Keeper()
    other.ticket = 1
    written: list[str] = []
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if not written:
            # We have just written our lease over the dead one.
            assert mine.keeper.holds(client.get_run(dead).data.tags[keys.LEASE])
            written.append(made_by(client, other.note()))
        elif len(sleeps) == 4:
            finish(workspace, written[0])

    monkeypatch.setattr(bakery_lock, "time", SimpleNamespace(sleep=sleep))
    assert isinstance(mine.wait("run"), Version)
    left = client.get_run(dead)
    assert left.info.lifecycle_stage == "active"
    assert left.data.tags[keys.LEASE] == ""


def test_one_that_writes_is_waited_for_though_an_older_run_is_dead(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(database, database)
    dead = made_by(client, "")
    other = Keeper()
    other.ticket = 3
    written = made_by(client, other.note())
    workspace, mine, said = begun(database)
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) == 3:
            finish(workspace, written)

    monkeypatch.setattr(bakery_lock, "time", SimpleNamespace(sleep=sleep))
    found = mine.wait("run")
    assert isinstance(found, Version) and len(sleeps) == 3
    assert said == [f"another mirror is working on this run (MLflow run {written}); waiting for it"]
    assert client.get_run(dead).data.tags[keys.LEASE] == ""


def test_a_note_without_a_ticket_is_ahead_of_all_who_begin() -> None:
    keeper = Keeper()
    mine = Lease.parse(keeper.note())
    assert mine is not None and mine.ticket == CHOOSING
    old = Lease.parse('{"owner": "a", "beat": 1}')
    assert old is not None and old.ticket > CHOOSING
