"""Loads additions to this program from other installed packages, through entry points.

A package names an object in one of the groups ``aml_mirror.layouts``, ``aml_mirror.sources`` and
``aml_mirror.registries`` of its metadata (https://packaging.python.org/specifications/entry-points/).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from aml_mirror.core.errors import ConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

LAYOUTS = "aml_mirror.layouts"
SOURCES = "aml_mirror.sources"
REGISTRIES = "aml_mirror.registries"


def entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group, of all installed packages."""
    return tuple(_of_all_groups().select(group=group))


@functools.cache
def _of_all_groups() -> Any:
    # Read once: a package's file contains all its groups, and reading those of two hundred packages takes
    # longer than most plans. Imported late: the module takes longer to import than most of this program.
    from importlib import metadata

    return metadata.entry_points()


@functools.cache
def load(group: str) -> tuple[Any, ...]:
    """Return the additions of installed packages to a group, sorted by name. A class is called without
    arguments.

    Raises:
        ConfigurationError: a package's object cannot be loaded. Skipping it would hide why a run, a source or
            a registry is unknown.
    """
    loaded = []
    for entry in sorted(entry_points(group), key=lambda entry: entry.name):
        package = entry.dist.name if entry.dist else entry.value
        try:
            plugin = entry.load()
            loaded.append(plugin() if isinstance(plugin, type) else plugin)
        except Exception as error:
            raise ConfigurationError(
                f"{entry.name!r} ({group}) of the package {package} cannot be loaded: "
                f"{type(error).__name__}: {error}",
                f"upgrade that package, or uninstall it: pip uninstall {package}",
            ) from error
    return tuple(loaded)


def require_unique(kind: str, names: Iterable[str]) -> None:
    """Check that no two packages add the same name.

    Args:
        kind: the kind of the named objects, in words.

    Raises:
        ConfigurationError: two packages do.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigurationError(
                f"two {kind} have the name {name!r}", "uninstall one of the packages that add it"
            )
        seen.add(name)
