"""Which options of a backfill go together, from OSMO and of a folder."""

from __future__ import annotations

from aml_mirror.core.errors import UsageError
from aml_mirror.core.settings import Settings


def check_osmo_options(settings: Settings) -> None:
    """Check that the options of a backfill from OSMO go together.

    Raises:
        UsageError: they do not.
    """
    if settings.source:
        raise UsageError("--from-osmo and --source name two different sources", "pass one of them")
    if settings.skip_copies:
        raise UsageError(
            "--skip-copies compares the runs of a folder, and --from-osmo names none", "pass one of them"
        )


def refuse_osmo_filters(settings: Settings) -> None:
    """Check that a backfill of a folder is not asked for workflows.

    Raises:
        UsageError: it is.
    """
    given = {"--label": settings.labels, "--pool": settings.pools, "--user": settings.users}
    if found := [flag for flag, value in given.items() if value]:
        raise UsageError(
            f"{found[0]} selects workflows of OSMO, and a folder has none", "pass --from-osmo with it"
        )
