"""Which kind of source the settings mean."""

from __future__ import annotations

from aml_mirror.settings import Settings, locate_source
from aml_mirror.sources.base import Source
from aml_mirror.sources.local import LocalSource


def open_source(settings: Settings) -> Source:
    """Return the source that the settings name.

    Raises:
        UsageError: they name none, or a URI of a kind that cannot be read.
    """
    return LocalSource(locate_source(settings))
