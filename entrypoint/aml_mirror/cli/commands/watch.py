"""``aml-mirror watch``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aml_mirror.cli import output, telemetry
from aml_mirror.cli.commands.base import Call, Command

if TYPE_CHECKING:
    from aml_mirror.backfill.summary import Summary
    from aml_mirror.pipeline.receipt import Receipt


def run(call: Call) -> int:
    """Mirror workflows as they complete, and print the receipts and a summary of each pass."""
    from aml_mirror.pipeline.receipt import write_termination_log
    from aml_mirror.telemetry.record import count
    from aml_mirror.watch.watch import Watch

    lines = not output.for_people(call.settings.json)

    def summed_up(summary: Summary) -> None:
        if summary.error:
            call.console.fail(summary.error + (f"; {summary.hint}" if summary.hint else ""))
        call.console.say(summary.table().splitlines()[-1])
        write_termination_log(summary)
        if lines:
            output.print_line(summary.line())
        telemetry.deliver(call.console, summary.exit_code)

    def tell(done: Receipt) -> None:
        count(done)
        if lines:
            output.print_line(done.line())

    return Watch(call.settings, call.console, tell, summed_up).run()


COMMAND = Command(
    "watch",
    "mirror OSMO workflows as they complete",
    (
        "aml-mirror watch --label mirror=on --model-name '{label.task}'",
        "aml-mirror watch --match 'train-*' --model-name '{workflow}' --since 7d --once",
    ),
    run,
)
