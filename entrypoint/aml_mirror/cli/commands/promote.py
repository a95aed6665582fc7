"""``aml-mirror promote``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Give a stage to a version if it passes a policy; 65 if it does not."""
    from aml_mirror.gates.explain import explained
    from aml_mirror.gates.promotion import promote

    settings = call.settings
    result = promote(settings, call.console)
    if settings.explain and settings.json:
        call.console.say(explained(result))
    elif settings.explain:
        output.print_text(explained(result))
    if settings.json:
        output.print_text(json.dumps(result.as_dict()))
    elif not result.error:
        output.print_text(result.text(with_notes=not settings.explain))
    if result.error:
        call.console.fail(result.error)
    return result.exit_code


COMMAND = Command(
    "promote",
    "give a stage, such as production, to a version that passes a policy",
    (
        "aml-mirror promote act-pick:3 --to production --policy gate.yaml --explain",
        "aml-mirror promote act-pick:3 --to staging --dry-run",
    ),
    run,
)
