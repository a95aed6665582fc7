"""workspaces/lease.py: which owner is alive. On this machine processes decide, elsewhere the watcher's
clock.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aml_mirror.registries.mlflow import run_lease
from aml_mirror.registries.mlflow.run_lease import STALE_SECONDS, Keeper, Lease, Watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are told by /proc")

WRITE = (
    "from aml_mirror.registries.mlflow.run_lease import Keeper; print(Keeper().note(), flush=True); input()"
)
ELSEWHERE = Lease("owner", 1, "other-boot:4026531836", 1, "5")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def writer() -> tuple[subprocess.Popen[str], Lease]:
    """A separate process and the note that it wrote."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    found = Lease.parse(process.stdout.readline())
    assert found is not None
    return process, found


def test_a_live_process_holds_its_lease_and_a_killed_one_is_known_at_once() -> None:
    process, found = writer()
    try:
        assert found.pid == process.pid and not Watch().is_dead(found)
        process.kill()
        # A zombie process: it still has its PID but writes nothing any more.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}/stat").exists()
        assert found.owner_is_gone and Watch().is_dead(found)
    finally:
        process.communicate()
    assert found.owner_is_gone and Watch().is_dead(found)


def test_another_process_with_the_same_number_is_not_the_owner() -> None:
    mine = Lease.parse(Keeper().note())
    assert mine is not None and not mine.owner_is_gone
    assert replace(mine, started=str(int(mine.started) - 1)).owner_is_gone


@pytest.mark.parametrize(
    "change",
    [
        {"namespace": "other-boot:4026531836", "pid": 2**22 + 1},
        {"namespace": "", "pid": 2**22 + 1},
        {"started": ""},
    ],
    ids=["another machine or PID namespace", "unknown namespace", "unknown start"],
)
def test_a_process_that_cannot_be_looked_at_is_never_called_gone(change: dict[str, Any]) -> None:
    mine = Lease.parse(Keeper().note())
    assert mine is not None
    unseen = replace(mine, **change)
    assert not unseen.owner_is_gone and not Watch(Clock()).is_dead(unseen)


def test_another_namespace_of_this_machine_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    here = run_lease._namespace()
    assert here and here == run_lease._namespace()
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c",
         "from aml_mirror.registries.mlflow.run_lease import _namespace; print(_namespace())"],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("no namespace can be made here")
    assert done.stdout.strip() not in ("", here)


def test_without_the_machines_boot_id_a_namespace_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every machine's first PID namespace has the number 4026531836.
    monkeypatch.setattr(run_lease, "_first_line", lambda path: "")
    assert run_lease._namespace() == ""


def test_the_name_of_a_process_may_be_any_bytes(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/a) \xff(b"
    os.symlink("/bin/sleep", name)
    process = subprocess.Popen([name, "60"])
    try:
        assert run_lease._started(process.pid).isdecimal()
    finally:
        process.kill()
        process.wait()


def test_a_lease_whose_beat_stands_still_is_dead_after_a_while_of_the_watchers_clock() -> None:
    clock = Clock()
    watch = Watch(clock)
    assert not watch.is_dead(ELSEWHERE)
    clock.now = STALE_SECONDS - 0.1
    assert not watch.is_dead(ELSEWHERE)
    clock.now = STALE_SECONDS
    assert watch.is_dead(ELSEWHERE)


def test_each_beat_and_each_new_owner_begins_the_wait_anew() -> None:
    clock = Clock()
    watch = Watch(clock)
    found = ELSEWHERE
    for beat in range(20):
        clock.now += STALE_SECONDS - 1
        assert not watch.is_dead(replace(found, beat=beat))
    clock.now += STALE_SECONDS - 1
    assert not watch.is_dead(replace(found, beat=19, owner="another"))
    # The owner's clock does not count: its time may even go back.
    clock.now += STALE_SECONDS - 1
    assert not watch.is_dead(replace(found, beat=0))


def test_a_stale_lease_is_no_shorter_than_some_renewals() -> None:
    assert STALE_SECONDS >= 4 * run_lease.RENEW_SECONDS


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[]", "5", '{"owner": "a"}', '{"owner": "a", "beat": null}']
)
def test_no_lease_or_one_that_cannot_be_read_is_held_by_nobody(text: str | None) -> None:
    assert Watch().is_dead(Lease.parse(text))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=3
)


@given(
    note=st.dictionaries(st.sampled_from(("owner", "beat", "namespace", "pid", "started")), JSON),
    text=st.text(),
)
def test_any_note_is_a_lease_or_none(note: dict[str, object], text: str) -> None:
    for stored in (json.dumps(note), text, '{"owner": 1, "beat": 1e999}'):
        found = Lease.parse(stored)
        if found is not None:
            assert Lease.parse(found.text()) == found
            Watch().is_dead(found)


def test_a_note_that_nests_too_deeply_is_none() -> None:
    # Collect other tests' garbage now, because finalizers cannot run at the bottom of the stack.
    gc.collect()
    gc.disable()
    try:
        assert Lease.parse("[" * 100_000) is None
    finally:
        gc.enable()


def test_a_note_is_ours_by_its_owner_and_counts_up() -> None:
    keeper, other = Keeper(), Keeper()
    first, second = keeper.note(), keeper.note()
    assert keeper.holds(first) and keeper.holds(second) and not other.holds(first) and not keeper.holds(None)
    assert json.loads(second)["beat"] > json.loads(first)["beat"]


class Store:
    """The store of the note. It counts renewals and can let one fail."""

    def __init__(self, text: str) -> None:
        self.text, self.written, self.fails = text, 0, 0

    def read(self) -> str:
        return self.text

    def write(self, text: str) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError("the server is down for a moment")
        self.text, self.written = text, self.written + 1


@pytest.fixture
def until(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], bool]], None]:
    """Let a keeper renew without pauses, and wait until a condition is true."""
    monkeypatch.setattr(run_lease, "RENEW_SECONDS", 0.001)

    def wait(holds: Callable[[], bool]) -> None:
        for _ in range(3000):
            if holds():
                return
            time.sleep(0.01)
        raise AssertionError("it never came")

    return wait


def test_a_keeper_renews_also_after_a_failure_until_it_is_stopped(
    until: Callable[[Callable[[], bool]], None],
) -> None:
    keeper = Keeper()
    store = Store(keeper.note())
    store.fails = 3
    keeper.start(store.read, store.write)
    until(lambda: store.written > 5)
    keeper.stop()
    assert keeper.holds(store.text) and not keeper.lost and not store.fails


def test_a_keeper_whose_lease_was_taken_says_so_and_writes_no_more(
    until: Callable[[Callable[[], bool]], None],
) -> None:
    keeper, other = Keeper(), Keeper()
    store = Store(other.note())
    keeper.start(store.read, store.write)
    until(lambda: keeper.lost)
    keeper.stop()
    assert store.written == 0 and other.holds(store.text)
