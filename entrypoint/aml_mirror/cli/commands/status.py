"""``aml-mirror status``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Print which version each run became; 65 if one has none."""
    from aml_mirror.status.status import statuses, text

    if call.settings.backfill_id:
        return _kept(call)
    missing = 0
    for status in statuses(call.settings, call.console.say):
        missing += not status["versions"]
        output.print_text(json.dumps(status) if call.settings.json else text(status))
    return 65 if missing else 0


def _kept(call: Call) -> int:
    from aml_mirror.backfill import kept_receipts

    failed = 0
    for receipt in kept_receipts.kept_receipts(call.settings, call.console.say):
        failed += receipt.get("outcome") == "failed"
        people = output.for_people(call.settings.json)
        output.print_text(kept_receipts.text(receipt) if people else json.dumps(receipt))
    return 65 if failed else 0


COMMAND = Command(
    "status",
    "show which version a run, or each run below a folder, became, or what is missing",
    (
        "aml-mirror status --run-id ppo-17 --model-name ppo-reach --tracking-uri sqlite:///mlflow.db",
        "aml-mirror status runs --model-name ppo-reach",
        "aml-mirror status --backfill azureml-backfill-7",
    ),
    run,
)
