"""``aml-mirror repair``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Restore what is wrong or missing in a version from its run; 65 if it still differs."""
    from aml_mirror.verify.repair import repair

    result = repair(call.settings, call.console)
    output.print_text(json.dumps(result.as_dict()) if call.settings.json else result.text())
    return 0 if result.after.holds else 65


COMMAND = Command(
    "repair",
    "restore damaged or missing files of a registered version from its run",
    (
        "aml-mirror repair ppo-reach:3",
        "aml-mirror repair ppo-reach:3 --source /mnt/runs/ppo-reach",
    ),
    run,
)
