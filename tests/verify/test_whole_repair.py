"""Verify and repair from the first step to the last, with a registry in a folder and no process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from aml_mirror.core.errors import DataError, UsageError
from aml_mirror.core.manifest import TransferResult
from aml_mirror.registries import keys
from aml_mirror.registries.records import Version
from aml_mirror.verify import repair as repairing
from aml_mirror.verify import verify as verifying
from aml_mirror.verify.repair import Repair, repair
from aml_mirror.verify.verify import MAX_LISTED, Verification, text, verify_version
from builders.runs import huggingface_run, write_weights
from builders.shelf import CONSOLE, Shelf, mirror, settings


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-1", points=3, size=8)


@pytest.fixture
def shelf(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A registry with one version, of the older checkpoint. Every command opens it."""
    found = Shelf(tmp_path / "shelf", "")
    mirror(run, found, checkpoint="checkpoint-10")
    for module in (verifying, repairing):
        monkeypatch.setattr(module, "open_version", lambda settings, console: (found, found.all_of("m")[0]))
    return found


def stored(shelf: Shelf, name: str = "model/model.safetensors") -> Path:
    (folder,) = (shelf.folder / "files").iterdir()
    return folder / name


def verified(shelf: Shelf, *public_keys: Any) -> Verification:
    return verify_version(shelf, shelf.all_of("m")[0], public_keys, CONSOLE)


def repaired(run: Path | str = "") -> Repair:
    # The final checkpoint of the run is another one than that of the version.
    return repair(replace(settings(Path("x")), source=str(run)), CONSOLE)


def test_what_is_right_is_not_written(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "repair", lambda *given: pytest.fail("something is written"))
    done = repaired()
    assert done.as_dict()["outcome"] == "verified" and done.as_dict()["written"] == []
    assert done.text() == "nothing to repair: m version 1 is what was mirrored"


@pytest.mark.parametrize("how", ["changed", "deleted", "cut"])
def test_only_what_is_wrong_is_written_from_the_run_that_the_version_names(shelf: Shelf, how: str) -> None:
    weights, config = stored(shelf), stored(shelf, "model/config.json")
    whole, untouched = weights.read_bytes(), config.stat().st_mtime_ns
    if how == "deleted":
        weights.unlink()
    else:
        weights.write_bytes(whole[:-1] + (b"x" if how == "changed" else b""))
    done = repaired()
    said = done.as_dict()
    assert (said["outcome"], said["exit_code"], said["written"]) == ("repaired", 0, ["model.safetensors"])
    assert said["schema"] == "aml-mirror/repair/v1" and said["bytes_written"] == len(whole)
    assert weights.read_bytes() == whole and config.stat().st_mtime_ns == untouched
    assert done.text().startswith("repaired: m version 1, 1 file(s) written")


def test_a_source_without_the_bytes_writes_nothing(shelf: Shelf, run: Path) -> None:
    stored(shelf).write_bytes(b"x")
    write_weights(run / "checkpoint-10" / "model.safetensors", seed=9, size=8)
    with pytest.raises(DataError, match=r"no longer has the bytes of version 1 of m: model\.safetensors"):
        repaired()
    assert stored(shelf).read_bytes() == b"x"
    # A copy of the run that has them is enough.
    copy = huggingface_run(run.parent / "copy", points=3, size=8)
    assert repaired(copy).as_dict()["outcome"] == "repaired"


