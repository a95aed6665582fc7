"""Which files of a version are believed, and what verify and --hash say of them. The blobs are in memory."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from types import SimpleNamespace

import pytest

from aml_mirror.core.errors import DataError, ServiceUnavailable
from aml_mirror.core.manifest import Manifest, StoredFile
from aml_mirror.registries import records
from aml_mirror.registries.azureml import reader, stored_files, version_files, version_tags
from aml_mirror.registries.azureml.reader import AzureMLVersionReader
from aml_mirror.registries.azureml.version_files import VersionFiles
from builders.blobs import Blobs
from builders.stored_version import entry, sha256
from stored_in_memory import CARD, FOLDER, ITEMS, LOG, MANIFEST, RETRY, STATE, WEIGHTS, Stored


@pytest.fixture
def stored() -> Stored:
    return Stored()


def test_a_version_as_it_was_mirrored_has_no_problem_and_is_not_read(stored: Stored) -> None:
    found = stored.reader()
    assert found.own_problems() == ([], []) and found.files() == {"config.json": 2, "w": 63}
    # Its own ETags prove the bytes.
    found.hashed = lambda path: pytest.fail("a blob is read")  # type: ignore[method-assign]
    assert found.changed(MANIFEST) == []


def test_a_blob_of_another_etag_is_read_and_its_bytes_decide(stored: Stored) -> None:
    stored.blobs.put(stored.name("w"), WEIGHTS)
    assert stored.reader().changed(MANIFEST) == []
    stored.blobs.put(stored.name("w"), b"x" + WEIGHTS[1:])
    assert stored.reader().changed(MANIFEST) == ["w"]
    # Nothing is known to have been stored there.
    del stored.tags[version_tags.STORED_SHA256]
    assert stored.reader().changed(MANIFEST) == ["w"]


def test_of_a_file_that_nobody_hashed_what_was_stored_or_the_md5_decides(stored: Stored) -> None:
    md5 = hashlib.md5(WEIGHTS).hexdigest()
    copied = Manifest((ITEMS[0], entry("w", WEIGHTS, etag="0x9", md5=md5)))
    plain = Manifest((ITEMS[0], entry("w", WEIGHTS, etag="0x9")))
    other = b"x" + WEIGHTS[1:]
    for data, changed in ((WEIGHTS, []), (other, ["w"])):
        stored.blobs.put(stored.name("w"), data)
        # What was sent instead of a refused copy was hashed.
        assert stored.reader().changed(plain) == changed
    del stored.tags[version_tags.STORED_SHA256]
    assert stored.reader().changed(copied) == ["w"] and stored.reader().changed(plain) == []
    stored.blobs.put(stored.name("w"), WEIGHTS)
    assert stored.reader().changed(copied) == []


def test_a_file_that_is_missing_cut_or_extra_is_changed(stored: Stored) -> None:
    stored.blobs.put(stored.name("w"), WEIGHTS[:-1])
    del stored.blobs.data[stored.name("config.json")]
    stored.blobs.put(f"{FOLDER.bytes}/more/x", b"x")
    # An empty blob is the mark of a folder.
    stored.blobs.put(f"{FOLDER.bytes}/empty", b"")
    assert stored.reader().changed(MANIFEST) == ["config.json", "w", "more/x"]
    assert set(stored.reader().files()) == {"w", "more/x", "empty"}
    assert stored.reader().hashed("w").sha256 == sha256(WEIGHTS[:-1])
    # A size that differs is enough.
    again = stored.reader()
    again.hashed = lambda path: pytest.fail("a blob is read")  # type: ignore[method-assign]
    assert "w" in again.changed(MANIFEST)


def test_folders_of_a_hierarchical_namespace_are_no_files(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{FOLDER.bytes}/more"
    stored.blobs.put(name, b"")
    stored.blobs.metadata[name] = {"Hdi_isfolder": "true"}
    assert set(stored.reader().files()) == {"w", "config.json"}
    monkeypatch.setattr(reader, "MAX_LISTED", 2)
    assert len(stored.reader().files()) == 2
    stored.blobs.put(f"{FOLDER.bytes}/third", b"")
    with pytest.raises(DataError, match="holds over 2 files"):
        stored.reader().files()


def test_a_log_that_is_longer_may_be_of_a_mirror_that_was_not_finished(stored: Stored) -> None:
    name = stored.name("tensorboard/events")
    for data, told in ((LOG + b"x", True), (LOG[:-1], False)):
        stored.blobs.put(name, data)
        ((_, why),), _ = stored.reader().own_problems()
        assert ("a mirror that continued the log" in why) == told and f"{len(LOG)} were mirrored" in why


@pytest.mark.parametrize("path", ["MODEL_CARD.md", "manifest.json", "tensorboard/events", "state"])
def test_each_own_file_is_compared(stored: Stored, path: str) -> None:
    state = records.log_state_name(sha256(STATE))
    name = f"{FOLDER.own}.{state}" if path == "state" else stored.name(path)
    shown = f"mirror/{state if path == 'state' else path}"
    data = stored.blobs.data[name]
    for changed in (b"x" + data[1:], data + b"x", data[:-1]):
        stored.blobs.put(name, changed)
        assert stored.problems() == [f"wrong {shown}"]
    del stored.blobs.data[name]
    assert stored.problems() == [f"missing {shown}"]


def test_a_list_that_was_changed_is_missing_and_its_second_copy_counts(stored: Stored) -> None:
    name = stored_files.name_of(FOLDER, stored.tags[version_tags.STORED_SHA256])
    stored.blobs.put(name, stored.blobs.data[name].replace(b"0x", b"0y"))
    assert stored.problems() == ["missing mirror/list of stored files"]
    stored.blobs.put(stored.name("MODEL_CARD.md"), b"# other")
    assert stored.problems()[0] == "wrong mirror/MODEL_CARD.md"
    # A second copy proves nothing by itself.
    copies = stored_files.copies_of(FOLDER)
    stored.blobs.put(copies, stored.blobs.data[copies].replace(b"0x", b"0z"))
    assert stored.problems() == ["missing mirror/list of stored files"]
    assert stored.reader().stored_sha256("w") is None


def test_a_list_is_written_before_its_digest_and_the_former_one_goes(stored: Stored) -> None:
    before = stored_files.name_of(FOLDER, stored.tags[version_tags.STORED_SHA256])
    named: list[str] = []

    def name_it(digest: str) -> None:
        assert stored_files.name_of(FOLDER, digest) in stored.blobs.data and before in stored.blobs.data
        named.append(digest)

    stored.files.save(name_it)
    assert named == [] and stored.blobs.written == []
    stored.files.list.own["more"] = "0" * 64
    stored.files.save(name_it)
    assert named == [stored.files.digest] == [stored.files.list_digest]
    assert before not in stored.blobs.data and stored.files.list_digest not in before


def test_a_list_of_an_attempt_is_written_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(version_files, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    files = VersionFiles(Blobs(), FOLDER, RETRY)  # type: ignore[arg-type]
    one = StoredFile(1, "0x1", None)
    assert not files.note("a", one)
    clock[0] += version_files.SAVE_SECONDS
    assert files.note("b", one) and not files.note("c", one)
    assert set(files.list.files) == {"a", "b", "c"}


def test_a_log_of_an_earlier_attempt_is_sent_again_unless_its_bytes_are_the_same(stored: Stored) -> None:
    files = stored.files
    put = ("tensorboard/events", "logs/events", len(LOG), lambda: io.BytesIO(LOG))
    assert files.put_log(*put) == len(LOG)
    files.is_taken_up, stored.blobs.written[:] = True, []
    assert files.put_log(*put) == 0 and stored.blobs.written == []
    stored.blobs.put(stored.name("tensorboard/events"), b"x" + LOG[1:])
    assert files.put_log(*put) == len(LOG)
    assert files.list.logs["tensorboard/events"].sha256 == sha256(LOG)
    assert files.digest_of("tensorboard/events", len(LOG) - 1) is None
    assert files.digest_of("none", 1) is None and files.size_of("none") is None


def test_a_log_that_does_not_arrive_whole_is_an_error(stored: Stored) -> None:
    with pytest.raises(ServiceUnavailable, match="arrived with 35 of 36 bytes"):
        stored.files.put_log("tensorboard/events", "logs/events", len(LOG) + 1, lambda: io.BytesIO(LOG))


def test_a_blob_that_is_too_long_is_not_read(stored: Stored) -> None:
    assert stored.files.read("MODEL_CARD.md", len(CARD)) == CARD
    assert stored.files.read("MODEL_CARD.md", len(CARD) - 1) is None
    assert stored.files.read("none", 1) is None


def test_a_version_elsewhere_is_not_read(stored: Stored) -> None:
    for path in ("azureml://datastores/own/paths/elsewhere", ""):
        with pytest.raises(DataError, match="was not made by aml-mirror"):
            AzureMLVersionReader(stored.workspace, replace(stored.version, path=path))
