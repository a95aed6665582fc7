"""Reads files in a store that only MLflow's own client supports: S3, Google Cloud, Databricks, a plugin's.

A file is downloaded completely, then passed on. Not part of the light distribution, which has no MLflow.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

from aml_mirror.core.errors import ServiceUnavailable
from aml_mirror.pull.files import Listed, Part
from aml_mirror.registries.artifact_folder import entries_of
from aml_mirror.registries.mlflow_errors import translate
from aml_mirror.support import redaction

if TYPE_CHECKING:
    from aml_mirror.pull.mlflow_catalog import MlflowApi

T = TypeVar("T")

_CHUNK_BYTES = 1 << 20


class RepositoryFiles:
    """See :class:`aml_mirror.pull.files.Files`."""

    has_ranges = False

    def __init__(self, uri: str, api: MlflowApi) -> None:
        self.uri = redaction.text(uri)
        where = f"the artifact store {self.uri}"
        self._retry = api.retry.with_translation(lambda error: translate(error, where))
        full = add_databricks_profile_info_to_artifact_uri(uri, api.uri)
        self._store = self._retry(lambda: get_artifact_repository(full, tracking_uri=api.uri))

    def retried(self, operation: Callable[[], T]) -> T:
        """See :meth:`aml_mirror.pull.files.Files.retried`."""
        return self._retry(operation)

    def listing(self) -> dict[str, Listed]:
        """See :meth:`aml_mirror.pull.files.Files.listing`; one request per folder."""
        found: dict[str, Listed] = {}
        pending: list[str | None] = [None]
        while pending:
            folder = pending.pop()
            for item in self._retry(lambda: entries_of(self._store, folder)):  # noqa: B023
                if item.is_dir:
                    pending.append(item.path)
                else:
                    found[item.path] = Listed(item.file_size)
        return found

    @contextmanager
    def read(self, path: str, start: int = 0, length: int | None = None, etag: str = "") -> Iterator[Part]:
        """See :meth:`aml_mirror.pull.files.Files.read`."""
        with tempfile.TemporaryDirectory(prefix="aml-mirror-") as scratch:
            local = self._store.download_artifacts(path, scratch)
            with open(local, "rb") as stream:
                stream.seek(start)
                yield Part(start, iter(lambda: stream.read(_CHUNK_BYTES), b""))

    def small(self, path: str, limit: int) -> bytes | None:
        """See :meth:`aml_mirror.pull.files.Files.small`."""
        folder, _, name = path.rpartition("/")
        for item in self._retry(lambda: entries_of(self._store, folder or None)):
            if not item.is_dir and os.path.basename(item.path) == name and (item.file_size or 0) <= limit:
                with self.read(path) as part:
                    data = b"".join(part.chunks)
                if item.file_size not in (None, len(data)):
                    raise ServiceUnavailable(
                        f"an answer of {self.uri} was truncated", "run the same command again"
                    )
                return data
        return None
