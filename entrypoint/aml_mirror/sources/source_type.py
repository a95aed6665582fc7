"""What a kind of source says of itself before it is opened.

Another package adds one with an entry point in the group ``aml_mirror.sources`` that names a subclass of
:class:`SourceType`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from aml_mirror.core.options import Option
from aml_mirror.core.settings import Settings
from aml_mirror.sources.base import Source


class SourceType(ABC):
    """One kind of source."""

    name: str
    """One word, for error messages."""
    form: str
    """How its URIs are written, for help and error messages: ``azure://ACCOUNT/CONTAINER/PATH``."""
    schemes: tuple[str, ...]
    """Schemes of ``--source`` that mean this kind, in lower case."""
    options: tuple[Option, ...] = ()
    """Rows that this kind adds to the table of options; their values are in ``Settings.extra``."""

    @abstractmethod
    def open(self, uri: str, settings: Settings, notice: Callable[[str], None]) -> Source:
        """Return the source at a URI; nothing is listed yet.

        A source that can hold several runs is a :class:`aml_mirror.sources.base.Prefix`.

        Args:
            uri: with its scheme in lower case.
            settings: of this call.
            notice: called with messages for the user while waiting.

        Raises:
            UsageError: the URI is not of the form.
        """


class AzureBlobSourceType(SourceType):
    """Azure Blob storage."""

    name = "azure"
    form = "azure://ACCOUNT/CONTAINER/PATH"
    schemes = ("azure", "https")

    def open(self, uri: str, settings: Settings, notice: Callable[[str], None]) -> Source:
        # Late: importing the clients of Azure takes a second, which a local run need not wait for.
        from aml_mirror.sources.azure_blob import BlobSource

        return BlobSource(uri, retry_seconds=settings.retry_seconds, notice=notice)
