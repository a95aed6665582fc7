"""A registry in a folder: ``--tracking-uri shelf:///DIR``.

``DIR/runs/ID.json`` is a run; ``DIR/models/NAME/NUMBER.json`` a version; files are below ``DIR/files/ID``.
One identity has one run and one version. A lock on the folder keeps writers apart.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aml_mirror.core.errors import ConfigurationError, DataError, UsageError
from aml_mirror.core.manifest import Manifest, TransferResult
from aml_mirror.core.option_values import text
from aml_mirror.core.options import TARGET, Option
from aml_mirror.core.settings import Settings
from aml_mirror.registries import keys
from aml_mirror.registries.base import Registry
from aml_mirror.registries.file_digests import hashed
from aml_mirror.registries.records import FileDigest, Limits, Point, Upload, Version
from aml_mirror.registries.registry_type import RegistryType
from aml_mirror.sources.tree import Tree

_PART_BYTES = 1 << 20


class ShelfType(RegistryType):
    """See :class:`aml_mirror.registries.registry_type.RegistryType`."""

    name = "shelf"
    usage = "--tracking-uri shelf:///DIR for a shelf"
    schemes = ("shelf",)
    limits = Limits(params=20)
    options = (
        Option(
            "shelf_label", "--shelf-label", "shelf: a label for the version", ("mirror", "plan", "backfill"),
            TARGET, "TEXT", ("SHELF_LABEL",), parse=text,
        ),
    )  # fmt: skip

    def check_names(self, model: str, experiment: str) -> None:
        super().check_names(model, experiment)
        if not model.isascii() or not model.replace("-", "").isalnum():
            raise UsageError(
                f"{model!r} cannot be the name of a model on a shelf: letters, digits and '-' only",
                "pass another with --model-name",
            )

    def check(self, settings: Settings) -> None:
        if not _folder_of(settings).is_absolute() or urlsplit(settings.tracking_uri).netloc:
            raise ConfigurationError(
                f"{settings.tracking_uri!r} names no folder", "for example: shelf:///mnt/models"
            )

    def open(self, settings: Settings, notice: Callable[[str], None]) -> Registry:
        return Shelf(_folder_of(settings), str(settings.extra.get("shelf_label", "")))

    def parse_uri(self, uri: str) -> tuple[str, str] | None:
        if not uri.startswith("shelf://"):
            return None
        model, _, number = uri.rpartition("/")[2].partition("@")
        return model, number


def _folder_of(settings: Settings) -> Path:
    return Path(urlsplit(settings.tracking_uri).path)


class Shelf:
    """See :class:`aml_mirror.registries.base.Registry`."""

    limits = ShelfType.limits

    def __init__(self, folder: Path, label: str) -> None:
        self.folder, self.label = folder, label

    @property
    def description(self) -> str:
        return f"the shelf {self.folder}"

    def uri(self, version: Version) -> str:
        return f"shelf://{self.folder}/{version.model}@{version.number}"

    def versions(self, experiment: str, model: str, run_id: str) -> list[Version]:
        return [item for item in self.all_of(model) if item.tags.get(keys.RUN_ID) == run_id]

    def all_of(self, model: str) -> list[Version]:
        paths = sorted((self.folder / "models" / model).glob("*.json"), key=lambda path: int(path.stem))
        return [Version(model, path.stem, json.loads(path.read_text())) for path in paths]

    def refresh(self, version: Version, quick_key: str) -> None:
        self.write_version(
            Version(version.model, version.number, {**version.tags, keys.QUICK_KEY: quick_key})
        )

    def write_version(self, version: Version) -> None:
        _write(self.folder / "models" / version.model / f"{version.number}.json", version.tags)

    def begin(self, experiment: str, run_name: str, tags: dict[str, str]) -> ShelfWriter | Version:
        lock = _locked(self.folder / "lock")
        for version in self.all_of(tags[keys.MODEL_NAME]):
            if version.tags[keys.IDENTITY] == tags[keys.IDENTITY] and version.complete:
                lock.close()
                return version
        name = hashlib.sha256(f"{tags[keys.IDENTITY]} {tags[keys.MODEL_NAME]}".encode()).hexdigest()[:16]
        _write(self.folder / "runs" / f"{name}.json", {**tags, "experiment": experiment, "status": "RUNNING"})
        return ShelfWriter(self, name, tags, lock)

    def annotate(self, version: Version, tags: dict[str, str]) -> None:
        self.write_version(Version(version.model, version.number, {**version.tags, **tags}))

    def continue_logs(self, version: Version) -> None:
        """Not supported: see :meth:`ShelfWriter.put_log_state`."""

    def repair(
        self,
        version: Version,
        tree: Tree,
        manifest: Manifest,
        right: Mapping[str, FileDigest],
        progress: Callable[[int], None],
    ) -> TransferResult:
        place = self.folder / "files" / version.tags[keys.MLFLOW_RUN_ID] / "model"
        known = {item.path for item in manifest.items}
        for path in [path for path in place.rglob("*") if path.is_file()]:
            if path.relative_to(place).as_posix() not in known:
                path.unlink()
        wrong = [item for item in manifest.items if item.path not in right]
        sent = sum(_copy(tree, item.source, place / item.path) for item in wrong)
        progress(manifest.bytes)
        return TransferResult(sent)

    def unfinished(self, experiment: str, run_id: str) -> Iterable[dict[str, str]]:
        for path in sorted((self.folder / "runs").glob("*.json")):
            tags = json.loads(path.read_text())
            ours = tags["experiment"] == experiment and tags[keys.RUN_ID] == run_id
            if ours and tags["status"] != "FINISHED":
                yield {**tags, keys.MLFLOW_RUN_ID: path.stem}

    def find_version(self, model: str, number: str) -> Version | None:
        return next((item for item in self.all_of(model) if item.number == number), None)

    def version_reader(self, version: Version) -> ShelfReader:
        return ShelfReader(self.folder / "files" / version.tags[keys.MLFLOW_RUN_ID])

    def each_version(self, experiment: str, model: str, take: Callable[[Version], None]) -> None:
        for version in self.all_of(model):
            take(version)

    def model_names(self) -> Iterator[str]:
        return (path.name for path in sorted((self.folder / "models").glob("*")))

    def state_store(self, experiment: str, name: str) -> ShelfState:
        return ShelfState(self.folder / "state" / name)

    def be_patient_for(self, seconds: float) -> None:
        """A folder needs no retries."""

    def attach(
        self, version: Version, name: str, text: str, points: Sequence[Point], tags: dict[str, str]
    ) -> list[str]:
        path = self.folder / "files" / version.tags[keys.MLFLOW_RUN_ID] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        _write(path.with_suffix(".points.json"), list(points))
        self.annotate(version, tags)
        return []

    def stages(self, model: str) -> None:
        """Stages are not supported."""

    def sharing(self, name: str) -> None:
        """Sharing is not supported."""

    def leftovers(self) -> None:
        """Pruning is not supported."""

    def user(self) -> str:
        """A folder has no users."""
        return ""


class ShelfState:
    """See :class:`aml_mirror.registries.base.StateStore`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def place(self) -> str:
        return f"the folder {self._folder}"

    def entries(self) -> dict[str, str]:
        path = self._folder / "entries.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def change(self, changes: Mapping[str, str | None]) -> None:
        with _locked(self._folder / "lock"):
            wanted = {**self.entries(), **changes}
            kept = {key: value for key, value in wanted.items() if value is not None}
            _write(self._folder / "entries.json", kept)

    def put_text(self, name: str, text: str) -> None:
        (self._folder / "texts").mkdir(parents=True, exist_ok=True)
        (self._folder / "texts" / name).write_text(text)

    def texts(self) -> Iterator[tuple[str, str]]:
        for path in sorted((self._folder / "texts").glob("*")):
            yield path.name, path.read_text()


