"""``aml-mirror demote``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Take a stage from the version that has it."""
    from aml_mirror.gates.stage_changes import demote

    result = demote(call.settings, call.console)
    output.print_text(json.dumps(result.as_dict()) if call.settings.json else result.text())
    return 0


COMMAND = Command(
    "demote",
    "take a stage away from the version that has it",
    ('aml-mirror demote act-pick@production --reason "drops the cup"',),
    run,
)
