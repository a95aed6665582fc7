"""The stages of a model in Azure ML: see :class:`aml_mirror.registries.stages.StageStore`.

A version has its stages in the tag ``mirror.stage``, and the number and digest of the entry for each. The
journal has one blob per entry, ``aml-mirror/stages/<model>/<stage>/000001.json``, which can be created only
once. A stage counts if a version's tags and the journal agree. So nobody who can write only to the storage,
or only change tags, can give a stage to a version.

The service has a field ``stage`` for every version. It is not used, for four reasons. It has one value, so a
version could not have two stages. The service sets it by itself (``Development``, in recordings). No page
says which values it accepts. And nothing keeps two versions from having the same one. Its value is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from azure.core.exceptions import HttpResponseError

from aml_mirror.core.errors import DataError, ServiceUnavailable
from aml_mirror.registries.azureml.blob_lease import BlobLease
from aml_mirror.registries.azureml.stage_entries import (
    MAX_ENTRY_BYTES,
    entry_name,
    entry_that_gave,
    journal_folder,
    read_entry,
)
from aml_mirror.registries.azureml.version_files import read_blob
from aml_mirror.registries.mlflow_runs import lost_claim
from aml_mirror.registries.records import Version
from aml_mirror.registries.stages import (
    Holder,
    StageEntry,
    parse_mark,
    stages_of,
    tags_with,
    tags_without,
)
from aml_mirror.storage import azure_errors

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry

# An interrupted operation is completed by the next one. After this many later entries, it is ignored.
LOOKED_AT = 20


class AzureMLStageStore:
    """Args:
    workspace, model: whose stages.
    """

    def __init__(self, workspace: AzureMLRegistry, model: str) -> None:
        self._workspace = workspace
        self._model = model
        self._folder = journal_folder(model)

    @contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:
        workspace = self._workspace
        lease = BlobLease(
            workspace.azure.container.get_blob_client(f"{self._folder}.lock"),
            workspace.retry,
            workspace.notice,
            f"another process changes the stages of {self._model}; waiting for it",
        )
        lease.acquire()

        def require_allowed() -> None:
            if lease.lost:
                raise lost_claim(f"the stages of {self._model}")

        try:
            yield require_allowed
        finally:
            lease.release()

    def holder(self, stage: str) -> Holder | None:
        found = [holder for version in self._recent(stage) if (holder := self._held(version, stage))]
        return max(found, key=lambda holder: holder.sequence, default=None)

    def _held(self, version: Version, stage: str) -> Holder | None:
        entry = entry_that_gave(version, stage, self._bytes)
        return Holder(version, entry.sequence) if entry else None

    def _recent(self, stage: str) -> list[Version]:
        """The current versions that the last entries of a stage name."""
        names = sorted(self._names(stage))[-LOOKED_AT:]
        numbers: dict[str, None] = {}
        for name in reversed(names):
            if entry := self._read(name):
                numbers.update(dict.fromkeys(one for one in (entry.version, entry.previous) if one))
        found = (self._workspace.models.get(self._model, number) for number in numbers)
        return [version for version in found if version is not None]

    def journal(self) -> list[StageEntry]:
        found = (self._read(name) for name in sorted(self._names()))
        return [entry for entry in found if entry is not None]

    def append(self, entry: StageEntry) -> None:
        blob = self._workspace.azure.container.get_blob_client(self._name(entry.stage, entry.sequence))
        data = entry.as_json().encode()

        def put() -> None:
            try:
                blob.upload_blob(data, overwrite=False, validate_content=True)
            except HttpResponseError as error:
                if not azure_errors.is_there_already(error) and not azure_errors.is_changed(error):
                    raise
                # Ours, if an answer was lost.
                if self._read(self._name(entry.stage, entry.sequence)) != entry:
                    raise ServiceUnavailable(
                        f"another process changed the stages of {self._model}", "run the same command again"
                    ) from error

        self._workspace.retry(put)

    def move(self, entry: StageEntry, to: Version | None, require_allowed: Callable[[], None]) -> None:
        if to is not None:
            self._change(to, entry, True, require_allowed)
        for version in self._recent(entry.stage):
            has = entry.stage in stages_of(version.tags) or parse_mark(version.tags, entry.stage)[0]
            if has and (to is None or version.number != to.number):
                self._change(version, entry, False, require_allowed)

    def _change(
        self, version: Version, entry: StageEntry, gets: bool, require_allowed: Callable[[], None]
    ) -> None:
        workspace = self._workspace
        # A mirror that continues the logs of the version also writes its tags.
        claim = workspace.claim(version)
        claim.acquire()

        def allowed() -> None:
            require_allowed()
            if claim.lost:
                raise lost_claim(f"version {version.number} of {self._model}")

        try:
            now = workspace.models.get(self._model, version.number)
            if now is None:
                if gets:
                    raise DataError(
                        f"version {version.number} of {self._model} no longer exists", "nothing was changed"
                    )
                return
            written, removed = (
                (tags_with(now.tags, entry), []) if gets else tags_without(now.tags, entry.stage)
            )
            workspace.models.tag(version, written, allowed, removed)
            workspace.retry(lambda: self._require_changed(version.number, written, removed))
        finally:
            claim.release()

    def _require_changed(self, number: str, written: dict[str, str], removed: list[str]) -> None:
        now = self._workspace.models.get(self._model, number)
        tags = now.tags if now else {}
        if any(tags.get(name) != text for name, text in written.items()) or tags.keys() & set(removed):
            raise ServiceUnavailable(
                f"the tags of version {number} of {self._model} are not what was written",
                "run the same command again",
            )

    def _names(self, stage: str = "") -> list[str]:
        prefix = f"{self._folder}/{stage}/" if stage else f"{self._folder}/"
        container = self._workspace.azure.container
        return self._workspace.retry(
            lambda: [str(blob.name) for blob in container.list_blobs(name_starts_with=prefix) if blob.size]
        )

    def _name(self, stage: str, sequence: int) -> str:
        return entry_name(self._model, stage, sequence)

    def _read(self, name: str) -> StageEntry | None:
        return read_entry(self._model, name, self._bytes)

    def _bytes(self, name: str) -> bytes | None:
        workspace = self._workspace
        return read_blob(workspace.azure.container, name, MAX_ENTRY_BYTES, workspace.retry)
