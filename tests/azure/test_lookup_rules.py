"""Which runs, versions and blocks of a workspace count, shown with invented answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunData, RunInfo, RunTag

from aml_mirror.core.errors import MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.core.manifest import BlockDigests, ManifestEntry, StoredFile
from aml_mirror.registries import keys
from aml_mirror.registries.azureml import block_list, read_once, run_adoption, stored_files, version_tags
from aml_mirror.registries.azureml.coordinates import Coordinates
from aml_mirror.registries.azureml.fast_lookup import FastLookup
from aml_mirror.registries.azureml.known_versions import each_version_of
from aml_mirror.registries.azureml.version_registration import Registration, _is_same
from aml_mirror.registries.records import Version

DIGEST = "d" * 64
IDENTITY = "1" * 64
FOLDER = f"aml-mirror/run-1/ckpt/sha256-{DIGEST}"
OURS = f"azureml://datastores/own/paths/{FOLDER}/model"
ELSEWHERE = "azureml://datastores/own/paths/elsewhere"
OLD_FORM = f"azureml://datastores/own/paths/aml-mirror/run-1/ckpt/{DIGEST}"
TAGS = {
    keys.RUN_ID: "run-1",
    keys.CHECKPOINT: "ckpt",
    keys.MANIFEST_SHA256: DIGEST,
    keys.IDENTITY: IDENTITY,
    keys.MODEL_NAME: "m",
    keys.STATE: keys.COMPLETE,
}


def version(number: str = "1", path: str = OURS, **tags: str) -> Version:
    return Version("m", number, {**TAGS, **tags}, path)


RUN = {**TAGS, version_tags.VERSION: "1", keys.QUICK_KEY: "now"}


def looked_up(
    monkeypatch: pytest.MonkeyPatch,
    run: dict[str, str] = RUN,
    found: Version | None = None,
    stage: str = "active",
    token: str = "",
) -> list[str]:
    """The result of the lookup before the clients are loaded, in a workspace with one run."""

    def answer(method: str, path: str, body: Any = None) -> dict[str, Any]:
        if path.startswith("experiments"):
            return {"experiment": {"experiment_id": "7", "lifecycle_stage": stage}}
        tags = [{"key": key, "value": value} for key, value in run.items()]
        row = {"info": {"run_id": "r", "start_time": 1}, "data": {"tags": tags}}
        return {"runs": [row], "next_page_token": token}

    where = Coordinates("11111111-2222-3333-4444-555555555555", "rg", "ws")
    lookup = FastLookup(where, lambda: pytest.fail("the clients are loaded"))
    monkeypatch.setattr(lookup, "_mlflow", answer)
    monkeypatch.setattr(lookup, "_version", lambda model, number: found or version(number))
    return [one.number for one in lookup._look("m", "m", "run-1")]


def test_the_first_look_believes_a_finished_run_and_its_complete_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert looked_up(monkeypatch) == ["1"]
    assert looked_up(monkeypatch, stage="deleted") == []
    assert looked_up(monkeypatch, token="more") == []
    for changed in (
        {keys.STATE: keys.INCOMPLETE},
        {version_tags.VERSION: ""},
        {keys.RUN_ID: "run-2"},
        {keys.MODEL_NAME: "n"},
        {keys.IDENTITY: "2" * 64},
    ):
        assert looked_up(monkeypatch, {**RUN, **changed}) == [], changed
    assert looked_up(monkeypatch, found=version(**{keys.STATE: keys.INCOMPLETE})) == []
    assert looked_up(monkeypatch, found=version(path=ELSEWHERE)) == []


def mlflow_run(run_id: str = "r", stage: str = "active", **tags: str) -> MlflowRun:
    info = RunInfo(run_id, "7", "u", "FINISHED", 1, 2, stage, artifact_uri="")
    return MlflowRun(info, RunData(tags=[RunTag(*item) for item in {**RUN, **tags}.items()]))


def test_a_version_has_the_quick_key_of_the_run_with_its_identity() -> None:
    there = [version("1", quick_key="then"), version("2", path=ELSEWHERE), Version("m", "3", {}, OURS)]

    def keys_of(run: MlflowRun) -> list[tuple[str, str]]:
        found: list[Version] = []
        workspace: Any = SimpleNamespace(
            find_experiment=lambda name: "7",
            each_run=lambda experiment, key, value: [run],
            models=SimpleNamespace(each=lambda model, take: [take(one) for one in there]),
        )
        each_version_of(workspace, "m", "m", found.append)
        return [(one.number, one.tags[keys.QUICK_KEY]) for one in found]

    assert keys_of(mlflow_run()) == [("1", "now")]
    for changed in (
        {keys.IDENTITY: "2" * 64},
        {keys.STATE: keys.INCOMPLETE},
        {version_tags.VERSION: "9"},
        {keys.QUICK_KEY: ""},
    ):
        assert keys_of(mlflow_run(**changed)) == [("1", "then")], changed


def test_the_runs_of_an_identity_are_those_that_still_say_so() -> None:
    runs = {
        "known": mlflow_run("known"),
        "seen": mlflow_run("seen"),
        "deleted": mlflow_run("deleted", "deleted"),
        "retired": mlflow_run("retired", **{keys.IDENTITY: "retired:x"}),
        "other": mlflow_run("other", **{keys.MODEL_NAME: "n"}),
    }
    workspace: Any = SimpleNamespace(
        # A search shows an old state.
        search_runs=lambda *given: [mlflow_run(name) for name in runs if name != "known"],
        retry=lambda operation: operation(),
        client=SimpleNamespace(get_run=runs.__getitem__),
    )
    found = run_adoption._runs_now(workspace, "7", IDENTITY, "m", "known")
    assert [run.info.run_id for run in found] == ["known", "seen"]


def test_a_version_is_the_one_to_be_made_by_identity_and_path() -> None:
    assert _is_same(version(), IDENTITY, OURS)
    assert _is_same(version(path=f"{OURS}/"), IDENTITY, OURS)
    assert not _is_same(version(), "2" * 64, OURS)
    assert not _is_same(version(path=ELSEWHERE), IDENTITY, OURS)
    # Created by an earlier attempt, in the folder of an earlier release: the next attempt continues there.
    with pytest.raises(ServiceUnavailable, match="appeared in another folder"):
        _is_same(version(path=OLD_FORM), IDENTITY, OURS)


@pytest.mark.parametrize("status", [400, 403, 404, 409, 412, 500])
def test_what_may_mean_that_a_number_is_taken_is_returned(status: int) -> None:
    response: Any = SimpleNamespace(
        status_code=status, reason="no", headers={}, text=lambda encoding=None: ""
    )

    def put(*given: Any) -> None:
        raise HttpResponseError("no", response=response)

    def retry(operation: Callable[[], None]) -> None:
        try:
            operation()
        except HttpResponseError as error:
            raise NotAllowed("no", "") from error

    azure: Any = SimpleNamespace(retry=retry)
    registration = Registration(None, SimpleNamespace(put=put), azure, lambda text: None)  # type: ignore[arg-type]
    if status in (400, 409, 412):
        assert isinstance(registration._put("m", "1", {}, lambda: None), MirrorError)
        return
    with pytest.raises(NotAllowed):
        registration._put("m", "1", {}, lambda: None)


BLOCKS = BlockDigests(4, b"x" * 64)
LISTED = block_list.as_json([ManifestEntry("s", "w", 7, "0" * 64, blocks=BLOCKS)]).encode()
STORED = {"w": StoredFile(7, "0x1", "0" * 64)}


def taken_from(
    monkeypatch: pytest.MonkeyPatch,
    stored: dict[str, StoredFile] = STORED,
    default: str = "own",
    path: str = OURS,
    **tags: str,
) -> list[str]:
    """The addresses of files whose blocks are reused, in a workspace with one earlier version."""
    data = stored_files.StoredList(stored).as_json().encode()
    digests = {
        block_list.BLOCKS_SHA256: hashlib.sha256(LISTED).hexdigest(),
        version_tags.STORED_SHA256: hashlib.sha256(data).hexdigest(),
    }
    earlier = version(path=path, **{keys.INTEGRITY: "sha256", **digests, **tags})
    monkeypatch.setattr(
        read_once, "read_blob", lambda container, name, *rest: LISTED if ".blocks-" in name else data
    )
    container = SimpleNamespace(get_blob_client=lambda name: SimpleNamespace(url=f"https://x/{name}?y"))
    workspace: Any = SimpleNamespace(
        models=SimpleNamespace(newest=lambda model: iter([earlier])),
        azure=SimpleNamespace(container=container, datastore=SimpleNamespace(name=default)),
    )
    return [file.url for file in read_once.earlier_blocks(workspace, "m")._files]


def test_blocks_are_taken_from_complete_hashed_versions_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert taken_from(monkeypatch) == [f"https://x/{FOLDER}/model/w"]
    for changed in (
        {keys.STATE: keys.INCOMPLETE},
        {keys.INTEGRITY: "copied"},
        {block_list.BLOCKS_SHA256: ""},
        {block_list.BLOCKS_SHA256: "0" * 64},
        {version_tags.STORED_SHA256: "0" * 64},
        {version_tags.STORED: "0" * 64},
    ):
        assert taken_from(monkeypatch, **changed) == [], changed
    assert taken_from(monkeypatch, path=ELSEWHERE) == []
    # In a datastore other than the one that is written to.
    assert taken_from(monkeypatch, default="another") == []
    for stored in ({}, {"w": StoredFile(8, "0x1", None)}, {"w": StoredFile(7, "", None)}):
        assert taken_from(monkeypatch, stored) == []
