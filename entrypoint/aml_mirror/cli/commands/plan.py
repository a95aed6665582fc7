"""``aml-mirror plan``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Print what a mirror would do."""
    from aml_mirror.cli.report import plan_text
    from aml_mirror.pipeline.decide import plans

    for plan in plans(call.settings, call.console):
        output.print_text(json.dumps(plan.as_dict()) if call.settings.json else plan_text(plan))
    return 0


COMMAND = Command(
    "plan",
    "show what mirror would do, without writing anything; needs no target",
    ("aml-mirror plan runs/ppo", "aml-mirror plan runs/ppo --checkpoint best --json"),
    run,
    note="plan takes every option of mirror.",
)
