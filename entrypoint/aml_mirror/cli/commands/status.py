"""``aml-mirror status``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command
from aml_mirror.core.errors import UsageError

if TYPE_CHECKING:
    from aml_mirror.status.backlog import Backlog


def run(call: Call) -> int:
    """Print which version each run became; 65 if one has none."""
    from aml_mirror.status.prefix_status import RunStatus, statuses
    from aml_mirror.status.status_text import count_line, run_text, table

    settings = call.settings
    if settings.backfill_id:
        if settings.html:
            raise UsageError(
                "--html shows a folder of runs, --backfill-id the receipts of one backfill",
                "pass one of them",
            )
        return _kept(call)
    backlog = _backlog(call)
    missing = 0
    shown: list[RunStatus] = []
    found = statuses(settings, call.console)
    for one in found.runs:
        missing += not one.document["versions"]
        if backlog:
            backlog.add(one)
        if settings.json:
            output.print_text(json.dumps(one.document))
        else:
            shown.append(one)
    if backlog:
        backlog.skipped(found.skipped)
        _write(backlog.page(found.prefix or settings.source or settings.run_id, Path(settings.html)), call)
    if not settings.json:
        if backlog:
            output.print_text(count_line(shown))
        else:
            output.print_text(table(found.prefix, shown) if found.prefix else run_text(shown[0].document))
    return 65 if missing else 0


def _backlog(call: Call) -> Backlog | None:
    if not call.settings.html:
        return None
    from aml_mirror.status import backlog, page

    page.require_writable(Path(call.settings.html))
    return backlog.Backlog(call.settings, call.console)


def _write(text: str, call: Call) -> None:
    from aml_mirror.status import page

    page.write(text, Path(call.settings.html))
    call.console.say(f"wrote {call.settings.html}")


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
    "show the registered version of a run, or of every run in a folder, and what is missing",
    (
        "aml-mirror status --run-id ppo-17 --model-name ppo-reach --tracking-uri sqlite:///mlflow.db",
        "aml-mirror status runs --model-name ppo-reach --match 'ppo-*' --since 7d",
        "aml-mirror status runs --model-name ppo-reach --html runs.html",
        "aml-mirror status --backfill-id azureml-backfill-7",
    ),
    run,
)
