"""``aml-mirror plan``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command
from aml_mirror.core.errors import SeveralRuns


def run(call: Call) -> int:
    """Print what a mirror would do, or of each run of a folder what a backfill would do."""
    from aml_mirror.cli.report import plan_text
    from aml_mirror.pipeline.decide import plans

    try:
        for plan in plans(call.settings, call.console):
            output.print_text(json.dumps(plan.as_dict()) if call.settings.json else plan_text(plan))
    except SeveralRuns as error:
        if call.settings.run_id:
            raise
        return _several(call, error)
    return 0


def _several(call: Call, error: SeveralRuns) -> int:
    from aml_mirror.backfill.plan_runs import plan_runs
    from aml_mirror.backfill.summary import Summary
    from aml_mirror.sources.base import as_prefix
    from aml_mirror.sources.registry import open_source

    prefix = as_prefix(open_source(call.settings, call.console.say))
    if prefix is None:
        raise error
    summary = Summary()
    for receipt in plan_runs(prefix, call.settings, call.console, summary):
        if call.settings.json:
            output.print_line(receipt.line())
    if call.settings.json:
        output.print_line(summary.line())
    else:
        output.print_text(summary.table())
    call.console.say(f"mirror takes one run; for all of these: aml-mirror backfill {prefix.uri}")
    return summary.exit_code


COMMAND = Command(
    "plan",
    "show what mirror would do, without writing anything; needs no target",
    ("aml-mirror plan runs/ppo", "aml-mirror plan runs/ppo --checkpoint best --json", "aml-mirror plan runs"),
    run,
    note="Of a folder with several runs it lists each. plan takes every option of mirror.",
)
