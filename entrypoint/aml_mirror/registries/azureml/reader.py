"""Reads what a version of an Azure ML model contains: blobs in a datastore, and artifacts of its run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from aml_mirror.core.errors import DataError, MirrorError
from aml_mirror.core.manifest import Manifest
from aml_mirror.registries import keys, records
from aml_mirror.registries.azureml.artifact_service import Refused
from aml_mirror.registries.azureml.run_artifacts import RunArtifacts, numbered
from aml_mirror.registries.azureml.version_files import VersionFiles, read_blob
from aml_mirror.registries.azureml.version_folder import OWN, datastore_path, folder_in
from aml_mirror.registries.azureml.version_tags import ARTIFACTS
from aml_mirror.registries.file_digests import hashed
from aml_mirror.registries.mlflow_errors import is_missing
from aml_mirror.registries.records import FileDigest, Version
from aml_mirror.storage.blob_client import metadata_of
from aml_mirror.transfer.block_ids import plain_etag

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry

# The most blobs of a version, most of them unexpected. More are not listed.
MAX_LISTED = 100_000
# The card, the statement, or the scan of a checkpoint with many files.
MAX_OWN_BYTES = 64 << 20
# An artifact of an earlier, killed attempt may keep its name. Ours then has the next name.
MOST_NAMES = 5
# The name of the list of stored files in messages.
LIST = "list of stored files"


class AzureMLVersionReader:
    """See :class:`aml_mirror.registries.base.VersionReader`."""

    pinned_by = "a property of the version, documented as immutable"

    def __init__(self, workspace: AzureMLRegistry, version: Version) -> None:
        self._workspace = workspace
        self._version = version
        folder = folder_in(version.path, {**version.tags, keys.MODEL_NAME: version.model})
        if folder is None:
            raise DataError(
                f"version {version.number} of {version.model} was not made by aml-mirror: its path is "
                f"{version.path}, which is not the folder of its run, checkpoint and manifest",
                "do not use it as the mirror of a run: mirror the run again",
            )
        self._folder = folder
        self._prefix = f"{folder.bytes}/"
        # The datastore that the path names. The workspace may have another default now.
        self._container = workspace.azure.container_of(folder.datastore)
        self._files = VersionFiles(self._container, folder, workspace.retry)
        self._files.load(version.tags)

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        if data := self._files.read(name, limit):
            yield data
        yield from self._of_run(name, limit)

    def _of_run(self, name: str, limit: int) -> Iterator[bytes]:
        workspace = self._workspace
        run_id = self._version.tags.get(keys.MLFLOW_RUN_ID, "")
        try:
            run = self._workspace.retry(lambda: self._workspace.client.get_run(run_id))
        except MirrorError as error:
            if is_missing(error.__cause__):
                return
            raise
        service: RunArtifacts | None = RunArtifacts(
            self._workspace.azure, run.info.artifact_uri or "", run.info.experiment_id, run_id
        )
        if place := datastore_path(run.data.tags.get(ARTIFACTS, "")):
            container = self._workspace.azure.container_of(place[0])
            path = f"{place[1]}/{name}"
            if place[1] != self._folder.own and (data := read_blob(container, path, limit, workspace.retry)):
                yield data
        for number in range(1, MOST_NAMES + 1):
            path = name if number == 1 else numbered(name, number)
            try:
                data = service.read(path, limit) if service else None
            except Refused:
                return
            if data is None and number > 1:
                return
            if data is not None:
                yield data

    def files(self) -> dict[str, int | None]:
        def read() -> dict[str, int | None]:
            found: dict[str, int | None] = {}
            for blob in self._container.list_blobs(name_starts_with=self._prefix, include=["metadata"]):
                path = str(blob.name)[len(self._prefix) :]
                metadata = metadata_of(blob)
                if path.endswith("/") or metadata.get("hdi_isfolder", "").lower() == "true":
                    continue
                found[path] = int(blob.size)
                if len(found) > MAX_LISTED:
                    raise DataError(
                        f"the version holds over {MAX_LISTED:,} files", "check what was put there"
                    )
            return found

        return self._workspace.retry(read)

    def hashed(self, path: str) -> FileDigest:
        blob = self._container.get_blob_client(self._prefix + path)

        def read() -> FileDigest:
            # The client reads a blob in ranges of 4 MiB, each bound to the ETag of the first.
            download = blob.download_blob(max_concurrency=1)
            return replace(hashed(download.chunks()), etag=plain_etag(download.properties.etag))

        return self._workspace.retry(read)

    def stored_sha256(self, path: str) -> str | None:
        stored = self._files.list.files.get(path)
        return stored.sha256 if stored else None

    def own_problems(self) -> tuple[list[tuple[str, str]], list[str]]:
        # The run's copies do not count: an earlier release that completes a version writes its own.
        wrong, missing = [], []
        files = self._files
        if files.is_lost:
            missing.append(f"{OWN}/{LIST}")
        for name, wanted in files.list.own.items():
            data = files.read(name, MAX_OWN_BYTES)
            if data is None:
                missing.append(f"{OWN}/{name}")
            elif _sha256(data) != wanted:
                wrong.append((f"{OWN}/{name}", f"its SHA-256 is {_sha256(data)}, not {wanted}"))
        for name, log in files.list.logs.items():
            size = files.size_of(name)
            if size is None:
                missing.append(f"{OWN}/{name}")
            elif size != log.bytes:
                why = f"it has {size} bytes, {log.bytes} were mirrored"
                if size > log.bytes:
                    why += ": it was changed, or a mirror that continued the log was not finished"
                wrong.append((f"{OWN}/{name}", why))
            elif (found := files.digest_of(name, size)) != log.sha256:
                wrong.append((f"{OWN}/{name}", f"its SHA-256 is {found}, not {log.sha256}"))
        if tag := self._version.tags.get(keys.LOGS):
            name, wanted = self._log_state(tag)
            data = files.read_beside(name, MAX_OWN_BYTES)
            if data is None:
                missing.append(f"{OWN}/{name}")
            elif _sha256(data) != wanted:
                wrong.append((f"{OWN}/{name}", f"its SHA-256 is {_sha256(data)}, not {wanted}"))
        return wrong, missing

    @staticmethod
    def _log_state(tag: str) -> tuple[str, str]:
        """Return name and SHA-256 of the log state that a version's tag refers to."""
        digest = records.log_state_digest(tag)
        return records.log_state_name(digest), digest

    def changed(self, manifest: Manifest) -> list[str]:
        found = self._workspace.retry(
            lambda: {blob.name: blob for blob in self._container.list_blobs(name_starts_with=self._prefix)}
        )
        changed = []
        for item in manifest.items:
            blob, stored = found.get(self._prefix + item.path), self._files.list.files.get(item.path)
            if blob is None or blob.size != item.bytes:
                changed.append(item.path)
            elif stored is None or stored.etag != plain_etag(blob.etag):
                # Unknown: another ETag may have a legitimate cause. The bytes decide.
                wanted = item.sha256 or (stored.sha256 if stored else None)
                digest = self.hashed(item.path)
                if digest.sha256 != wanted if wanted else item.md5 not in (None, digest.md5):
                    changed.append(item.path)
        known = {self._prefix + item.path for item in manifest.items}
        extra = [name for name, blob in found.items() if name not in known and blob.size]
        return [*changed, *(name.removeprefix(self._prefix) for name in extra)]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
