"""``aml-mirror status``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Print which version each run became; 65 if one has none."""
    from aml_mirror.status.prefix_status import RunStatus, statuses
    from aml_mirror.status.status_text import run_text, table

    if call.settings.backfill_id:
        return _kept(call)
    missing = 0
    shown: list[RunStatus] = []
    found = statuses(call.settings, call.console)
    for one in found.runs:
        missing += not one.document["versions"]
        if call.settings.json:
            output.print_text(json.dumps(one.document))
        elif found.prefix:
            shown.append(one)
        else:
            output.print_text(run_text(one.document))
    if found.prefix and not call.settings.json:
        output.print_text(table(found.prefix, shown))
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
        "aml-mirror status runs --model-name ppo-reach --match 'ppo-*' --since 7d",
        "aml-mirror status --backfill azureml-backfill-7",
    ),
    run,
)
