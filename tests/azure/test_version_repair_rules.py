"""What a repair writes, and from where. The blobs of the version are in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aml_mirror.core.errors import DataError, MirrorError, ServiceUnavailable
from aml_mirror.core.manifest import TransferResult
from aml_mirror.registries.azureml import stored_files, version_repair, version_tags
from aml_mirror.registries.azureml.artifact_service import Refused
from aml_mirror.registries.records import FileDigest
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from stored_in_memory import CARD, CONFIG, FOLDER, ITEMS, LOG, MANIFEST, WEIGHTS, Stored


@pytest.fixture
def stored() -> Stored:
    return Stored()


class Artifacts:
    """The artifacts of the run, which may refuse everything."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.data = {name: text.encode() for name, text in texts.items()}
        self.refuses = False

    def read(self, name: str, limit: int) -> bytes | None:
        if self.refuses:
            raise Refused(MirrorError("no"))
        return self.data.get(name)

    def put(self, file: Any) -> None:
        self.data[file.path] = file.open().read()


@pytest.fixture
def artifacts(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    found = Artifacts(stored.texts)
    monkeypatch.setattr(version_repair, "_artifacts", lambda workspace, version: found)
    return found


def repair(stored: Stored, tree: Any, *right: str, allowed: Any = lambda: None) -> TransferResult:
    known = {
        item.path: FileDigest(item.bytes, str(item.sha256), "", stored.blobs.etags[stored.name(item.path)])
        for item in ITEMS
        if item.path in right
    }
    return version_repair.repair(
        stored.workspace, stored.version, tree, MANIFEST, known, lambda count: None, allowed
    )


class Run(dict[str, bytes]):
    """A run whose checkpoint is a dictionary, and whose logs are files."""

    def __init__(self, folder: Path, log: bytes = LOG) -> None:
        super().__init__({"w": WEIGHTS, "config.json": CONFIG})
        (folder / "logs").mkdir(exist_ok=True)
        (folder / "logs" / "events").write_bytes(log)
        source = LocalSource(folder)
        self._tree = Tree(source, source.scan())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tree, name)


def test_what_is_right_is_not_written_by_a_repair(
    stored: Stored, artifacts: Artifacts, tmp_path: Path
) -> None:
    before = dict(stored.blobs.data)
    repair(stored, Run(tmp_path), "w", "config.json")
    assert stored.blobs.data == before and version_tags.STORED not in stored.tags
    assert set(stored.blobs.written) <= {stored_files.copies_of(FOLDER)}


@pytest.mark.parametrize("where", ["own", "artifact", "copies"])
def test_an_own_file_is_restored_from_any_right_copy(
    stored: Stored, artifacts: Artifacts, tmp_path: Path, where: str
) -> None:
    name, copies = stored.name("MODEL_CARD.md"), stored_files.copies_of(FOLDER)
    if where != "own":
        stored.blobs.put(name, b"# other")
    if where != "artifact":
        artifacts.data["MODEL_CARD.md"] = b"# another"
    if where != "copies":
        stored.blobs.put(copies, b"{}")
    repair(stored, Run(tmp_path), "w", "config.json")
    assert stored.blobs.data[name] == artifacts.data["MODEL_CARD.md"] == CARD
    assert stored_files.parse_copies(stored.blobs.data[copies]).texts == stored.texts
    assert stored.reader().own_problems() == ([], [])


def test_an_own_file_without_a_right_copy_stays_as_it_is(
    stored: Stored, artifacts: Artifacts, tmp_path: Path
) -> None:
    stored.blobs.put(stored.name("MODEL_CARD.md"), b"# other")
    stored.blobs.put(stored_files.copies_of(FOLDER), b"{}")
    artifacts.data["MODEL_CARD.md"] = b"# another"
    repair(stored, Run(tmp_path), "w", "config.json")
    assert stored.blobs.data[stored.name("MODEL_CARD.md")] == b"# other"
    assert stored.problems() == ["wrong mirror/MODEL_CARD.md"]


def test_a_manifest_is_restored_from_the_repair_itself(
    stored: Stored, artifacts: Artifacts, tmp_path: Path
) -> None:
    artifacts.data["manifest.json"] = b"{}"
    stored.blobs.put(stored.name("manifest.json"), b"{}")
    stored.blobs.put(stored_files.copies_of(FOLDER), b"{}")
    repair(stored, Run(tmp_path), "w", "config.json")
    assert stored.blobs.data[stored.name("manifest.json")].decode() == MANIFEST.as_json()
    assert artifacts.data["manifest.json"].decode() == MANIFEST.as_json()


