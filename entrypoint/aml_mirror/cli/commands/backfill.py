"""``aml-mirror backfill``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command

if TYPE_CHECKING:
    from aml_mirror.backfill.summary import Summary
    from aml_mirror.pipeline.receipt import Receipt


def run(call: Call) -> int:
    """Mirror every run below a prefix, and print the receipts and a summary."""
    from aml_mirror.backfill.kept_receipts import KeptReceipts, new_id
    from aml_mirror.pipeline.receipt import write_termination_log
    from aml_mirror.telemetry.record import count

    lines = not output.for_people(call.settings.json)
    backfill_id = call.settings.backfill_id or new_id()
    kept = KeptReceipts(call.settings, backfill_id, call.console.warn)

    def tell(done: Receipt) -> None:
        count(done)
        if not call.settings.dry_run:
            kept.take(done)
        if lines:
            output.print_line(done.line())

    summary = _filled(call, tell)
    if kept.close():
        summary.backfill_id = backfill_id
    if summary.found or not summary.error:
        call.console.say(summary.table())
    if summary.backfill_id:
        call.console.say(f"all receipts: aml-mirror status --backfill-id {summary.backfill_id}")
    if summary.error:
        call.console.fail(summary.error + (f"; {summary.hint}" if summary.hint else ""))
    write_termination_log(summary)
    if lines:
        output.print_line(summary.line())
    return summary.exit_code


def _filled(call: Call, tell: Callable[[Receipt], None]) -> Summary:
    from aml_mirror.backfill.backfill import Backfill
    from aml_mirror.backfill.osmo_backfill import OsmoBackfill
    from aml_mirror.backfill.osmo_options import refuse_osmo_filters

    if call.settings.from_osmo:
        return OsmoBackfill(call.settings, call.console, tell).run(call.settings.since)
    refuse_osmo_filters(call.settings)
    return Backfill(call.settings, call.console, tell).run()


COMMAND = Command(
    "backfill",
    "mirror every run in a folder that is not mirrored yet; a failed run does not stop the others",
    (
        "aml-mirror backfill runs --model-name ppo-reach --match 'ppo-*' --since 7d",
        "aml-mirror backfill azure://acct/runs/reach --model-name '{framework}-{parent}' --shard 0/4",
        "aml-mirror backfill --from-osmo --model-name '{workflow}' --since 7d --match 'train-*'",
    ),
    run,
)
