"""What other installed packages add to this program, through entry points.

A package names an object in one of the groups ``aml_mirror.layouts``, ``aml_mirror.sources`` and
``aml_mirror.registries`` of its metadata (https://packaging.python.org/specifications/entry-points/).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from aml_mirror.core.errors import ConfigurationError

LAYOUTS = "aml_mirror.layouts"
SOURCES = "aml_mirror.sources"
REGISTRIES = "aml_mirror.registries"


@functools.cache
def load(group: str) -> tuple[Any, ...]:
    """Return what installed packages add to a group, sorted by name; a class is called without arguments.

    Raises:
        ConfigurationError: a package's object cannot be loaded. Leaving it out would hide why a run, a source
            or a registry is not known.
    """
    # Late: the module costs more to import than most of this program.
    from importlib.metadata import entry_points

    loaded = []
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
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
        kind: what has the names, in words.

    Raises:
        ConfigurationError: two do.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigurationError(
                f"two {kind} have the name {name!r}", "uninstall one of the packages that add it"
            )
        seen.add(name)
