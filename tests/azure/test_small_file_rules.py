"""How logs and texts of a run are stored beside a version and shown by the run. The blobs are in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunData, RunInfo, RunTag

from aml_mirror.core.errors import DataError, MirrorError, ServiceUnavailable
from aml_mirror.registries.azureml import retry_with_read_back, run_files
from aml_mirror.registries.azureml.artifact_references import NotOffered
from aml_mirror.registries.azureml.artifact_service import Refused
from aml_mirror.registries.azureml.retry_with_read_back import PAUSES, RetryWithReadBack
from aml_mirror.registries.azureml.run_artifacts import Put
from aml_mirror.registries.azureml.run_files import RECEIPT, REGISTER_TOGETHER, RunFiles
from aml_mirror.registries.azureml.version_files import VersionFiles
from aml_mirror.registries.azureml.version_tags import ARTIFACTS
from aml_mirror.registries.records import Upload
from aml_mirror.sources.growing import log_view
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.blobs import Blobs
from builders.stored_version import sha256
from stored_in_memory import FOLDER, LOG, RETRY

PATH = "tensorboard/events"


class Service:
    """The artifacts of the run, by bytes and by reference."""

    def __init__(self) -> None:
        self.sent: dict[str, bytes] = {}
        self.referred: dict[str, str] = {}
        self.registered: list[list[str]] = []
        self.offers, self.refuses = True, False
        self.asked = 0
        self.taken: set[str] = set()

    def knows(self, path: str) -> bool:
        return any(path in paths for paths in self.registered)

    def register(self, paths: list[str]) -> None:
        self.registered.append(paths)

    def put(self, file: Any) -> Put:
        if self.refuses:
            raise Refused(MirrorError("key based authentication is not permitted"))
        path = f"{file.path}~2" if file.path in self.taken else file.path
        self.sent[path] = file.open().read()
        return Put(file.bytes, path)

    def refer(self, path: str, datastore: str, blob: str) -> str:
        self.asked += 1
        if not self.offers:
            raise NotOffered("no")
        self.referred[path] = f"{datastore}:{blob}"
        return f"{path}~2" if path in self.taken else path


class Small:
    """The object under test, with all that it writes to."""

    def __init__(self, service: Service, adopted: bool = False, **tags: str) -> None:
        self.blobs, self.warnings, self.marks = Blobs(), list[str](), list[tuple[str, ...]]()
        self.files = VersionFiles(self.blobs, FOLDER, RETRY)  # type: ignore[arg-type]
        self.asked = 0
        self.is_lost_at = 99
        info = RunInfo("r", "7", "u", "RUNNING", 1, 2, "active", artifact_uri="")
        run = MlflowRun(info, RunData(tags=[RunTag(*item) for item in tags.items()]))
        workspace: Any = SimpleNamespace(
            azure=SimpleNamespace(
                datastore_uri=lambda path, name: f"azureml://{path}", datastore=SimpleNamespace(name="own")
            ),
            client=SimpleNamespace(set_tag=lambda *given: self.marks.append(given)),
        )
        self.small = RunFiles(
            workspace, run, FOLDER, self.files, RETRY, self.require, self.warnings.append, adopted
        )

    def require(self) -> None:
        self.asked += 1
        if self.asked >= self.is_lost_at:
            raise ServiceUnavailable("another has the claim", "")

    @property
    def stored(self) -> dict[str, bytes]:
        return {name.removeprefix(f"{FOLDER.own}/"): data for name, data in self.blobs.data.items()}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    found = Service()
    monkeypatch.setattr(run_files, "RunArtifacts", lambda *given: found)
    monkeypatch.setattr(run_files, "ArtifactReferences", lambda *given: found)
    return found


@pytest.fixture
def events(tmp_path: Path) -> Path:
    (tmp_path / "events").write_bytes(LOG)
    return tmp_path / "events"


def logs(events: Path) -> Tree:
    source = LocalSource(events.parent)
    tree = Tree(source, source.scan())
    return log_view(tree, ["events"], {"events": len(LOG)})


def put(small: Small, tree: Tree, progress: Callable[[int], None] = lambda count: None) -> int:
    return small.small.put_files(tree, [Upload("events", PATH, len(LOG))], progress)


def test_a_log_is_stored_with_the_version_and_the_run_refers_to_it(service: Service, events: Path) -> None:
    small = Small(service)
    assert put(small, logs(events)) == len(LOG)
    assert small.stored == {PATH: LOG} and small.files.list.logs[PATH].sha256 == sha256(LOG)
    assert service.referred == {PATH: f"own:{FOLDER.own}/{PATH}"} and service.sent == {}


@pytest.mark.parametrize("how", ["cut", "replaced", "deleted"])
def test_a_log_that_changed_after_it_was_listed_is_an_error(service: Service, events: Path, how: str) -> None:
    tree = logs(events)
    events.unlink()
    if how == "cut":
        events.write_bytes(LOG[:-1])
    elif how == "replaced":
        events.mkdir()
    small = Small(service)
    with pytest.raises(DataError, match=r"events (changed|was deleted)"):
        put(small, tree)
    assert small.files.list.logs == {} and service.referred == {}


@pytest.mark.parametrize("how", ["cut", "deleted"])
def test_a_log_that_changes_while_it_is_sent_is_an_error(service: Service, events: Path, how: str) -> None:
    tree, real = logs(events), service.refer

    def refer(*given: str) -> str:
        if how == "cut":
            events.write_bytes(LOG[:-1])
        else:
            events.unlink()
        return real(*given)

    service.refer = refer  # type: ignore[method-assign]
    told: list[int] = []
    with pytest.raises(DataError, match="events changed while it was sent"):
        put(Small(service), tree, told.append)
    assert told == []


def test_a_log_that_grows_is_sent_as_it_was_listed(service: Service, events: Path) -> None:
    tree = logs(events)
    events.write_bytes(LOG + b"more")
    small = Small(service)
    assert put(small, tree) == len(LOG) and small.stored == {PATH: LOG}


def test_where_references_are_not_offered_the_bytes_go_to_the_run(service: Service, events: Path) -> None:
    service.offers = False
    small = Small(service)
    assert put(small, logs(events)) == 2 * len(LOG)
    assert service.sent == {PATH: LOG} == small.stored
    # Few files are registered one by one, which leaves fewer names after a kill.
    assert service.registered == []
    texts = {f"{number}.txt": "x" for number in range(REGISTER_TOGETHER)}
    small.small.put_texts(texts)
    assert service.registered == [list(texts)]
    small.small.put_texts(texts)
    assert service.registered == [list(texts)] and service.asked == 1


def test_where_the_service_refuses_the_run_says_where_its_files_are(service: Service, events: Path) -> None:
    service.offers, service.refuses = False, True
    small = Small(service)
    assert put(small, logs(events)) == len(LOG)
    place = f"azureml://{FOLDER.own}"
    assert small.marks == [("r", ARTIFACTS, place)]
    assert small.warnings == [
        f"the run's artifacts are in the datastore, at {place}, because key based authentication is not "
        "permitted"
    ]
    # It is not asked again, by this attempt or the next one.
    service.refuses = False
    small.small.put_texts({"a": "x"})
    later = Small(service, adopted=True, **{ARTIFACTS: place})
    put(later, logs(events))
    assert service.sent == {} and len(small.marks) == 1 and later.stored == {PATH: LOG}
    # A new run has said nothing yet.
    put(Small(service, adopted=False, **{ARTIFACTS: place}), logs(events))
    assert service.sent == {PATH: LOG}


def test_texts_have_digests_and_the_receipt_has_none(service: Service) -> None:
    small = Small(service)
    small.small.put_texts({"MODEL_CARD.md": "# card", RECEIPT: "{}"})
    assert small.files.list.own == {"MODEL_CARD.md": sha256(b"# card")}
    assert small.small.texts == {"MODEL_CARD.md": "# card"}
    # The run shows a copy, which an earlier release may overwrite.
    shown = f"own:{FOLDER.own}/artifacts/MODEL_CARD.md"
    assert service.referred["MODEL_CARD.md"] == shown
    assert small.stored["MODEL_CARD.md"] == small.stored["artifacts/MODEL_CARD.md"] == b"# card"


@pytest.mark.parametrize("offers", [True, False])
def test_another_name_than_the_wanted_one_is_told(service: Service, offers: bool) -> None:
    service.offers, service.taken = offers, {"a"}
    small = Small(service)
    small.small.put_texts({"a": "x", "b": "y"})
    assert small.warnings == ["a belongs to an earlier attempt; the artifact of this one is a~2"]


def test_nothing_more_is_written_once_the_claim_is_lost(service: Service, events: Path) -> None:
    small = Small(service)
    small.is_lost_at = 2
    with pytest.raises(ServiceUnavailable, match="another has the claim"):
        small.small.put_texts({"a": "x", "b": "y"})
    assert "b" not in small.stored
    with pytest.raises(ServiceUnavailable, match="another has the claim"):
        put(small, logs(events))
    assert PATH not in small.stored


class Requests:
    """A request that fails, and what a look shows of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seen_at: int = 0, status: int = 0) -> None:
        self.sent = self.looks = self.asked = 0
        self.status, self.fails_until = status, 1
        self.pauses: list[float] = []
        monkeypatch.setattr(retry_with_read_back, "time", SimpleNamespace(sleep=self.pauses.append))
        # What an earlier request was answered with, until it is forgotten.
        last: list[int] = [429]
        http = SimpleNamespace(forget=last.clear, last=lambda: last[0] if last else 0)
        monkeypatch.setattr(retry_with_read_back, "http_status", http)

        def look() -> bool:
            self.looks += 1
            return self.looks == seen_at

        def send() -> bool:
            self.sent += 1
            if self.sent <= self.fails_until:
                if self.status:
                    last[:] = [self.status]
                raise ServiceUnavailable("no answer", "")
            return True

        def go_on() -> None:
            self.asked += 1

        self.request = RetryWithReadBack(look, send, go_on)
        with pytest.raises(ServiceUnavailable):
            self.request()


def test_a_request_whose_answer_was_lost_is_looked_for_before_it_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = Requests(monkeypatch, seen_at=2)
    assert seen.request() is True and (seen.sent, seen.looks) == (1, 2)
    assert seen.pauses == [0.0, PAUSES[0]] and seen.request.was_lost
    never = Requests(monkeypatch)
    assert never.request() is True and (never.sent, never.looks) == (2, 1 + len(PAUSES))
    # Before each look and each request, it is asked whether something may still be sent.
    assert never.asked == 2 + never.looks


def test_a_request_that_was_lost_once_is_looked_for_whatever_failed_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = Requests(monkeypatch)
    lost.status, lost.fails_until = 429, 2
    with pytest.raises(ServiceUnavailable):
        lost.request()
    before = lost.looks
    assert lost.request() is True and lost.looks > before


def test_a_request_that_was_not_carried_out_is_sent_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Requests(monkeypatch, status=429)
    assert refused.request() is True and (refused.sent, refused.looks) == (2, 0)
    assert not refused.request.was_lost
