"""``aml-mirror export``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Push a version as a container image."""
    from aml_mirror.export.export import export

    result = export(call.settings, call.console)
    people = output.for_people(call.settings.json)
    output.print_text(result.text() if people else json.dumps(result.as_dict()))
    return 0


COMMAND = Command(
    "export",
    "push a registered version as a container image, one layer per file, without using the disk",
    ("aml-mirror export act-pick:3 lab.azurecr.io/policies/act-pick:3",),
    run,
)