class ShelfWriter:
    """See :class:`aml_mirror.registries.base.Writer`."""

    def __init__(self, shelf: Shelf, run_id: str, tags: dict[str, str], lock: Any) -> None:
        self.run_id = run_id
        self.warnings: list[str] = []
        self._shelf, self._tags, self._lock = shelf, tags, lock
        self._files = shelf.folder / "files" / run_id

    def files_uri(self) -> str:
        return ""

    def log_params(self, params: dict[str, str]) -> None:
        _write(self._files / "params.json", params)

    def log_metrics(self, points: Callable[[], Iterator[Point]], progress: Callable[[int], None]) -> int:
        rows = list(points())
        _write(self._files / "metrics.json", rows)
        progress(len(rows))
        return len(rows)

    def pin_logs(self, sizes: dict[str, int]) -> dict[str, int]:
        # A mirror that starts again overwrites every log.
        return dict(sizes)

    def put_log_state(self, name: str, text: str) -> bool:
        """No state is stored, so logs that grew are not continued."""
        return False

    def put_model(self, tree: Tree, manifest: Manifest, progress: Callable[[int], None]) -> TransferResult:
        uploads = [Upload(item.source, f"model/{item.path}", item.bytes) for item in manifest.items]
        return TransferResult(self.put_files(tree, uploads, progress))

    def put_files(self, tree: Tree, uploads: list[Upload], progress: Callable[[int], None]) -> int:
        sent = 0
        for upload in uploads:
            sent += _copy(tree, upload.source, self._files / upload.path)
            if not tree.source.is_unchanged(tree.entry(upload.source)):
                raise DataError(f"{upload.source} changed while it was sent", "run again")
            progress(upload.bytes)
        return sent

    def put_texts(self, texts: dict[str, str]) -> None:
        for path, content in texts.items():
            (self._files / path).parent.mkdir(parents=True, exist_ok=True)
            (self._files / path).write_text(content)

    def register(self, description: str, tags: dict[str, str]) -> Version:
        model = tags[keys.MODEL_NAME]
        there = self._shelf.all_of(model)
        for version in there:
            if version.tags[keys.IDENTITY] == tags[keys.IDENTITY]:
                return version
        number = str(max((int(item.number) for item in there), default=0) + 1)
        own = {keys.MLFLOW_RUN_ID: self.run_id, keys.STATE: keys.INCOMPLETE, "label": self._shelf.label}
        version = Version(model, number, {**tags, **own})
        self._shelf.write_version(version)
        return version

    def finish(self, version: Version) -> None:
        self._close("FINISHED")
        tags = {**version.tags, keys.STATE: keys.COMPLETE}
        self._shelf.write_version(Version(version.model, version.number, tags))
        self._lock.close()

    def abort(self, status: str, why: str) -> None:
        self._close(status)
        self._lock.close()

    def _close(self, status: str) -> None:
        path = self._shelf.folder / "runs" / f"{self.run_id}.json"
        _write(path, {**json.loads(path.read_text()), "status": status})


