"""scripts/replay.py: what OSMO's answers and the end of a task mean. These tests start no process."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import replay_follow
from replay_follow import OWN_CODES, exit_code, judge, receipts, until_ended
from replay_submit import refusal

from aml_mirror.core.errors import (
    ConfigurationError,
    DataError,
    MirrorError,
    NotAllowed,
    ServiceUnavailable,
    UsageError,
)
from aml_mirror.osmo.client import Answer
from aml_mirror.osmo.workflow import Task, Workflow


def ended(status: str, code: int | None = None) -> Workflow:
    return Workflow("w", status, (Task("mirror", status, exit_code=code),))


@pytest.mark.parametrize("code", [0, 64, 65, 66, 70, 75, 77, 78, 130, 143])
def test_the_mirrors_own_code_is_taken(code: int) -> None:
    assert code in OWN_CODES
    assert exit_code(ended("FAILED" if code else "COMPLETED", code)) == code


@pytest.mark.parametrize(
    ("workflow", "error", "code"),
    [
        *(
            (ended(f"FAILED_{why}", code), ServiceUnavailable, 75)
            for why in (
                *("EVICTED", "PREEMPTED", "BACKEND_ERROR", "SERVER_ERROR", "START_ERROR", "START_TIMEOUT"),
                *("QUEUE_TIMEOUT", "EXEC_TIMEOUT", "CANCELED"),
            )
            for code in (None, 0, 3004)
        ),
        (ended("FAILED", 137), ServiceUnavailable, 75),
        (ended("FAILED", 255), ServiceUnavailable, 75),
        (ended("FAILED_IMAGE_PULL", 3003), ConfigurationError, 78),
        (ended("FAILED", 2), ConfigurationError, 78),
        (ended("FAILED", 1), MirrorError, 70),
        (ended("FAILED", 0), MirrorError, 70),
        (Workflow("w", "FAILED_SUBMISSION"), MirrorError, 70),
    ],
)
def test_what_ends_a_task_from_outside(workflow: Workflow, error: type[MirrorError], code: int) -> None:
    with pytest.raises(error) as raised:
        exit_code(workflow)
    assert (type(raised.value), raised.value.exit_code) == (error, code)


def test_a_workflow_without_the_task_ends_as_itself() -> None:
    assert exit_code(Workflow("w", "COMPLETED")) == 0


def test_a_run_that_failed_is_refused_unless_it_is_allowed() -> None:
    judge(ended("COMPLETED"), False)
    judge(ended("FAILED_CANCELED"), True)
    with pytest.raises(DataError):
        judge(ended("FAILED_CANCELED"), False)


def test_a_service_that_is_away_is_waited_for_anew_after_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_follow, "FIRST_POLL", 10.0)
    monkeypatch.setattr(replay_follow, "LONGEST_POLL", 10.0)
    monkeypatch.setattr(replay_follow, "time", SimpleNamespace(sleep=lambda seconds: None))

    def client(*answers: str) -> Any:
        left = list(answers)

        def query(name: str, patient: bool) -> str:
            if (status := left.pop(0)) == "away":
                raise ServiceUnavailable("OSMO is away", "")
            return json.dumps({"name": name, "status": status})

        return SimpleNamespace(query=query)

    said: list[str] = []
    twice = ("away", "away")
    found = until_ended(client(*twice, "RUNNING", *twice, "RUNNING", "COMPLETED"), "w", said.append, 25.0)
    assert found.status == "COMPLETED"
    assert said == ["OSMO is away", "w is RUNNING"] * 2 + ["w is COMPLETED"]
    with pytest.raises(ServiceUnavailable):
        until_ended(client(*twice, "away", "COMPLETED"), "w", said.append, 25.0)


def test_a_receipt_of_the_log_is_masked() -> None:
    receipt = {"schema": "aml-mirror/receipt/v1", "error": "AccountKey=abcdefgh12345678=="}
    line = "2026/11/24 10:00:02 [mirror] " + json.dumps(receipt, separators=(",", ":"))
    client: Any = SimpleNamespace(call=lambda words: Answer(0, line, ""))
    (found,) = receipts(client, "w")
    assert json.loads(found)["error"] == "AccountKey=***"


def answer(code: int, status: int = 0, message: str = "no") -> Answer:
    return Answer(code, json.dumps({"code": status, "message": message} if status else message, indent=1), "")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (answer(2, 401), NotAllowed),
        (answer(1, 0, "Must login first"), NotAllowed),
        (answer(2, 403), NotAllowed),
        (answer(10, 500), ConfigurationError),
        *((answer(1, status), ServiceUnavailable) for status in (408, 429, 502, 503)),
        *((answer(code), ServiceUnavailable) for code in (10, 75)),
        (answer(1, 400), ConfigurationError),
        (answer(2, 400), UsageError),
        (answer(1, 400, "Workflow is missing label 'team'"), UsageError),
    ],
)
def test_what_a_refusal_means(given: Answer, error: type[MirrorError]) -> None:
    assert type(refusal(("workflow", "submit"), given)) is error


def test_a_refused_call_that_submits_nothing_is_one_of_its_words() -> None:
    assert type(refusal(("workflow", "logs"), answer(1, 400))) is UsageError
    hint = refusal(("workflow", "submit"), answer(1, 400, "Workflow is missing label 'team'")).hint
    assert hint == "add --label team=VALUE"
