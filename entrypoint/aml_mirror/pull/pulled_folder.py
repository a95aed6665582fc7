"""The folder of a pull. It is complete or absent, however the pull ends.

- ``DIR/model/`` contains only the files of the version.
- ``DIR/mirror/`` contains the version's own files (manifest, signatures, card, …) and ``pulled.json``,
  which says which version this is.

Everything is written into ``.DIR.aml-mirror-new`` next to DIR, which is renamed when it is complete. With
``--replace``, an old DIR is first renamed to ``.DIR.aml-mirror-old`` and removed at the end. If the program
is killed between the two renames, there is no DIR, but the old folder and the complete new one. The next pull
into DIR first puts the new one in place. If it is killed after both, the old one remains, and the next pull
removes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from aml_mirror.core.errors import DataError, ServiceUnavailable, UsageError

SCHEMA = "aml-mirror/pulled/v1"
MODEL = "model"
OWN = "mirror"
RECORD = "pulled.json"
_MAX_RECORD_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """``pulled.json``: which version a folder contains, and the state of its files after the pull."""

    model_name: str
    model_version: str
    registry: str
    manifest_sha256: str
    """Empty: the version was not made by aml-mirror, so its files cannot be verified."""
    listing: str
    """For such a version: a digest of the registry's listing."""
    integrity: str
    tags: Mapping[str, str]
    files: Mapping[str, tuple[int, str, int]] = field(default_factory=dict)
    """By path: size in bytes, SHA-256, time of the last change in nanoseconds."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies the version of a pull."""
        return self.model_name, self.model_version, self.manifest_sha256 or self.listing

    def as_json(self) -> str:
        """Return it as text."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"


def read_record(folder: Path) -> Record | None:
    """Return the record of a pulled folder; None if it is not one."""
    try:
        path = folder / OWN / RECORD
        if path.stat().st_size > _MAX_RECORD_BYTES:
            return None
        found = json.loads(path.read_bytes())
        if found.pop("schema") != SCHEMA:
            return None
        files = {str(name): (int(a), str(b), int(c)) for name, (a, b, c) in found.pop("files").items()}
        return Record(**found, files=files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


class PulledFolder:
    """DIR, and the folders beside it during a pull.

    Raises:
        UsageError: DIR cannot be the name of a folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(os.path.abspath(folder))
        name = self.folder.name
        if not name:
            raise UsageError(f"{folder!r} cannot be replaced by a version", "pass the name of a new folder")
        self.new = self.folder.with_name(f".{name}.aml-mirror-new")
        self._old = self.folder.with_name(f".{name}.aml-mirror-old")
        self._lock = self.folder.with_name(f".{name}.aml-mirror-lock")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against other pulls.

        Raises:
            ServiceUnavailable: another pull into it is running.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with open(self._lock, "w", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_ours = os.fstat(stream.fileno()).st_ino == os.stat(self._lock).st_ino
            except (BlockingIOError, FileNotFoundError):
                is_ours = False
            if not is_ours:
                raise ServiceUnavailable(
                    f"another pull into {self.folder} is running", "wait for it, or pull into another folder"
                )
            try:
                self._recover()
                yield
            finally:
                self._lock.unlink(missing_ok=True)

    def _recover(self) -> None:
        """Finish the exchange of folders that a killed pull began."""
        if self._old.exists() and not self.folder.exists():
            # The new folder is complete: the old one is moved away only then.
            (self.new if self.is_whole else self._old).rename(self.folder)
        if self._old.exists():
            shutil.rmtree(self._old)

    @property
    def is_whole(self) -> bool:
        """Whether the folder beside DIR is complete and only has to be renamed."""
        return read_record(self.new) is not None

    def begin(self, key: tuple[str, str, str]) -> Path:
        """Return the folder beside DIR. What an earlier pull of the same version downloaded stays.

        Args:
            key: identifies the version, like :attr:`Record.key`.
        """
        mark = self.new / "version.json"
        text = json.dumps(dict(zip(("model", "version", "digest"), key, strict=True)), sort_keys=True)
        is_marked = mark.is_file() and mark.read_text(encoding="utf-8") == text
        if not is_marked:
            record = read_record(self.new)
            # A complete folder only has to be renamed. Its record says which version it is.
            if self.new.exists() and (record is None or record.key != key):
                shutil.rmtree(self.new)
            self.new.mkdir(parents=True, exist_ok=True)
            # A kill leaves the complete mark or none.
            making = self.new / "version.json.new"
            making.write_text(text, encoding="utf-8")
            making.rename(mark)
        for name in (MODEL, OWN):
            (self.new / name).mkdir(exist_ok=True)
        # Its files are checked again.
        (self.new / OWN / RECORD).unlink(missing_ok=True)
        return self.new

    def complete(self, record: Record, replace: bool) -> None:
        """Write the record, and rename the folder.

        Raises:
            UsageError: something else has the name by now.
        """
        making = self.new / OWN / f"{RECORD}.new"
        with open(making, "w", encoding="utf-8") as stream:
            stream.write(record.as_json())
            stream.flush()
            os.fsync(stream.fileno())
        making.rename(self.new / OWN / RECORD)
        # Only now: without mark and record, nothing says which version the folder belongs to.
        (self.new / "version.json").unlink(missing_ok=True)
        for folder, _, _ in os.walk(self.new):
            _sync(Path(folder))
        if replace and self.folder.exists():
            self.folder.rename(self._old)
        try:
            self.new.rename(self.folder)
        except OSError as error:
            raise UsageError(
                f"{self.folder} exists and is not empty", "pass another folder, or --replace"
            ) from error
        _sync(self.folder.parent)
        if self._old.exists():
            shutil.rmtree(self._old)

    def statuses(self) -> dict[str, tuple[int, int]]:
        """Return size and time of the last change of each downloaded file."""
        root = self.new / MODEL
        return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in files_in(root).items()}


def files_in(root: Path) -> dict[str, os.stat_result]:
    """Return everything below a folder except folders, by path. Links are not followed."""
    found: dict[str, os.stat_result] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            full = Path(folder, name)
            found[full.relative_to(root).as_posix()] = os.lstat(full)
    # os.walk lists a link to a folder among the folders.
    for folder, inside, _ in os.walk(root):
        for name in inside:
            full = Path(folder, name)
            if full.is_symlink():
                found[full.relative_to(root).as_posix()] = os.lstat(full)
    return found


def require_safe_paths(paths: list[str]) -> None:
    """Check that each path leads to its own place below the folder.

    Raises:
        DataError: one does not.
    """
    known = set(paths)
    for path in paths:
        parts = path.split("/")
        if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
            raise DataError(
                f"the version names a file {path!r}, which is not a valid path in a folder", "do not use it"
            )
        for count in range(1, len(parts)):
            if "/".join(parts[:count]) in known:
                raise DataError(
                    f"the version has a file {'/'.join(parts[:count])!r} and also a file below it",
                    "no file system can store both: mirror the run again",
                )


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def as_record_files(
    statuses: Mapping[str, tuple[int, int]], digests: Mapping[str, str]
) -> dict[str, tuple[int, str, int]]:
    """Return the rows of a record."""
    return {
        path: (size, digests[path], changed) for path, (size, changed) in statuses.items() if path in digests
    }
