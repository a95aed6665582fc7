"""``aml-mirror prune``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Print what no version needs, and remove it with ``--delete``."""
    from aml_mirror.prune.prune import prune

    result = prune(call.settings, call.console)
    output.print_text(json.dumps(result.as_dict()) if call.settings.json else result.text())
    return result.exit_code


COMMAND = Command(
    "prune",
    "list what interrupted mirrors left behind, and delete it with --delete",
    ("aml-mirror prune --older-than 30d", "aml-mirror prune --older-than 30d --delete"),
    run,
)
