"""State for the next call in an Azure ML workspace: blobs in its default datastore.

Azure ML's run artifacts cannot be rewritten, and a run can have 50 tags. So the entries are one JSON blob,
``aml-mirror/state/<name>/entries.json``. It is changed on the condition that nobody changed it since it was
read. Otherwise it is read and changed again. The texts are blobs beside it, in ``texts/``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError

from aml_mirror.core.errors import DataError, ServiceUnavailable
from aml_mirror.registries.azureml.limits import FOLDER, safe_part
from aml_mirror.registries.azureml.version_files import read_blob
from aml_mirror.storage import azure_errors as azure_errors

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.service_client import AzureML

# 10,000 entries of 1 kB, and some room.
MAX_BYTES = 32 << 20
# Writers at the same time are few, and each change takes one round trip.
_ATTEMPTS = 50


class BlobStateStore:
    """See :class:`aml_mirror.registries.base.StateStore`."""

    def __init__(self, azure: AzureML, name: str) -> None:
        self._azure = azure
        self._folder = f"{FOLDER}/state/{safe_part(name)}"

    @property
    def place(self) -> str:
        return f"{self._folder} in the default datastore of {self._azure.shown}"

    def entries(self) -> dict[str, str]:
        return self._azure.retry(lambda: self._read()[0])

    def change(self, changes: Mapping[str, str | None]) -> None:
        for _ in range(_ATTEMPTS):
            if self._azure.retry(lambda: self._changed(changes)):
                return
        raise ServiceUnavailable(
            f"{self.place} is changed by too many programs at the same time", "run the same command again"
        )

    def put_text(self, name: str, text: str) -> None:
        blob = self._azure.container.get_blob_client(f"{self._folder}/texts/{name}")
        self._azure.retry(lambda: blob.upload_blob(text.encode(), overwrite=True, validate_content=True))

    def texts(self) -> Iterator[tuple[str, str]]:
        start = f"{self._folder}/texts/"
        container = self._azure.container
        names = self._azure.retry(
            lambda: [blob.name for blob in container.list_blobs(name_starts_with=start)]
        )
        for name in sorted(map(str, names)):
            data = read_blob(container, name, MAX_BYTES, self._azure.retry)
            if data is not None:
                yield name.removeprefix(start), data.decode("utf-8", "replace")

    def _read(self) -> tuple[dict[str, str], str]:
        """Return the entries and the ETag under which they were read; both empty: there are none."""
        blob = self._azure.container.get_blob_client(f"{self._folder}/entries.json")
        try:
            download = blob.download_blob(max_concurrency=1)
            data = bytes(download.readall())
        except HttpResponseError as error:
            if azure_errors.is_missing(error):
                return {}, ""
            raise
        try:
            found = json.loads(data)
            entries = {str(key): str(value) for key, value in found.items()}
        except (ValueError, AttributeError) as error:
            raise DataError(
                f"{self.place} is not what this program wrote", "look at entries.json there, and remove it"
            ) from error
        return entries, str(download.properties.etag)

    def _changed(self, changes: Mapping[str, str | None]) -> bool:
        """Change the entries; False if another program changed them meanwhile."""
        entries, etag = self._read()
        wanted = {**entries, **changes}
        kept = {key: value for key, value in sorted(wanted.items()) if value is not None}
        if kept == entries:
            # An earlier attempt whose answer was lost may have done it.
            return True
        condition: dict[str, Any] = (
            {"overwrite": True, "etag": etag, "match_condition": MatchConditions.IfNotModified}
            if etag
            else {"overwrite": False}
        )
        blob = self._azure.container.get_blob_client(f"{self._folder}/entries.json")
        try:
            blob.upload_blob(json.dumps(kept, indent=0).encode(), validate_content=True, **condition)
        except HttpResponseError as error:
            if azure_errors.is_conflict(error) or azure_errors.is_there_already(error):
                return False
            raise
        return True
