"""The folder that a pull makes: complete or absent, whatever ends the pull.

``DIR/model/``
    The files of the version and nothing else.
``DIR/mirror/``
    The version's own files (manifest, statement, signatures, card) and ``pulled.json``, which says which
    version this is.

All is written into ``.DIR.aml-mirror-new`` beside DIR, which is renamed when it is whole. With ``--replace``
an old DIR is first renamed to ``.DIR.aml-mirror-old`` and removed at the end. A kill between the two renames
leaves no DIR, the old one and the whole new one: the next pull into DIR puts the new one in place before it
does anything else. A kill after both leaves the old one, which the next pull removes.
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
    """``pulled.json``: which version a folder holds, and how its files were when they were written."""

    model_name: str
    model_version: str
    registry: str
    manifest_sha256: str
    """Empty: the version was not made by aml-mirror, and nothing says what its files should be."""
    listing: str
    """Of such a version a digest of what the registry listed."""
    integrity: str
    tags: Mapping[str, str]
    files: Mapping[str, tuple[int, str, int]] = field(default_factory=dict)
    """By path: size in bytes, SHA-256, time of the last change in nanoseconds."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two pulls pulls of the same version."""
        return self.model_name, self.model_version, self.manifest_sha256 or self.listing

    def as_json(self) -> str:
        """Return it as text."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"


def read_record(folder: Path) -> Record | None:
    """Return the record of a pulled folder; None where it is none."""
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
    """DIR, and what is beside it while a pull is at work.

    Raises:
        UsageError: DIR cannot be the name of a folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(os.path.abspath(folder))
        name = self.folder.name
        if not name:
            raise UsageError(f"{folder!r} cannot be replaced by a version", "name a folder to be made")
        self.new = self.folder.with_name(f".{name}.aml-mirror-new")
        self._old = self.folder.with_name(f".{name}.aml-mirror-old")
        self._lock = self.folder.with_name(f".{name}.aml-mirror-lock")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep another pull into the same folder out.

        Raises:
            ServiceUnavailable: one is at work.
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
                    f"another pull into {self.folder} is at work", "wait for it, or pull into another folder"
                )
            try:
                self._recover()
                yield
            finally:
                self._lock.unlink(missing_ok=True)

    def _recover(self) -> None:
        """Finish the swap that a killed pull began."""
        if self._old.exists() and not self.folder.exists():
            # The new folder is whole: the old one is moved away only then.
            (self.new if self.is_whole else self._old).rename(self.folder)
        if self._old.exists():
            shutil.rmtree(self._old)

    @property
    def is_whole(self) -> bool:
        """Whether the folder beside DIR only lacks its name."""
        return read_record(self.new) is not None

    def begin(self, key: tuple[str, str, str]) -> Path:
        """Return the folder beside DIR; what an earlier pull of the same version brought stays.

        Args:
            key: what tells the version from others, as :attr:`Record.key`.
        """
        mark = self.new / "version.json"
        text = json.dumps(dict(zip(("model", "version", "digest"), key, strict=True)), sort_keys=True)
        is_marked = mark.is_file() and mark.read_text(encoding="utf-8") == text
        if not is_marked:
            record = read_record(self.new)
            # One that was whole lacks only its name. Its record says which version it is.
            if self.new.exists() and (record is None or record.key != key):
                shutil.rmtree(self.new)
            self.new.mkdir(parents=True, exist_ok=True)
            # A kill leaves the whole mark or none.
            making = self.new / "version.json.new"
            making.write_text(text, encoding="utf-8")
            making.rename(mark)
        for name in (MODEL, OWN):
            (self.new / name).mkdir(exist_ok=True)
        # Its files are looked at once more.
        (self.new / OWN / RECORD).unlink(missing_ok=True)
        return self.new

    def complete(self, record: Record, replace: bool) -> None:
        """Write the record, and give the folder its name.

        Raises:
            UsageError: something else has the name by now.
        """
        making = self.new / OWN / f"{RECORD}.new"
        with open(making, "w", encoding="utf-8") as stream:
            stream.write(record.as_json())
            stream.flush()
            os.fsync(stream.fileno())
        making.rename(self.new / OWN / RECORD)
        # Only now: without mark and record nothing says which version the folder is a part of.
        (self.new / "version.json").unlink(missing_ok=True)
        for folder, _, _ in os.walk(self.new):
            _sync(Path(folder))
        if replace and self.folder.exists():
            self.folder.rename(self._old)
        try:
            self.new.rename(self.folder)
        except OSError as error:
            raise UsageError(
                f"{self.folder} is there, and is not empty", "pass another folder, or --replace"
            ) from error
        _sync(self.folder.parent)
        if self._old.exists():
            shutil.rmtree(self._old)

    def statuses(self) -> dict[str, tuple[int, int]]:
        """Return size and time of the last change of each file that was brought."""
        root = self.new / MODEL
        return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in files_in(root).items()}


def files_in(root: Path) -> dict[str, os.stat_result]:
    """Return what is below a folder and no folder, by path; links are not followed."""
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
    """Check that each path leads to a place of its own below the folder.

    Raises:
        DataError: one does not.
    """
    known = set(paths)
    for path in paths:
        parts = path.split("/")
        if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
            raise DataError(
                f"the version names a file {path!r}, which is no path in a folder", "do not use it"
            )
        for count in range(1, len(parts)):
            if "/".join(parts[:count]) in known:
                raise DataError(
                    f"the version has a file {'/'.join(parts[:count])!r} and another below it",
                    "no disk can hold both: mirror the run again",
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
