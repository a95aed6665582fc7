"""Reads the contents of a version on an MLflow server, where the registry says that its files are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from mlflow.entities import LifecycleStage

from aml_mirror.core.errors import DataError, MirrorError
from aml_mirror.core.manifest import Manifest
from aml_mirror.registries import keys, records
from aml_mirror.registries.artifact_folder import entries_of
from aml_mirror.registries.file_digests import hashed
from aml_mirror.registries.mlflow.artifact_store import ArtifactStores
from aml_mirror.registries.mlflow.file_parts import limited, parts_of
from aml_mirror.registries.mlflow.log_writer import OWN
from aml_mirror.registries.mlflow.version_presence import VersionPresence
from aml_mirror.registries.mlflow_errors import is_missing
from aml_mirror.registries.records import FileDigest, Version
from aml_mirror.support.retry import Retry

# The most files and folders of a version, most of them unexpected. More are not listed.
MAX_LISTED = 100_000
MAX_STATE_BYTES = 16 << 20


class MlflowVersionReader:
    """See :class:`aml_mirror.registries.base.VersionReader`."""

    pinned_by = "a tag of the version, which anyone with write access can change"

    def __init__(
        self, stores: ArtifactStores, retry: Retry, presence: VersionPresence, version: Version
    ) -> None:
        self._stores = stores
        self._retry = retry
        self._version = version
        self._run_id = version.tags.get(keys.MLFLOW_RUN_ID, "")
        try:
            self._model = retry(lambda: stores.of_version(version.model, version.number))
        except MirrorError as error:
            if not is_missing(error.__cause__):
                raise
            raise self._gone(version, "gone") from error
        run = presence.run_of(version)
        if run is not None and run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            raise self._gone(version, "deleted")

    def _gone(self, version: Version, how: str) -> DataError:
        return DataError(
            f"the MLflow run {self._run_id} of version {version.number} of {version.model} is {how}, and so "
            "are its files",
            "mirror its run again: a deleted MLflow run is restored, a removed one is created again",
        )

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        repository = self._of_run()
        if repository is None:
            return
        data = b""
        for part in self._retry(lambda: list(limited(parts_of(repository, name), limit))):
            data += part
        if data:
            yield data

    def _of_run(self) -> Any:
        try:
            return self._retry(lambda: self._stores.of_run(self._run_id))
        except MirrorError as error:
            if is_missing(error.__cause__):
                return None
            raise

    def files(self) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        pending: list[str | None] = [None]
        while pending:
            folder = pending.pop()
            for item in self._retry(lambda: entries_of(self._model, folder)):  # noqa: B023
                if item.is_dir:
                    pending.append(item.path)
                else:
                    found[item.path] = item.file_size
                if len(found) + len(pending) > MAX_LISTED:
                    raise DataError(
                        f"the version holds over {MAX_LISTED:,} files", "check what was put there"
                    )
        return found

    def hashed(self, path: str) -> FileDigest:
        return self._retry(lambda: hashed(parts_of(self._model, path)))

    def stored_sha256(self, path: str) -> str | None:
        return None  # each file has one in the manifest

    def own_problems(self) -> tuple[list[tuple[str, str]], list[str]]:
        # Of those, the version pins only the state of the logs.
        tag = self._version.tags.get(keys.LOGS)
        if not tag:
            return [], []
        wanted = records.log_state_digest(tag)
        name = f"{OWN}/{records.log_state_name(wanted)}"
        data = b"".join(self.artifacts(name, MAX_STATE_BYTES))
        if not data:
            return [], [name]
        digest = hashlib.sha256(data).hexdigest()
        return ([] if digest == wanted else [(name, f"its SHA-256 is {digest}, not {wanted}")]), []

    def changed(self, manifest: Manifest) -> list[str]:
        there = self.files()
        return [
            item.path
            for item in manifest.items
            if item.path not in there or self.hashed(item.path).sha256 != item.sha256
        ]
