"""``aml-mirror rollback``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Give a stage back to the version that had it before."""
    from aml_mirror.gates.stage_changes import rollback

    result = rollback(call.settings, call.console)
    output.print_text(json.dumps(result.as_dict()) if call.settings.json else result.text())
    return 0


COMMAND = Command(
    "rollback",
    "give a stage back to the previous version, after verifying it again",
    ('aml-mirror rollback act-pick@production --reason "version 5 drops the cup"',),
    run,
)
