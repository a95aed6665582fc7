"""Which run of an Azure ML workspace a mirror continues, and what it does without the claim. No request."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunData, RunInfo, RunTag

from aml_mirror.core.errors import DataError, ServiceUnavailable
from aml_mirror.registries import keys
from aml_mirror.registries.azureml import run_adoption, version_tags
from aml_mirror.registries.azureml.writer import AzureMLWriter
from aml_mirror.registries.records import Limits, Version

TAGS = {
    keys.RUN_ID: "run-1",
    keys.CHECKPOINT: "ckpt",
    keys.MANIFEST_SHA256: "d" * 64,
    keys.IDENTITY: "1" * 64,
    keys.MODEL_NAME: "m",
    keys.STATE: keys.INCOMPLETE,
    keys.QUICK_KEY: "now",
}
OURS = f"azureml://datastores/own/paths/aml-mirror/run-1/ckpt/sha256-{'d' * 64}/model"
FINISHED = {keys.STATE: keys.COMPLETE, version_tags.VERSION: "1"}


def mlflow_run(run_id: str, status: str = "FAILED", experiment: str = "7", **tags: str) -> MlflowRun:
    info = RunInfo(run_id, experiment, "u", status, 1, 2, "active", artifact_uri="")
    return MlflowRun(info, RunData(tags=[RunTag(*item) for item in {**TAGS, **tags}.items()]))


class Claim:
    """A claim on the identity, which another mirror takes at a given moment."""

    def __init__(self, run_id: str = "", waited: bool = False) -> None:
        self.run_id, self.waited, self.lost = run_id, waited, False
        self.theirs = ""

    def remember(self, run_id: str) -> None:
        self.run_id = run_id

    def remembered(self) -> str:
        return self.theirs


class Workspace:
    """The runs and the one version of a workspace. ``done`` records what was written."""

    def __init__(self, *runs: MlflowRun, version: Version | None = None, sound: bool = True) -> None:
        self.runs = {run.info.run_id: run for run in runs}
        self.version = version
        self.done: list[str] = []
        self.orphans: dict[str, str] = {}
        self.refused: set[str] = set()
        self.client: Any = self
        self.limits = Limits()
        self.models: Any = SimpleNamespace(
            get=lambda model, number: self.version,
            with_identity=lambda model, identity: self.version,
            tag=lambda version, marks: self.done.append(f"mark {marks[keys.STATE]}"),
        )
        self.azure: Any = SimpleNamespace(
            container_of=lambda name: None, container=None, datastore_uri=lambda path, name: path
        )
        self.sound = sound
        self.at_creation: Any = lambda: None

    def search_runs(self, experiment: str, key: str, value: str) -> list[MlflowRun]:
        return list(self.runs.values())

    def get_run(self, run_id: str) -> MlflowRun:
        return self.runs[run_id]

    def retry(self, operation: Any) -> Any:
        return operation()

    def create_run(self, *given: Any) -> MlflowRun:
        self.at_creation()
        return mlflow_run("new", "RUNNING")

    def update_tags(self, run: MlflowRun, tags: dict[str, str]) -> None:
        if run.info.run_id in self.refused:
            raise DataError("the run is deleted", "")
        assert keys.STATE not in tags
        self.done.append(f"tag {run.info.run_id}")

    def update_run(self, run_id: str, status: str) -> None:
        self.done.append(f"{status} {run_id}")

    def log_batch(self, run_id: str, tags: list[RunTag]) -> None:
        assert {tag.key: tag.value for tag in tags}[keys.STATE] == version_tags.RETIRED
        self.done.append(f"retire {run_id}")

    def set_terminated(self, run_id: str, status: str, *when: int) -> None:
        if status == "FINISHED":
            self.done.append(f"end {run_id}")

    def delete_run(self, run_id: str) -> None:
        return

    def version_reader(self, version: Version) -> Any:
        return SimpleNamespace(changed=lambda manifest: [] if self.sound else ["w"])

    def notice(self, text: str) -> None:
        return

    say_once = notice


@pytest.fixture(autouse=True)
def manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_adoption, "pinned_manifest", lambda version, reader: None)


def take_up(workspace: Any, claim: Any) -> AzureMLWriter | Version:
    return run_adoption.take_up(workspace, "7", "run", TAGS, claim)


def version(state: str = keys.COMPLETE, path: str = OURS) -> Version:
    return Version("m", "1", {**TAGS, keys.STATE: state}, path)


def test_a_claim_that_was_lost_during_the_search_ends_the_mirror() -> None:
    for workspace in (
        Workspace(),
        Workspace(mlflow_run("dead")),
        Workspace(mlflow_run("done", **FINISHED), version=version()),
        Workspace(mlflow_run("done", **FINISHED), version=version(keys.INCOMPLETE)),
    ):
        claim = Claim()
        claim.lost = True
        with pytest.raises(ServiceUnavailable, match="another mirror took over the mirror of run-1"):
            take_up(workspace, claim)
        assert workspace.done == [] and claim.run_id == ""


@pytest.mark.parametrize(
    ("theirs", "done"), [("another", ["retire new"]), ("new", []), ("", [])], ids=["theirs", "ours", "none"]
)
def test_a_claim_that_was_lost_while_the_run_was_created(theirs: str, done: list[str]) -> None:
    """The run of the new holder counts. Ours goes, unless the new holder continues it."""
    workspace, claim = Workspace(), Claim()
    claim.theirs = theirs

    def lose() -> None:
        claim.lost = True

    workspace.at_creation = lose
    with pytest.raises(ServiceUnavailable, match="another mirror took over"):
        take_up(workspace, claim)
    assert workspace.done == done


def test_a_run_that_was_continued_is_left_to_who_has_the_claim_now() -> None:
    workspace, claim = Workspace(mlflow_run("dead"), mlflow_run("other")), Claim("dead")
    claim.theirs = "another"
    workspace.update_run = lambda *given: setattr(claim, "lost", True)  # type: ignore[method-assign]
    with pytest.raises(ServiceUnavailable, match="another mirror took over"):
        take_up(workspace, claim)
    assert workspace.done == ["tag dead"]


def test_the_run_of_the_claim_is_continued_and_the_others_are_retired() -> None:
    workspace, claim = Workspace(mlflow_run("a"), mlflow_run("b", "RUNNING"), mlflow_run("c")), Claim("b")
    writer = take_up(workspace, claim)
    assert isinstance(writer, AzureMLWriter) and (writer.run_id, claim.run_id) == ("b", "b")
    assert workspace.done == ["tag b", "retire a", "retire c"]
    # An end of the run that an earlier attempt wrote is undone.
    workspace, claim = Workspace(mlflow_run("a")), Claim()
    assert isinstance(take_up(workspace, claim), AzureMLWriter) and claim.run_id == "a"
    assert workspace.done == ["tag a", "RUNNING a"]


def test_a_run_that_may_no_longer_be_written_is_replaced() -> None:
    workspace, claim = Workspace(mlflow_run("a"), mlflow_run("b")), Claim()
    workspace.refused = {"a", "b"}
    writer = take_up(workspace, claim)
    assert isinstance(writer, AzureMLWriter) and (writer.run_id, claim.run_id) == ("new", "new")
    assert workspace.done == ["retire a", "retire b"]


def test_a_run_of_another_experiment_is_not_continued_and_its_version_counts() -> None:
    elsewhere = mlflow_run("elsewhere", experiment="8")
    writer = take_up(Workspace(elsewhere), Claim())
    assert isinstance(writer, AzureMLWriter) and writer.run_id == "new"
    finished = mlflow_run("elsewhere", "FINISHED", experiment="8", **FINISHED)
    assert take_up(Workspace(finished, version=version()), Claim("elsewhere")) == version_of(finished)


def version_of(run: MlflowRun) -> Version | None:
    return version_tags.named_by(run.data.tags, version())


def test_a_complete_version_ends_the_mirror_and_its_open_run() -> None:
    for status, done in (("FINISHED", []), ("RUNNING", ["end done"])):
        run = mlflow_run("done", status, **FINISHED)
        workspace = Workspace(run, version=version())
        assert take_up(workspace, Claim()) == version_of(run)
        assert workspace.done == done


def test_a_version_that_lacks_only_the_mark_gets_it_where_its_bytes_are_right() -> None:
    """A mirror was killed between the completeness of the run and that of the version."""
    run = mlflow_run("done", "FINISHED", **FINISHED)
    workspace = Workspace(run, version=version(keys.INCOMPLETE))
    found = take_up(workspace, Claim())
    assert isinstance(found, Version) and found.complete and workspace.done == ["mark complete"]
    # A file changed since: it is sent again to the same version.
    workspace, claim = Workspace(run, version=version(keys.INCOMPLETE), sound=False), Claim()
    writer = take_up(workspace, claim)
    assert isinstance(writer, AzureMLWriter) and (writer._intended, claim.run_id) == ("1", "done")
    assert writer._adopted and workspace.done == []


def test_who_waited_looks_for_the_version_that_the_last_holder_made_elsewhere() -> None:
    assert take_up(Workspace(version=version()), Claim(waited=True)) == version()
    assert isinstance(take_up(Workspace(version=version()), Claim()), AzureMLWriter)
    begun = Workspace(version=version(keys.INCOMPLETE))
    assert isinstance(take_up(begun, Claim(waited=True)), AzureMLWriter)


def test_a_version_that_was_begun_keeps_its_number_and_its_folder() -> None:
    older = f"azureml://datastores/own/paths/aml-mirror/run-1/ckpt/{'d' * 64}"
    begun = mlflow_run("a", **{version_tags.VERSION: "3"})
    # The run names it, or it was seen without its run.
    for workspace, orphans in ((Workspace(begun), {}), (Workspace(), {TAGS[keys.IDENTITY]: "3"})):
        workspace.version = version(keys.INCOMPLETE, older)
        workspace.orphans = orphans
        writer = take_up(workspace, Claim())
        assert isinstance(writer, AzureMLWriter)
        assert (writer._intended, writer._folder.bytes) == ("3", older.partition("/paths/")[2])
        # The number belongs to another checkpoint now.
        workspace.version = Version("m", "3", {**TAGS, keys.IDENTITY: "2" * 64}, older)
        writer = take_up(workspace, Claim())
        assert isinstance(writer, AzureMLWriter)
        assert writer._folder.bytes == OURS.partition("/paths/")[2]