def test_a_repair_that_changed_nothing_says_so(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(shelf).write_bytes(b"x")
    monkeypatch.setattr(shelf, "repair", lambda *given: TransferResult())
    done = repaired()
    assert (done.as_dict()["outcome"], done.as_dict()["exit_code"]) == ("differs", 65)
    assert done.text() == "not repaired: m version 1 still differs"


def test_a_run_that_changes_while_it_is_repaired_from_is_an_error(
    shelf: Shelf, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(shelf).write_bytes(b"x")
    real = shelf.repair

    def change(*given: Any) -> TransferResult:
        done = real(*given)
        write_weights(run / "checkpoint-10" / "model.safetensors", seed=9, size=8)
        return done

    monkeypatch.setattr(shelf, "repair", change)
    with pytest.raises(DataError, match=r"model\.safetensors changed while the run was mirrored"):
        repaired()


def test_a_lost_manifest_is_made_again_and_every_file_is_read(shelf: Shelf) -> None:
    stored(shelf, "manifest.json").write_text("{}")
    stored(shelf).write_bytes(b"x")
    given: list[Any] = []
    real = shelf.repair

    def noted(version: Version, tree: Any, manifest: Any, right: Any, progress: Any) -> TransferResult:
        given.append((manifest.sha256, sorted(right)))
        stored(shelf, "manifest.json").write_text(manifest.as_json())
        return real(version, tree, manifest, right, progress)

    shelf.repair = noted  # type: ignore[method-assign]
    done = repaired()
    assert given == [(shelf.all_of("m")[0].tags[keys.MANIFEST_SHA256], ["config.json"])]
    assert done.before is None and done.as_dict()["outcome"] == "repaired"
    assert done.written == ["model.safetensors"]


def test_a_version_that_is_not_complete_or_not_ours_is_not_repaired(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    (version,) = shelf.all_of("m")
    monkeypatch.setattr(repairing, "verify", lambda *given: pytest.fail("it is verified"))
    for tags, words in (
        ({keys.STATE: keys.INCOMPLETE}, "is not complete"),
        ({keys.MANIFEST_SHA256: ""}, "was not made by aml-mirror"),
        ({keys.CHECKPOINT: "checkpoint-20"}, "contradict each other"),
    ):
        shelf.write_version(Version("m", "1", {**version.tags, **tags}))
        with pytest.raises(DataError, match=words):
            repaired()


def test_a_version_that_names_no_source_needs_one(shelf: Shelf, run: Path) -> None:
    stored(shelf).write_bytes(b"x")
    shelf.annotate(shelf.all_of("m")[0], {keys.OUTPUT_DIR: ""})
    with pytest.raises(UsageError, match="does not name the source of its run"):
        repaired()
    assert repaired(run).as_dict()["outcome"] == "repaired"


def test_a_state_of_the_logs_that_is_lost_is_made_again_from_the_run(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = "5" * 64
    shelf.annotate(shelf.all_of("m")[0], {keys.LOGS: f"1:{digest}:x"})
    lost, asked = [f"mirror/logs-{digest}.json"], []

    def restore(registry: Any, located: Any, version: Version) -> bool:
        asked.append(version.number)
        lost.clear()
        return True

    reader = type(shelf.version_reader(shelf.all_of("m")[0]))
    monkeypatch.setattr(reader, "own_problems", lambda self: ([], list(lost)))
    monkeypatch.setattr(repairing.log_update, "restore_state", restore)
    done = repaired()
    assert asked == ["1"] and done.written == [f"mirror/logs-{digest}.json"]
    # Another lost file is not its business.
    lost.append("mirror/MODEL_CARD.md")
    assert repaired().as_dict()["outcome"] == "differs" and asked == ["1"]


def test_what_differs_is_listed_and_counted(shelf: Shelf) -> None:
    found = verified(shelf)
    assert found.holds and text(found).startswith("verified: m version 1, 2 file(s)")
    assert "repair" not in text(found) and "pinned   manifest" in text(found)
    stored(shelf).write_bytes(b"x")
    stored(shelf, "model/config.json").unlink()
    for number in range(MAX_LISTED):
        (stored(shelf, "model") / f"{number:03}.json").write_text("{}")
    found = verified(shelf)
    lines = text(found).splitlines()
    assert lines[0] == "differs: m version 1 is not what was mirrored"
    assert [line.split()[0] for line in lines[1:6]] == ["right", "pinned", "wrong", "missing", "extra"]
    assert "model.safetensors: it has 1 bytes" in lines[3]
    assert lines[-2:] == ["  … and 2 more", "  repair   aml-mirror repair m:1"]
    said = found.as_dict()
    assert (said["outcome"], said["exit_code"], said["repair"]) == ("differs", 65, "aml-mirror repair m:1")
    assert len(said["extra"]) == MAX_LISTED and "extra_count" not in said
    (stored(shelf, "model") / "more.json").write_text("{}")
    said = verified(shelf).as_dict()
    assert len(said["extra"]) == MAX_LISTED and said["extra_count"] == MAX_LISTED + 1


def test_a_version_that_nobody_signed_fails_where_a_signature_is_wanted(shelf: Shelf) -> None:
    assert verified(shelf).signed_by is None
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    with pytest.raises(DataError):
        verified(shelf, key)


def test_where_a_manifest_was_lost_what_was_copied_is_listed_again(
    shelf: Shelf, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest is made of ETags, and hashing would give another one."""
    (version,) = shelf.all_of("m")
    copied = Version("m", "1", {**version.tags, keys.INTEGRITY: "copied"})
    located, _ = repairing._checkpoint_of(copied, settings(run), CONSOLE)
    monkeypatch.setattr(type(located.source), "has_etags", True)
    monkeypatch.setattr(repairing, "hash_files", lambda *given: pytest.fail("it is hashed"))
    paths = {"config.json": "checkpoint-10/config.json"}
    with pytest.raises(DataError, match="is lost"):
        repairing._made_again(copied, located, paths, CONSOLE)
    etags = repairing.listed_files(located.tree, {source: path for path, source in paths.items()})
    ours = Version("m", "1", {**copied.tags, keys.MANIFEST_SHA256: etags.sha256})
    assert json.loads(repairing._made_again(ours, located, paths, CONSOLE).as_json())["files"]
