"""Checks which options of a backfill can be combined, from OSMO or of a folder."""

from __future__ import annotations

from aml_mirror.core.errors import UsageError
from aml_mirror.core.settings import Settings


def check_osmo_options(settings: Settings) -> None:
    """Check that the options of a backfill from OSMO can be combined.

    Raises:
        UsageError: they cannot.
    """
    if settings.source:
        raise UsageError("--from-osmo and --source name two different sources", "pass one of them")
    if settings.skip_copies:
        raise UsageError(
            "--skip-copies compares the runs of a folder, but --from-osmo names no folder", "pass one of them"
        )


def refuse_osmo_filters(settings: Settings) -> None:
    """Check that a backfill of a folder has no options for workflows.

    Raises:
        UsageError: it has one.
    """
    given = {"--label": settings.labels, "--pool": settings.pools, "--user": settings.users}
    if found := [flag for flag, value in given.items() if value]:
        raise UsageError(
            f"{found[0]} selects workflows of OSMO, but a folder has none", "pass --from-osmo too"
        )
