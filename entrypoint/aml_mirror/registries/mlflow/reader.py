"""What a version on an MLflow server holds: its files are read where the registry says they lie."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.utils.request_utils import augmented_raise_for_status
from mlflow.utils.rest_utils import http_request

from aml_mirror.core.errors import DataError, MirrorError
from aml_mirror.core.manifest import Manifest
from aml_mirror.registries import base
from aml_mirror.registries.base import FileDigest, Version
from aml_mirror.registries.file_digests import hashed
from aml_mirror.registries.mlflow_errors import is_missing
from aml_mirror.support.library_internals import host_credentials
from aml_mirror.support.retry import Retry

PART_BYTES = 4 << 20
# Files and folders of a version, most of them extra: more is not listed to its end.
MAX_LISTED = 100_000


class MlflowVersionReader:
    """See :class:`aml_mirror.registries.base.VersionReader`."""

    pinned_by = "a tag of the version, which whoever may write there can change"

    def __init__(self, client: MlflowClient, tracking_uri: str, retry: Retry, version: Version) -> None:
        self._uri = tracking_uri
        self._retry = retry
        self._run_id = version.tags.get(base.MLFLOW_RUN_ID, "")
        self._client = client
        place = retry(lambda: client.get_model_version_download_uri(version.model, version.number))
        self._model = retry(lambda: get_artifact_repository(place, tracking_uri=tracking_uri))

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        repository = self._of_run()
        if repository is None:
            return
        data = b""
        for part in self._retry(lambda: list(_limited(_parts(repository, name), limit))):
            data += part
        if data:
            yield data

    def _of_run(self) -> Any:
        try:
            run = self._retry(lambda: self._client.get_run(self._run_id))
        except MirrorError as error:
            if is_missing(error.__cause__):
                return None
            raise
        return self._retry(lambda: get_artifact_repository(run.info.artifact_uri, tracking_uri=self._uri))

    def files(self) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        pending: list[str | None] = [None]
        while pending:
            folder = pending.pop()
            for item in self._retry(lambda: self._model.list_artifacts(folder)):  # noqa: B023
                if item.is_dir:
                    pending.append(item.path)
                else:
                    found[item.path] = item.file_size
                if len(found) + len(pending) > MAX_LISTED:
                    raise DataError(
                        f"the version holds over {MAX_LISTED:,} files", "look at what was put there"
                    )
        return found

    def hashed(self, path: str) -> FileDigest:
        return self._retry(lambda: hashed(_parts(self._model, path)))

    def own_problems(self) -> tuple[list[tuple[str, str]], list[str]]:
        # A server has no property that could pin them.
        return [], []

    def changed(self, manifest: Manifest) -> list[str]:
        there = self.files()
        return [
            item.path
            for item in manifest.items
            if item.path not in there or self.hashed(item.path).sha256 != item.sha256
        ]


def _parts(repository: Any, path: str) -> Iterator[bytes]:
    """Read a file in parts: from the server, from the disk, or, from any other store, through the disk."""
    if isinstance(repository, HttpArtifactRepository):
        # What its own download does, without the file that it writes.
        with http_request(host_credentials(repository), f"/{path}", "GET", stream=True) as answer:
            if answer.status_code == 404:
                return
            augmented_raise_for_status(answer)
            yield from answer.iter_content(PART_BYTES)
    elif isinstance(repository, LocalArtifactRepository):
        full = os.path.join(repository.artifact_dir, *path.split("/"))
        if os.path.isfile(full):
            yield from _of_file(full)
    else:
        with tempfile.TemporaryDirectory(prefix="aml-mirror-") as scratch:
            yield from _of_file(repository.download_artifacts(path, scratch))


def _of_file(path: str) -> Iterator[bytes]:
    with open(path, "rb") as stream:
        while part := stream.read(PART_BYTES):
            yield part


def _limited(parts: Iterator[bytes], limit: int) -> Iterator[bytes]:
    for part in parts:
        limit -= len(part)
        if limit < 0:
            return
        yield part
