"""``aml-mirror plan``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command
from aml_mirror.core.errors import SeveralRuns


def run(call: Call) -> int:
    """Print what a mirror would do. If a folder has several runs, each is listed, and the call fails."""
    from aml_mirror.cli.report import plan_text
    from aml_mirror.pipeline.decide import plans

    try:
        for plan in plans(call.settings, call.console):
            output.print_text(json.dumps(plan.as_dict()) if call.settings.json else plan_text(plan))
    except SeveralRuns as error:
        if not call.settings.run_id:
            _list_runs(call)
        # Like mirror, which accepts one run.
        raise error
    return 0


def _list_runs(call: Call) -> None:
    """Print what a backfill would do with each run of a folder."""
    from aml_mirror.backfill.plan_runs import plan_runs
    from aml_mirror.backfill.summary import Summary
    from aml_mirror.sources.base import as_prefix
    from aml_mirror.sources.registry import open_source

    prefix = as_prefix(open_source(call.settings, call.console.say))
    if prefix is None:
        return
    summary = Summary()
    for receipt in plan_runs(prefix, call.settings, call.console, summary):
        if call.settings.json:
            output.print_line(receipt.line())
    if call.settings.json:
        output.print_line(summary.line())
    else:
        output.print_text(summary.table())


COMMAND = Command(
    "plan",
    "show what mirror would do, without writing anything; no target is needed",
    ("aml-mirror plan runs/ppo", "aml-mirror plan runs/ppo --checkpoint best --json", "aml-mirror plan runs"),
    run,
    note="For a folder with several runs it lists them, and exits with 64, as mirror does. plan takes every "
    "option of mirror.",
)
