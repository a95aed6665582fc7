"""What OSMO's answers mean, and which output of a run is taken. No program is called."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from aml_mirror.core.errors import (
    ConfigurationError,
    DataError,
    MirrorError,
    NotAllowed,
    ServiceUnavailable,
    SourceNotFound,
    UsageError,
)
from aml_mirror.osmo.client import Answer, _failure, checked, needed
from aml_mirror.osmo.run_location import _status, choose
from aml_mirror.osmo.workflow import (
    MAX_DEPTH,
    Declared,
    Output,
    Task,
    Workflow,
    has_ended,
    has_failed,
    read_query,
    read_spec,
)
from aml_mirror.osmo.workflow_list import ListQuery, each_workflow, read_page

WORKFLOW = Workflow("train-7", "COMPLETED")


def chosen(*outputs: Output, others: tuple[str, ...] = (), task: str = "", place: str = "") -> str:
    found = Workflow("train-7", "COMPLETED", outputs=place)
    return choose(Declared(list(outputs), list(others)), found, task)


def out(url: str, kind: str = "output", task: str = "train") -> Output:
    return Output(task, url, kind)


@pytest.mark.parametrize(
    "outputs",
    [
        [out("azure://acct/runs/7")],
        # One place, named twice, and places below it.
        [out("azure://acct/runs/7"), out("azure://acct/runs/7/", task="eval")],
        [out("azure://acct/runs/7/logs"), out("azure://acct/runs/7")],
        [out("azure://acct/runs/7"), out("azure://acct/runs/6", "checkpoint")],
        [out("azure://acct/runs/7"), out("s3://bucket/7"), out("azure://acct/{{output}}")],
        [out("azure://acct/runs/7", "checkpoint")],
        # A container cannot be a run.
        [out("azure://acct/runs/7"), out("azure://acct"), out("azure://acct/")],
    ],
)
def test_one_output_is_the_run(outputs: list[Output]) -> None:
    assert chosen(*outputs) == "azure://acct/runs/7"


def test_a_neighbour_with_a_longer_name_is_another_output() -> None:
    with pytest.raises(UsageError, match="declared 2 outputs") as raised:
        chosen(out("azure://acct/runs/7"), out("azure://acct/runs/70", task="eval"))
    assert "--task" in str(raised.value.hint)
    with pytest.raises(UsageError) as raised:
        chosen(out("azure://acct/runs/7"), out("azure://acct/runs/8"), task="train")
    assert "--task" not in str(raised.value.hint)


def test_where_no_output_can_be_read_the_reason_is_told() -> None:
    place = "https://acct.blob.core.windows.net/osmo/train-7?sig=abcdefgh"
    for found, words in (
        (lambda: chosen(), "declared no output"),
        (lambda: chosen(others=("dataset",)), "declared its output as dataset"),
        (lambda: chosen(out("azure://acct/{{uuid}}")), "which OSMO filled in while it ran"),
        (lambda: chosen(out("s3://bucket/7?sig=abcdefgh")), "which cannot be read here"),
        (lambda: chosen(place=place), "declared no output"),
    ):
        with pytest.raises(SourceNotFound, match=words) as raised:
            found()
        assert "abcdefgh" not in f"{raised.value.message} {raised.value.hint}"
    assert "azure://acct/osmo/train-7" in str(raised.value.hint)


def test_which_status_is_an_end() -> None:
    for status in ("COMPLETED", "FAILED", "FAILED_CANCELED", "FAILED_OF_TOMORROW"):
        assert has_ended(status) and has_failed(status) == (status != "COMPLETED")
    for status in ("RUNNING", "PENDING", "RESCHEDULED", "COMPLETED_SOON", ""):
        assert not has_ended(status) and not has_failed(status)
    tasks = [Task("a", "COMPLETED"), Task("b", "FAILED"), Task("c", "RUNNING")]
    assert (_status(tasks), _status(tasks[:2]), _status(tasks[:1])) == ("RUNNING", "FAILED", "COMPLETED")


def spec(**more: Any) -> str:
    tasks = [
        {
            "name": "train_one",
            "outputs": [{"url": "azure://a/{{ workflow_id }}/{{output}}"}, {"dataset": {}}],
        },
        {"name": "eval", "checkpoint": [{"path": "x", "url": "azure://a/c"}], "outputs": None},
    ]
    return json.dumps({"workflow": {"groups": [{"tasks": tasks[:1]}], "tasks": tasks[1:], **more}})


def test_what_a_spec_declares() -> None:
    found = read_spec(spec(), WORKFLOW)
    assert found.outputs == [
        Output("train_one", "azure://a/train-7/{{output}}"),
        Output("eval", "azure://a/c", "checkpoint"),
    ]
    assert found.others == ["dataset"]
    # OSMO ignores case in names, and treats - like _.
    assert [item.task for item in read_spec(spec(), WORKFLOW, "Train-One").outputs] == ["train_one"]
    assert read_spec(spec(), WORKFLOW, "train").outputs == []
    assert WORKFLOW.task("x") is None
    assert Workflow("w", "RUNNING", (Task("a_b", "FAILED"),)).task("A-b") == Task("a_b", "FAILED")


@pytest.mark.parametrize(
    "text", ["", "[]", "a: b", "workflow: [1]", "{", "workflow: " + "[" * (MAX_DEPTH + 1)]
)
def test_what_is_no_spec(text: str) -> None:
    with pytest.raises(DataError, match="is not a workflow"):
        read_spec(text + "]" * text.count("["), WORKFLOW)


def test_what_a_query_says() -> None:
    task = {"name": "mirror", "status": "FAILED", "task_uuid": "u", "exit_code": 3}
    answer = {
        "name": "w",
        "status": "FAILED",
        "groups": [{"tasks": [task, {"status": "x"}, 5, {**task, "exit_code": True}]}, None],
        "labels": {"team": "arms", "n": 5},
    }
    found = read_query("A newer client is available\n" + json.dumps(answer), "w")
    assert [(one.host, one.exit_code) for one in found.tasks] == [("u", 3), ("u", None)]
    assert found.labels == {"team": "arms"} and found.outputs == ""
    for text in ("", "{}", '{"name": "w"}', '{"status": "RUNNING"}', "[1]", "{" * 9):
        with pytest.raises(DataError, match="has no name and status"):
            read_query(text, "w")


def test_a_spec_that_nests_too_deeply_is_none() -> None:
    def nested(depth: int) -> str:
        return "workflow: {a: " + "[" * depth + "]" * depth + "}"

    assert read_spec(nested(MAX_DEPTH - 2), WORKFLOW) == Declared()
    with pytest.raises(DataError, match="is not a workflow"):
        read_spec(nested(MAX_DEPTH - 1), WORKFLOW)


class Pages:
    """A list of workflows, to which one may be added between two pages."""

    page_size = 2

    def __init__(self, *names: str, added: str = "") -> None:
        self.names, self.added = list(names), added
        self.asked: list[int] = []

    def list_page(self, query: ListQuery, offset: int, count: int) -> str:
        self.asked.append(offset)
        rows = [{"name": name, "status": "COMPLETED"} for name in self.names[offset : offset + count]]
        if self.added:
            self.names.insert(0, self.added)
            self.added = ""
        return json.dumps({"workflows": rows})


def test_each_workflow_is_seen_once() -> None:
    def names(pages: Pages) -> list[str]:
        return [one.name for one in each_workflow(pages, ListQuery())]

    moved = Pages("c", "b", "a", added="d")
    assert names(moved) == ["c", "b", "a"] and moved.asked == [0, 2, 4]
    whole = Pages("d", "c", "b", "a")
    assert names(whole) == ["d", "c", "b", "a"] and whole.asked == [0, 2, 4]
    assert names(Pages()) == []


def test_a_list_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from aml_mirror.osmo import workflow_list

    monkeypatch.setattr(workflow_list, "MAX_WORKFLOWS", 4)
    endless = Pages()
    endless.list_page = lambda query, offset, count: Pages("b", "a").list_page(query, 0, 2)  # type: ignore[method-assign]
    with pytest.raises(DataError, match="lists more than 4 workflows"):
        list(each_workflow(endless, ListQuery()))


def test_an_entry_of_the_list() -> None:
    rows = [
        {"name": "w", "status": "RUNNING", "submit_time": "2026-01-02T03:04:05", "end_time": None},
        {
            "name": "x",
            "status": "COMPLETED",
            "end_time": "2026-01-02T05:04:05+02:00",
            "labels": {"a": "b", "c": 1},
        },
        {"name": "", "status": "RUNNING"},
        {"name": "z"},
    ]
    first, second = read_page("a notice\n" + json.dumps({"workflows": rows}))
    # Times without a zone are UTC.
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert (first.submitted, first.ended, first.labels) == (when, 0.0, None)
    assert (second.ended, second.labels) == (when, {"a": "b"})
    for text in ("", "{}", '{"workflows": {}}', '{"workflows": [1]}'):
        with pytest.raises(DataError, match="is not a list"):
            read_page(text)


def answer(code: int, message: str = "no", status: int = 0) -> Answer:
    said = {"message": message, **({"code": status} if status else {})}
    return Answer(code, json.dumps(said, indent=1), "")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (answer(2, "Workflow train-7 is not found"), SourceNotFound),
        (answer(1, "Must login first"), NotAllowed),
        (answer(2, status=401), NotAllowed),
        (answer(2, status=403), NotAllowed),
        *((answer(code), ServiceUnavailable) for code in (10, 75, -9)),
        *((answer(2, status=status), ServiceUnavailable) for status in (408, 429, 500, 503)),
        (answer(2, status=400), ConfigurationError),
        (answer(3), ConfigurationError),
    ],
)
def test_what_a_failure_means(given: Answer, error: type[MirrorError]) -> None:
    assert type(_failure("train-7", ("workflow", "query", "train-7"), given)) is error


def test_a_spec_that_osmo_cannot_read_is_not_waited_for() -> None:
    for given in (answer(10, status=500), answer(10, "Failed to fetch spec")):
        assert type(_failure("train-7", ("workflow", "spec", "train-7"), given)) is ConfigurationError


def test_the_message_is_what_the_server_said_and_nothing_around_it() -> None:
    headers = "Status Code: 500\nHeaders: {'Set-Cookie': 'session=abcdefgh'}\nBody:"
    traceback = "Traceback (most recent call last)\n  File"
    for out, err, message in (
        (f'Error message:{headers}{{"message": "it is full"}}\nError code: 500\n', "", "it is full"),
        (json.dumps({"message": f"{headers} it is full"}), "", "it is full"),
        (f"it is full {traceback}", "", "it is full"),
        (traceback, "one\nlibz is missing", "libz is missing"),
        ("", "", ""),
        ("AccountKey=abcdefgh12345678==", "", "AccountKey=***"),
    ):
        assert Answer(1, out, err).message == message, out
    assert len(Answer(1, "x " * 9000, "").message) <= 300
    # A secret at the end of what is shown is masked before the text is cut.
    assert "hf_A" not in Answer(1, "x" * 290 + " hf_" + "A1b" * 11, "").message


@pytest.mark.parametrize("run_id", ["", "-x", "x-", "a/b", "../a", "a b", "a.b", "a\n", "x" * 257, "--help"])
def test_what_cannot_be_an_id(run_id: str) -> None:
    with pytest.raises(SourceNotFound, match="cannot be the id"):
        checked(run_id)


def test_the_program_gets_no_credential_of_ours() -> None:
    kept = {"PATH": "p", "HOME": "h", "https_proxy": "x", "HTTPS_PROXY": "y", "OSMO_CONFIG_FILE_DIR": "c"}
    ours = {"AZURE_CLIENT_SECRET": "s", "MLFLOW_TRACKING_TOKEN": "t", "XPATH": "x", "OSMO_TOKEN": "t"}
    assert needed({**kept, **ours}) == kept
