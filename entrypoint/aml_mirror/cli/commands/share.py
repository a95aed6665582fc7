"""``aml-mirror share``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Copy a version to an Azure ML registry."""
    from aml_mirror.gates.share import share

    result = share(call.settings, call.console)
    output.print_text(json.dumps(result.as_dict()) if call.settings.json else result.text())
    return 0


COMMAND = Command(
    "share",
    "copy a version to an Azure ML registry, and verify the copy",
    ("aml-mirror share act-pick:3 --registry robots",),
    run,
)