class ShelfReader:
    """See :class:`aml_mirror.registries.base.VersionReader`."""

    pinned_by = "a file on the shelf, which anyone with write access can change"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        path = self._folder / name
        if path.is_file() and path.stat().st_size <= limit:
            yield path.read_bytes()

    def files(self) -> dict[str, int | None]:
        model = self._folder / "model"
        return {
            path.relative_to(model).as_posix(): path.stat().st_size
            for path in model.rglob("*")
            if path.is_file()
        }

    def hashed(self, path: str) -> FileDigest:
        with (self._folder / "model" / path).open("rb") as stream:
            return hashed(iter(lambda: stream.read(_PART_BYTES), b""))

    def stored_sha256(self, path: str) -> str | None:
        return None

    def own_problems(self) -> tuple[list[tuple[str, str]], list[str]]:
        return [], []

    def changed(self, manifest: Manifest) -> list[str]:
        there = self.files()
        wanted = {item.path: item.sha256 for item in manifest.items}
        return sorted(
            path
            for path in wanted.keys() | there.keys()
            if path not in wanted or path not in there or self.hashed(path).sha256 != wanted[path]
        )


def _locked(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = path.open("w")
    fcntl.flock(stream, fcntl.LOCK_EX)
    return stream


def _write(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(document))
    beside.replace(path)


def _copy(tree: Tree, source: str, target: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tree.open(source) as stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file)
    return target.stat().st_size
