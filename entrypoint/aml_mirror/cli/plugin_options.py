"""Options of registries and sources from other packages."""

from __future__ import annotations

from aml_mirror.core.options import Option
from aml_mirror.support import plugins


def plugin_options() -> tuple[Option, ...]:
    """Return the options that installed packages add to the table.

    A registry or a source may have an attribute ``options``, a sequence of
    :class:`aml_mirror.core.options.Option`. Their values are in ``Settings.extra``.

    Raises:
        ConfigurationError: another package's registry or source cannot be loaded.
    """
    return tuple(
        row
        for group in (plugins.REGISTRIES, plugins.SOURCES)
        for plugin in plugins.load(group)
        for row in getattr(plugin, "options", ())
    )
