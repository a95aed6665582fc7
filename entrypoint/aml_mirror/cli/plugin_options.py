"""Options that registries and sources of other packages bring."""

from __future__ import annotations

from aml_mirror.core.options import Option

GROUPS = ("aml_mirror.registries", "aml_mirror.sources")


def plugin_options() -> tuple[Option, ...]:
    """Return the rows that installed packages add to the table of options.

    What an entry point of ``GROUPS`` names may have an attribute ``options``, a sequence of
    :class:`aml_mirror.core.options.Option`. Their values are in ``Settings.extra``.
    """
    # Late: nothing else needs it, and --version should not wait for it.
    from importlib.metadata import entry_points

    rows: list[Option] = []
    for group in GROUPS:
        for entry in entry_points(group=group):
            if not (entry.value.startswith("aml_mirror.") or entry.value == "aml_mirror"):
                rows.extend(getattr(entry.load(), "options", ()))
    return tuple(rows)
