"""Which version, list and folder of an Azure ML workspace is trusted, decided without a request."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace
from typing import Any

import pytest
from azure.storage.blob import BlobProperties

from aml_mirror.core.errors import DataError, ServiceUnavailable
from aml_mirror.core.manifest import BlockDigests, ManifestEntry, StoredFile
from aml_mirror.registries import keys
from aml_mirror.registries.azureml import block_list, stored_files, version_tags
from aml_mirror.registries.azureml.model_versions import Models
from aml_mirror.registries.azureml.version_folder import folder_in, folder_of, is_ours
from aml_mirror.registries.records import Version
from aml_mirror.support.retry import Retry
from aml_mirror.transfer.proof import fits, has_size, is_proven

DIGEST = "d" * 64
TAGS = {
    keys.RUN_ID: "run-1",
    keys.CHECKPOINT: "ckpt",
    keys.MANIFEST_SHA256: DIGEST,
    keys.IDENTITY: "1" * 64,
    keys.MODEL_NAME: "m",
}
FOLDER = f"aml-mirror/run-1/ckpt/sha256-{DIGEST}"
PATHS = "azureml://datastores/own/paths/"
OURS = f"{PATHS}{FOLDER}/model"


def version(path: str = OURS, **tags: str) -> Version:
    return Version("m", "1", {**TAGS, **tags}, path)


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        (OURS, True),
        (f"{OURS}/", True),
        # As earlier releases had it.
        (f"{PATHS}aml-mirror/run-1/ckpt/{DIGEST}", True),
        (f"{PATHS}{FOLDER}", False),
        (f"{PATHS}{FOLDER}/model/more", False),
        (f"{PATHS}aml-mirror/run-2/ckpt/sha256-{DIGEST}/model", False),
        (f"{PATHS}aml-mirror/run-1/other/sha256-{DIGEST}/model", False),
        (f"{PATHS}aml-mirror/run-1/ckpt/sha256-{'e' * 64}/model", False),
        ("azureml://jobs/own/outputs/x", False),
        ("", False),
    ],
)
def test_a_version_is_ours_by_its_path(path: str, ours: bool) -> None:
    assert is_ours(version(path)) == ours
    folder = folder_in(path, TAGS)
    assert (folder is not None) == ours
    if folder is not None:
        assert (folder.datastore, folder.own) == ("own", f"{FOLDER}/mirror/m")


@pytest.mark.parametrize("missing", [keys.RUN_ID, keys.MANIFEST_SHA256])
def test_a_version_that_does_not_say_what_it_is_has_no_folder(missing: str) -> None:
    assert folder_in(OURS, {**TAGS, missing: ""}) is None


def test_a_run_names_its_version_only_with_the_mark_the_number_and_the_identity() -> None:
    run = {**TAGS, keys.STATE: keys.COMPLETE, version_tags.VERSION: "1", keys.QUICK_KEY: "now"}
    assert version_tags.names_version(run)
    assert not version_tags.names_version({**run, keys.STATE: keys.INCOMPLETE})
    assert not version_tags.names_version({**run, version_tags.VERSION: ""})
    found = version_tags.named_by(run, version(quick_key="then"))
    assert found is not None and found.tags[keys.QUICK_KEY] == "now"
    assert version_tags.named_by(run, None) is None
    assert version_tags.named_by(run, version(**{keys.IDENTITY: "2" * 64})) is None
    assert version_tags.named_by(run, version(f"{PATHS}elsewhere")) is None


def test_what_a_version_is_comes_from_its_properties_and_the_run_from_its_tags() -> None:
    properties = {"identity": "own", "mlflow_run_id": "first"}
    made = version_tags.version_of("m", 3, {"identity": "edited", "note": "x"}, properties, OURS, True)
    assert (made.tags["identity"], made.tags["mlflow_run_id"]) == ("own", "first")
    assert (made.number, made.archived, made.tags["note"]) == ("3", True, "x")
    made = version_tags.version_of("m", 3, {"mlflow_run_id": "later"}, properties, None)
    assert (made.tags["mlflow_run_id"], made.path) == ("later", "")


def test_a_list_counts_only_with_the_digest_that_is_pinned() -> None:
    listed = stored_files.StoredList({"a": StoredFile(1, "0x1", None)}, {"card": "c" * 64})
    data = listed.as_json().encode()
    digest = hashlib.sha256(data).hexdigest()
    assert stored_files.parse(data, digest) == listed
    for wrong in (data.replace(b"0x1", b"0x2"), b"", None):
        assert stored_files.parse(wrong, digest) is None
    assert stored_files.parse(data, "") is None
    other = data.replace(b"stored/v1", b"stored/v9")
    assert stored_files.parse(other, hashlib.sha256(other).hexdigest()) is None
    # After a repair the tag takes precedence over the property.
    tags = {version_tags.STORED_SHA256: "property"}
    assert stored_files.digest_in(tags) == "property"
    assert stored_files.digest_in({**tags, version_tags.STORED: "tag"}) == "tag"


def test_second_copies_of_another_form_are_none() -> None:
    text = stored_files.Copies("list", {"card": "x"}).as_json()
    assert stored_files.parse_copies(text.encode()).texts == {"card": "x"}
    for data in (None, b"", b"[]", b"{", text.replace("copies/v1", "copies/v9").encode()):
        assert stored_files.parse_copies(data) == stored_files.Copies()


def test_a_list_of_blocks_counts_only_with_the_digest_that_is_pinned() -> None:
    blocks = BlockDigests(4, b"x" * 64)
    listed = [ManifestEntry("s", "w", 7, "0" * 64, blocks=blocks), ManifestEntry("s", "small", 1, "1" * 64)]
    data = block_list.as_json(listed).encode()
    digest = hashlib.sha256(data).hexdigest()
    assert block_list.parse(data, digest) == {"w": (7, blocks)}
    for wrong in (data.replace(b'"bytes": 7', b'"bytes": 8'), b"", None):
        assert block_list.parse(wrong, digest) == {}
    for key in ("schema", "digest"):
        other = json.dumps({**json.loads(data), key: "another"}).encode()
        assert block_list.parse(other, hashlib.sha256(other).hexdigest()) == {}
    assert block_list.as_json(listed[1:]) == ""


ITEM = ManifestEntry("s", "w", 7, "0" * 64)


def blob(size: int = 7, etag: str = "0x1", copy: str | None = None) -> BlobProperties:
    found = BlobProperties()
    found.size, found.etag, found.copy.status = size, f'"{etag}"', copy
    return found


def test_a_blob_is_proven_by_the_etag_of_a_commit_and_its_size() -> None:
    known = {"w": StoredFile(7, "0x1", ITEM.sha256)}
    assert is_proven(ITEM, blob(), known) and is_proven(ITEM, blob(copy="success"), known)
    for there in (blob(8), blob(6), blob(etag="0x2"), blob(copy="pending"), blob(copy="failed"), None):
        assert not is_proven(ITEM, there, known)
    assert not is_proven(ITEM, blob(), {})
    # If a store has no ETags, their absence proves nothing.
    assert not is_proven(ITEM, blob(etag=""), {"w": StoredFile(7, "", ITEM.sha256)})
    assert has_size(ITEM, blob(etag="0x2")) and not has_size(ITEM, None)


def test_what_an_earlier_attempt_stored_counts_where_bytes_and_digest_fit() -> None:
    assert fits(ITEM, StoredFile(7, "0x1", ITEM.sha256))
    for other in (StoredFile(8, "0x1", ITEM.sha256), StoredFile(7, "0x1", "1" * 64), None):
        assert not fits(ITEM, other)
    # The store's own copy counts only for a file that nobody hashed.
    assert fits(ManifestEntry("s", "w", 7, None), StoredFile(7, "0x1", None))
    assert not fits(ITEM, StoredFile(7, "0x1", None))


def models(found: dict[str, Any] | None, put: list[Any]) -> Models:
    service: Any = SimpleNamespace(
        version_if_any=lambda model, number: found, put=lambda model, number, made: put.append(made)
    )
    return Models(service, Retry(0, lambda error: error, lambda text: None))  # type: ignore[arg-type,return-value]


def properties_of(version: Version, **changed: Any) -> dict[str, Any]:
    return {
        "tags": {"theirs": "x"},
        "properties": version.tags,
        "modelUri": version.path,
        "isArchived": False,
        **changed,
    }


def test_a_version_that_is_another_one_now_is_not_tagged() -> None:
    ours, put = version(), list[Any]()
    for other in (version(**{keys.IDENTITY: "2" * 64}), version(f"{PATHS}elsewhere")):
        with pytest.raises(DataError, match="was replaced"):
            models(properties_of(other), put).tag(ours, {"a": "1"})
    with pytest.raises(ServiceUnavailable, match="no longer exists"):
        models(None, put).tag(ours, {"a": "1"})
    assert put == []


def test_tagging_keeps_what_others_wrote_and_asks_before_it_writes() -> None:
    ours, put = version(), list[Any]()
    there = properties_of(ours, isArchived=True)
    models(there, put).tag(ours, {"a": "1"})
    assert put[0] == {**there, "tags": {"theirs": "x", "a": "1"}}
    models(there, put).tag(ours, {}, removed=["theirs"])
    assert put[1]["tags"] == {}
    # Existing values are not written again.
    models(there, put).tag(ours, {"theirs": "x"}, removed=["absent"])
    assert len(put) == 2

    def refuse() -> None:
        raise ServiceUnavailable("the claim is lost", "")

    with pytest.raises(ServiceUnavailable, match="the claim is lost"):
        models(there, put).tag(ours, {"a": "1"}, refuse)
    assert len(put) == 2


def test_the_numbers_of_folders() -> None:
    assert folder_of(TAGS).bytes == f"{FOLDER}/model"
    assert folder_of({**TAGS, keys.MODEL_NAME: "n"}).own != folder_of(TAGS).own
