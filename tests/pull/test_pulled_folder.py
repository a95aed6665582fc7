"""DIR is complete or absent: a pull is killed at any change of the disk, and another pull follows."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest

from aml_mirror.core.errors import DataError, MirrorError, ServiceUnavailable, UsageError
from aml_mirror.core.manifest import BlockDigests, Manifest, ManifestEntry, identity
from aml_mirror.core.settings import Settings
from aml_mirror.pull import pull as steps
from aml_mirror.pull.mlflow_files import LocalFiles
from aml_mirror.pull.pulled_folder import PulledFolder, read_record, require_safe_paths
from aml_mirror.pull.resolved import ResolvedVersion
from aml_mirror.pull.result import Pulled
from aml_mirror.pull.verify_folder import verify_folder
from aml_mirror.registries.records import Version
from aml_mirror.support.progress import Console
from aml_mirror.support.retry import Retry
from builders.killing import die_at_change, in_a_child

FILES = {"config.json": b"{}", "deep/er/weights.bin": bytes(range(256)) * 40, "empty.txt": b""}
QUIET = Console(io.StringIO())


@dataclass
class Stored:
    """A version whose files are on this disk."""

    root: Path
    number: str
    contents: dict[str, bytes]
    is_ours: bool = True
    manifest: Manifest = field(init=False)
    pinned: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        entries = []
        for path, data in sorted(self.contents.items()):
            (self.root / "model" / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / "model" / path).write_bytes(data)
            entries.append(ManifestEntry(path, path, len(data), hashlib.sha256(data).hexdigest()))
        self.manifest = Manifest(tuple(entries))
        (self.root / "manifest.json").write_text(self.manifest.as_json())

    @cached_property
    def files(self) -> LocalFiles:
        return LocalFiles(
            str(self.root / "model"), Retry(0, lambda error: MirrorError(str(error)), lambda text: None)
        )

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        if (self.root / name).exists():
            yield (self.root / name).read_bytes()

    def own_digests(self) -> dict[str, str]:
        return self.pinned

    def blocks(self) -> dict[str, tuple[int, BlockDigests]]:
        return {}

    @property
    def resolved(self) -> ResolvedVersion:
        digest = self.manifest.sha256
        tags = {
            "osmo.run_id": "run-7", "checkpoint": "c", "manifest_sha256": digest, "safety": "safetensors",
            "identity": identity("run-7", "c", digest), "mirror.state": "complete", "framework": "lerobot",
        }  # fmt: skip
        version = Version("act", self.number, tags if self.is_ours else {})
        return ResolvedVersion(version, version.tags, {}, "a disk", "nothing", self)


def pull(stored: Stored, target: Path, **more: object) -> Pulled:
    """Pull a version that is already resolved."""
    settings = Settings(folder=str(target), concurrency=3, **more)  # type: ignore[arg-type]
    folder = PulledFolder(settings.folder)
    with folder.locked():
        return steps._Pull(settings, QUIET, folder, stored.resolved, None, 0.0).run()


def brought(target: Path) -> int:
    """How many bytes of a version's files are next to DIR."""
    folder = PulledFolder(str(target)).new / "model"
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def versions(tmp_path: Path) -> tuple[Stored, Stored]:
    first = Stored(tmp_path / "store-1", "1", FILES)
    return first, Stored(tmp_path / "store-2", "2", {**FILES, "config.json": b'{"new": true}'})


def contents(target: Path) -> dict[str, bytes]:
    root = target / "model"
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def assert_whole(target: Path, *versions: Stored) -> None:
    """DIR is one of the versions, to the last byte."""
    assert contents(target) in [version.contents for version in versions]
    assert verify_folder(target, "", QUIET).holds


@pytest.mark.parametrize("name", ["MODEL_CARD.md", "model.sig", "provenance.dsse.json", "safety.json"])
def test_own_files_are_what_the_registry_pins(
    versions: tuple[Stored, Stored], tmp_path: Path, name: str
) -> None:
    stored, target = versions[0], tmp_path / "policy"
    whole = b"one line\n" * 100
    (stored.root / name).write_bytes(whole[:-7])
    stored.pinned[name] = hashlib.sha256(whole).hexdigest()
    with pytest.raises(
        DataError, match=rf"^version 1 of act is not what was mirrored: {name}: its SHA-256 is"
    ):
        pull(stored, target)
    assert not target.exists()
    (stored.root / name).write_bytes(whole)
    assert pull(stored, target).outcome == "pulled"
    assert (target / "mirror" / name).read_bytes() == whole


