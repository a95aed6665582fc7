"""``aml-mirror evaluate``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Attach the result of an evaluation to a version."""
    from aml_mirror.evidence.evaluate import evaluate

    result = evaluate(call.settings, call.console)
    output.print_text(json.dumps(result.as_dict()) if call.settings.json else result.text())
    return 0


COMMAND = Command(
    "evaluate",
    "attach the result of an evaluation to a registered version",
    (
        "aml-mirror evaluate act-pick:3 --result outputs/eval_info.json --sign-key evaluator.pem",
        "python policy_evaluation.py … | aml-mirror evaluate act-pick:3 --result -",
    ),
    run,
)
