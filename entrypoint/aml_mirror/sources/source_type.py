"""Describes a kind of source before it is opened.

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
    """The form of its URIs, for help and error messages: ``azure://ACCOUNT/CONTAINER/PATH``."""
    schemes: tuple[str, ...]
    """The schemes of ``--source`` for this kind, in lower case."""
    options: tuple[Option, ...] = ()
    """The options that this kind adds; their values are in ``Settings.extra``."""

    @abstractmethod
    def open(self, uri: str, settings: Settings, notice: Callable[[str], None]) -> Source:
        """Return the source at a URI, without listing it.

        A source that may contain several runs is a :class:`aml_mirror.sources.base.Prefix`.

        Args:
            uri: the URI, with its scheme in lower case.
            settings: of this call.
            notice: called with messages for the user while waiting.

        Raises:
            UsageError: the URI has another form.
        """


class AzureBlobSourceType(SourceType):
    """Azure Blob storage."""

    name = "azure"
    form = "azure://ACCOUNT/CONTAINER/PATH"
    schemes = ("azure", "https")

    def open(self, uri: str, settings: Settings, notice: Callable[[str], None]) -> Source:
        # Imported late: loading the clients of Azure takes a second, and a local run does not need them.
        from aml_mirror.sources.azure_blob import BlobSource

        return BlobSource(uri, retry_seconds=settings.retry_seconds, notice=notice)
