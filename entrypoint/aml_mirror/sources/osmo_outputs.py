"""The source that a run declared. It is blob storage, but if nothing is there, that is another error."""

from __future__ import annotations

from collections.abc import Callable

from aml_mirror.core.errors import SourceNotFound
from aml_mirror.core.settings import Settings
from aml_mirror.osmo.run_location import OsmoRun
from aml_mirror.sources.azure_blob import BlobSource
from aml_mirror.sources.base import Listing


class DeclaredOutput(BlobSource):
    """The declared output of an OSMO run (:class:`aml_mirror.osmo.run_location.OsmoRun`), read as blobs."""

    def __init__(self, settings: Settings, notice: Callable[[str], None]) -> None:
        self._run = OsmoRun(settings, notice)
        super().__init__(self._run.output(), retry_seconds=settings.retry_seconds, notice=notice)
        # A run has one name, whether it was selected by name or by UUID.
        self.run_id = self._run.ended().name
        self.run_labels = self._run.ended().labels
        notice(f"run {self.run_id} declared its output in {self.uri}")

    def scan(self) -> Listing:
        try:
            return super().scan()
        except SourceNotFound as error:
            raise self._run.nothing_there(error.message) from error
