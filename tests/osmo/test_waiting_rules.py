"""How long a run on OSMO is waited for, and what its end means. No program is called, and no time passes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aml_mirror.core.errors import DataError, ServiceUnavailable, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.osmo import run_location
from aml_mirror.osmo.run_location import OsmoRun


class Run:
    """A run as OSMO shows it, one answer after another. The last one stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *states: Any, **more: Any) -> None:
        self.states, self.now = list(states), 0.0
        self.said: list[str] = []
        monkeypatch.setattr(run_location, "is_reachable", lambda settings: True)
        monkeypatch.setattr(run_location, "connect", lambda settings, notice: self)
        settings = Settings(run_id="train-7", **more)
        self.run = OsmoRun(settings, self.said.append, lambda: self.now, self.sleep, "this-host")

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def query(self, run_id: str, patient: bool) -> str:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        status, tasks = state if isinstance(state, tuple) else (state, {})
        rows = [{"name": name, "status": one, "task_uuid": f"{name}-host"} for name, one in tasks.items()]
        return json.dumps({"name": "train-7", "status": status, "groups": [{"tasks": rows}]})


def test_how_a_run_ended_decides_unless_a_person_does(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = ("FAILED", {"train": "COMPLETED", "eval": "FAILED_CANCELED"})
    assert Run(monkeypatch, "COMPLETED").run.ended().status == "COMPLETED"
    with pytest.raises(DataError, match="run train-7 is FAILED") as raised:
        Run(monkeypatch, failed).run.ended()
    assert "--task train" in str(raised.value.hint)
    assert Run(monkeypatch, failed, allow_failed=True).run.ended().status == "FAILED"
    assert Run(monkeypatch, failed, task="Train").run.ended().status == "FAILED"
    with pytest.raises(DataError, match="task eval of run train-7 is FAILED_CANCELED"):
        Run(monkeypatch, failed, task="eval").run.ended()
    with pytest.raises(UsageError, match="has no task other") as error:
        Run(monkeypatch, failed, task="other").run.ended()
    assert "train, eval" in str(error.value.hint)


def test_an_end_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Run(monkeypatch, "COMPLETED", "RUNNING")
    assert found.run.ended() is found.run.ended()


def test_a_run_is_waited_for_as_long_as_a_person_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServiceUnavailable, match="run train-7 is RUNNING: it has not ended"):
        Run(monkeypatch, "RUNNING").run.ended()
    waited = Run(monkeypatch, "RUNNING", "RUNNING", "COMPLETED", wait_seconds=3600.0)
    assert waited.run.ended().status == "COMPLETED" and 0 < waited.now < 60
    assert waited.said == ["run train-7 is RUNNING; waiting for its end, at most 60 min (--wait-for)"]
    late = Run(monkeypatch, "RUNNING", wait_seconds=900.0)
    with pytest.raises(ServiceUnavailable, match="has not ended"):
        late.run.ended()
    assert late.now == 900.0 and len(late.said) == 2
    # OSMO may be away meanwhile, but not at the end.
    away = ServiceUnavailable("OSMO is away", "")
    assert Run(monkeypatch, away, "COMPLETED", wait_seconds=60.0).run.ended().status == "COMPLETED"
    for seconds in (0.0, 60.0):
        with pytest.raises(ServiceUnavailable, match="OSMO is away"):
            Run(monkeypatch, away, wait_seconds=seconds).run.ended()


def test_a_mirror_does_not_wait_for_its_own_task(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {"train": "COMPLETED", "mirror": "RUNNING"}
    with pytest.raises(ServiceUnavailable):
        Run(monkeypatch, ("RUNNING", tasks)).run.ended()
    own = Run(monkeypatch, ("RUNNING", tasks))
    own.run._host = "mirror-host"
    assert own.run.ended().status == "RUNNING"
    for status, error in (("RUNNING", ServiceUnavailable), ("FAILED", DataError)):
        own = Run(monkeypatch, ("RUNNING", {**tasks, "train": status}))
        own.run._host = "mirror-host"
        with pytest.raises(error, match="run train-7, apart from this task, is"):
            own.run.ended()
