"""``aml-mirror verify``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Print whether a version is what was mirrored; 65 if it differs."""
    from aml_mirror.verify.verify import text, verify

    result = verify(call.settings, call.console)
    output.print_text(json.dumps(result.as_dict()) if call.settings.json else text(result))
    return 0 if result.holds else 65


COMMAND = Command(
    "verify",
    "read every byte of a registered version and compare it with what was mirrored",
    (
        "aml-mirror verify ppo-reach:3 --tracking-uri sqlite:///mlflow.db",
        "aml-mirror verify ppo-reach:3 --public-key release.pub",
    ),
    run,
)