def test_where_the_service_refuses_the_version_s_own_files_are_restored(
    stored: Stored, artifacts: Artifacts, tmp_path: Path
) -> None:
    artifacts.refuses = True
    stored.blobs.put(stored.name("MODEL_CARD.md"), b"# other")
    repair(stored, Run(tmp_path), "w", "config.json")
    assert stored.problems() == []


def test_an_artifact_that_refers_to_an_own_file_is_restored_with_it(
    stored: Stored, artifacts: Artifacts, tmp_path: Path
) -> None:
    name = stored.name("MODEL_CARD.md")
    artifacts.read = lambda path, limit: stored.blobs.data[stored.name(path)]  # type: ignore[method-assign]
    artifacts.put = lambda file: pytest.fail(f"{file.path} is written")  # type: ignore[method-assign]
    stored.blobs.put(name, b"# other")
    repair(stored, Run(tmp_path), "w", "config.json")
    assert stored.blobs.data[name] == CARD


def test_a_version_elsewhere_is_not_repaired(stored: Stored, tmp_path: Path) -> None:
    elsewhere = replace(stored.version, path="azureml://datastores/own/paths/elsewhere")
    with pytest.raises(DataError, match="was not made by aml-mirror"):
        version_repair.repair(
            stored.workspace, elsewhere, Run(tmp_path), MANIFEST, {}, lambda count: None, lambda: None
        )
    assert stored.blobs.written == []


def test_a_digest_without_an_etag_proves_nothing_later(
    stored: Stored, artifacts: Artifacts, tmp_path: Path
) -> None:
    known = {item.path: FileDigest(item.bytes, str(item.sha256), "") for item in ITEMS}
    version_repair.repair(
        stored.workspace, stored.version, Run(tmp_path), MANIFEST, known, lambda count: None, lambda: None
    )
    for item in ITEMS:
        etag = stored.blobs.etags[stored.name(item.path)]
        assert stored.reader()._files.list.files[item.path].etag == etag


def test_a_file_that_is_wrong_gets_another_etag_and_the_list_another_digest(
    stored: Stored, artifacts: Artifacts, tmp_path: Path
) -> None:
    stored.blobs.put(stored.name("w"), b"x")
    repair(stored, Run(tmp_path), "config.json")
    assert stored.reader().changed(MANIFEST) == []
    assert stored.tags[version_tags.STORED] != stored.tags[version_tags.STORED_SHA256]
    assert stored.reader()._files.list.files["w"].etag == stored.blobs.etags[stored.name("w")]


def test_nothing_is_tagged_by_a_repair_that_lost_its_claim(
    stored: Stored, artifacts: Artifacts, tmp_path: Path
) -> None:
    stored.blobs.put(stored.name("w"), b"x")

    def refuse() -> None:
        raise ServiceUnavailable("another has it", "")

    with pytest.raises(ServiceUnavailable, match="another has it"):
        repair(stored, Run(tmp_path), "config.json", allowed=refuse)
    assert version_tags.STORED not in stored.tags
    stored.blobs.put(stored.name("tensorboard/events"), b"x")
    stored.blobs.written.clear()
    with pytest.raises(ServiceUnavailable, match="another has it"):
        repair(stored, Run(tmp_path), "w", "config.json", allowed=refuse)
    assert stored.blobs.written == []


@pytest.mark.parametrize(
    ("log", "restored"), [(LOG, True), (LOG + b"more", True), (b"x" + LOG[1:], False), (LOG[:-1], False)]
)
def test_a_log_is_restored_if_the_run_still_has_its_bytes(
    stored: Stored, artifacts: Artifacts, tmp_path: Path, log: bytes, restored: bool
) -> None:
    name = stored.name("tensorboard/events")
    stored.blobs.put(name, b"x" * len(LOG))
    repair(stored, Run(tmp_path, log), "w", "config.json")
    assert stored.blobs.data[name] == (LOG if restored else b"x" * len(LOG))
    assert stored.problems() == ([] if restored else ["wrong mirror/tensorboard/events"])


def test_a_list_that_is_lost_twice_is_told(stored: Stored, artifacts: Artifacts, tmp_path: Path) -> None:
    name = stored_files.name_of(FOLDER, stored.tags[version_tags.STORED_SHA256])
    stored.blobs.put(name, b"{}")
    moved = repair(stored, Run(tmp_path), "w", "config.json")
    assert moved.warnings == () and stored.problems() == []
    stored.blobs.put(stored_files.name_of(FOLDER, stored.files.digest), b"{}")
    stored.blobs.put(stored_files.copies_of(FOLDER), b"{}")
    moved = repair(stored, Run(tmp_path), "w", "config.json")
    assert "is lost, and so is its copy" in moved.warnings[0]
