"""``aml-mirror doctor``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Print one line per check; the exit code is that of the first failure."""
    from aml_mirror.cli.report import check_text
    from aml_mirror.doctor.doctor import examine

    code = 0
    for check in examine(call.settings):
        output.print_text(json.dumps(check.as_dict()) if call.settings.json else check_text(check))
        if check.failure and not code:
            code = check.failure.exit_code
    return code


COMMAND = Command(
    "doctor",
    "check the settings, the run and the target, and say how to fix what fails",
    ("aml-mirror doctor runs/ppo --model-name ppo-reach --tracking-uri http://mlflow.example:5000",),
    run,
    note="doctor takes every option of mirror: to check a command line, replace mirror with doctor in it.",
)