def test_an_own_file_that_is_missing_is_told(
    versions: tuple[Stored, Stored], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = io.StringIO()
    monkeypatch.setattr(f"{__name__}.QUIET", Console(told))
    versions[0].pinned["MODEL_CARD.md"] = "0" * 64
    assert pull(versions[0], tmp_path / "policy").outcome == "pulled"
    assert "MODEL_CARD.md of version 1 of act is missing" in told.getvalue()


@pytest.mark.parametrize("replaces", [False, True])
def test_killed_at_any_change_of_the_disk(
    versions: tuple[Stored, Stored], tmp_path: Path, replaces: bool
) -> None:
    old, new = versions
    number = 0
    absent = 0
    while True:
        number += 1
        target = tmp_path / f"dir-{number}" / "policy"
        if replaces:
            pull(old, target)

        def attempt(target: Path = target, number: int = number) -> None:
            die_at_change(number)
            pull(new, target, replace=replaces)

        status = in_a_child(attempt)
        if target.exists():
            assert_whole(target, *((old, new) if replaces else (new,)))
        else:
            absent += 1
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        there = brought(target)
        done = pull(new, target, replace=replaces)
        # It continues with everything that the killed pull downloaded.
        assert done.outcome == "already-pulled" or done.fetched.kept == there, number
        assert_whole(target, new)
        assert [path.name for path in target.parent.iterdir()] == ["policy"]
    assert number > 30
    # With --replace there is a moment without DIR: between its two renames.
    assert absent == (1 if replaces else absent)


def test_a_pull_that_was_killed_between_the_renames_is_finished_by_any_other(
    versions: tuple[Stored, Stored], tmp_path: Path
) -> None:
    old, new = versions
    target = tmp_path / "policy"
    pull(old, target)

    def attempt() -> None:
        rename = Path.rename

        def second(self: Path, to: Path) -> Path:
            if self.name.endswith("aml-mirror-new"):
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, to)

        Path.rename = second  # type: ignore[method-assign, assignment]
        pull(new, target, replace=True)

    in_a_child(attempt)
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(".policy.aml-mirror-")]
    assert sorted(left) == [
        ".policy.aml-mirror-lock", ".policy.aml-mirror-new", ".policy.aml-mirror-old",
    ]  # fmt: skip
    assert not target.exists()
    with pytest.raises(UsageError, match="contains act version 2"):
        pull(old, target)
    assert_whole(target, new)


def test_what_is_in_dir_decides(versions: tuple[Stored, Stored], tmp_path: Path) -> None:
    old, new = versions
    target = tmp_path / "policy"
    assert pull(old, target).outcome == "pulled"
    again = pull(old, target)
    assert (again.outcome, again.fetched.read) == ("already-pulled", 0)
    with pytest.raises(UsageError, match="contains act version 1"):
        pull(new, target)
    assert pull(new, target, replace=True).fetched.reused == len(FILES["deep/er/weights.bin"])
    assert_whole(target, new)
    # A file that somebody changed, added or removed.
    for change in (
        lambda: (target / "model" / "config.json").write_bytes(b"{'x': 1}"),
        lambda: (target / "model" / "extra").write_bytes(b""),
        lambda: (target / "model" / "empty.txt").unlink(),
        lambda: (target / "model" / "deep" / "link").symlink_to("er"),
    ):
        change()
        with pytest.raises(DataError, match="was changed after it was pulled"):
            pull(new, target)
        assert not verify_folder(target, "", QUIET).holds
        pull(new, target, replace=True)
        assert_whole(target, new)
    # A file that was only touched is read, and is correct.
    os.utime(target / "model" / "config.json", (1, 1))
    assert pull(new, target).outcome == "already-pulled"
    # An empty folder may be filled; anything else stays.
    (tmp_path / "empty").mkdir()
    assert pull(new, tmp_path / "empty").outcome == "pulled"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for replaces in (False, True):
        with pytest.raises(UsageError, match="does not contain a pulled version"):
            pull(new, tmp_path / "mine", replace=replaces)
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_two_pulls_into_one_folder(versions: tuple[Stored, Stored], tmp_path: Path) -> None:
    target = tmp_path / "policy"
    with open(tmp_path / ".policy.aml-mirror-lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ServiceUnavailable, match=r"another pull into .* is running"):
            pull(versions[0], target)
    pull(versions[0], target)


def test_reuse_of_an_older_folder(versions: tuple[Stored, Stored], tmp_path: Path) -> None:
    old, new = versions
    pull(old, tmp_path / "one")
    done = pull(new, tmp_path / "two", reuse=(str(tmp_path / "one"),))
    assert done.fetched.reused == len(FILES["deep/er/weights.bin"])
    assert done.fetched.read == len(b'{"new": true}')
    assert_whole(tmp_path / "two", new)
    with pytest.raises(UsageError, match="--reuse"):
        pull(new, tmp_path / "three", reuse=(str(tmp_path),))


def test_a_version_that_somebody_else_made(tmp_path: Path) -> None:
    stored = Stored(tmp_path / "store", "4", FILES, is_ours=False)
    done = pull(stored, tmp_path / "policy")
    assert (done.outcome, done.verified) == ("pulled", False)
    assert "no: aml-mirror did not make this version" in done.text()
    assert contents(tmp_path / "policy") == FILES
    assert verify_folder(tmp_path / "policy", "", QUIET).as_dict()["against"] == "what was pulled"
    assert pull(stored, tmp_path / "policy").outcome == "already-pulled"
    (tmp_path / "store" / "model" / "new.bin").write_bytes(b"1")
    with pytest.raises(UsageError, match="contains act version 4"):
        pull(stored, tmp_path / "policy")


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a//b", "a/./b", "", "a/..", "a\0b"])
def test_paths_that_lead_elsewhere(path: str) -> None:
    with pytest.raises(DataError, match="not a valid path in a folder"):
        require_safe_paths([path])


def test_a_file_below_a_file() -> None:
    with pytest.raises(DataError, match="a file below it"):
        require_safe_paths(["a", "a/b"])


def test_a_record_that_was_changed(versions: tuple[Stored, Stored], tmp_path: Path) -> None:
    target = tmp_path / "policy"
    pull(versions[0], target)
    manifest = target / "mirror" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"bytes": 2', '"bytes": 3'))
    with pytest.raises(DataError, match="was changed"):
        verify_folder(target, "", QUIET)
    for text in ("", "[]", '{"schema": "aml-mirror/pulled/v1"}', '{"schema": "other"}'):
        (target / "mirror" / "pulled.json").write_text(text)
        assert read_record(target) is None
