"""Chooses the kind of source that the settings ask for."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from dataclasses import replace

from aml_mirror.core.errors import UsageError
from aml_mirror.core.settings import Settings, locate_source
from aml_mirror.sources.base import Source, named
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.source_type import AzureBlobSourceType, SourceType
from aml_mirror.support import plugins

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.S)
BUILT_IN: tuple[SourceType, ...] = (AzureBlobSourceType(),)
_FORM = BUILT_IN[0].form


def open_source(settings: Settings, notice: Callable[[str], None] = lambda text: None) -> Source:
    """Return the source that the settings name, or the one that OSMO knows for their run.

    Args:
        settings: of this call. If OSMO is asked, the source knows the run's own name
            (:func:`aml_mirror.sources.base.run_id_of`).
        notice: called with messages for the user while waiting.

    Raises:
        UsageError: the settings name no source, or a kind of URI that cannot be read.
        MirrorError: see :class:`aml_mirror.osmo.run_location.OsmoRun`.
    """
    if settings.run_id and _asks_osmo(settings, notice):
        # Imported late: most calls name their source.
        from aml_mirror.sources.osmo_outputs import DeclaredOutput

        return DeclaredOutput(settings, notice)
    if not settings.wait_seconds:
        return _open(settings, notice)
    if not settings.run_id:
        raise UsageError("--wait-for needs to know the run to wait for", "pass its id with --run-id")
    from aml_mirror.osmo.run_location import OsmoRun

    run = OsmoRun(settings, notice).ended()
    return named(_open(replace(settings, run_id=run.name), notice), run.name, run.labels)


@functools.cache
def source_types() -> tuple[SourceType, ...]:
    """Return every kind of source that has URIs: first the built-in ones, then those of other packages.

    Raises:
        ConfigurationError: a package's source cannot be loaded, or its name or scheme is already used.
    """
    types = (*BUILT_IN, *plugins.load(plugins.SOURCES))
    plugins.require_unique("sources", (item.name for item in types))
    plugins.require_unique("sources", (scheme for item in types for scheme in item.schemes))
    return types


def _open(settings: Settings, notice: Callable[[str], None]) -> Source:
    place = locate_source(settings)
    match = _SCHEME.match(place)
    if not match:
        return LocalSource(place)
    scheme = match[1].lower()
    for item in source_types():
        if scheme in item.schemes:
            return item.open(f"{scheme}://{match[2]}", settings, notice)
    raise _not_readable(scheme, match[2], settings.from_where("source"))


def _asks_osmo(settings: Settings, notice: Callable[[str], None]) -> bool:
    """Tell whether only OSMO knows where the run is."""
    if settings.source:
        return False
    if not settings.output_base:
        return True
    place = locate_source(settings)
    if _SCHEME.match(place) or os.path.lexists(place):
        return False
    from aml_mirror.osmo.connection import is_reachable

    if not is_reachable(settings):
        return False
    notice(f"there is no {place}; asking OSMO where run {settings.run_id} is")
    return True


def _not_readable(kind: str, rest: str, set_by: str) -> UsageError:
    if kind in ("abfs", "abfss", "wasb", "wasbs"):
        # abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH
        found = re.match(r"([a-z0-9$-]+)@([a-z0-9]+)\.[^/]*/?([^?]*)", rest)
        form = f"azure://{found[2]}/{found[1]}/{found[3]}".rstrip("/") if found else _FORM
        return UsageError(f"the source{set_by} is a {kind}:// URI", f"pass the same place as --source {form}")
    if kind == "file":
        return UsageError(f"the source{set_by} is a file:// URI", "pass the folder's path: --source DIR")
    return UsageError(
        f"the source{set_by} is a {kind}:// URI, which cannot be read",
        f"pass a folder, or one of: {', '.join(f'--source {item.form}' for item in source_types())}",
    )
