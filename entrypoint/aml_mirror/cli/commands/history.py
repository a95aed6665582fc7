"""``aml-mirror history``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Print who had which stage, since when, and why."""
    from aml_mirror.gates.stage_history import history

    result = history(call.settings, call.console)
    output.print_text(json.dumps(result.as_dict()) if call.settings.json else result.text())
    return 0


COMMAND = Command(
    "history",
    "show which versions had which stage, since when, and why",
    (
        "aml-mirror history act-pick",
        "aml-mirror history act-pick@production --json",
    ),
    run,
)
