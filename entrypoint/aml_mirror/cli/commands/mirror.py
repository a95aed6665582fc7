"""``aml-mirror mirror``."""

from __future__ import annotations

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command

MAX_WARNINGS = 20


def run(call: Call) -> int:
    """Mirror a run and print one receipt for each version."""
    from aml_mirror.cli.report import receipt_text
    from aml_mirror.pipeline.mirror import Mirror
    from aml_mirror.pipeline.receipt import write_termination_log
    from aml_mirror.telemetry.record import count

    for done in Mirror(call.settings, call.console, call.progress).run():
        write_termination_log(done)
        count(done)
        for warning in done.warnings[:MAX_WARNINGS]:
            call.console.warn(warning)
        if output.for_people(call.settings.json):
            output.print_text(receipt_text(done))
        else:
            output.print_line(done.line())
    return 0


COMMAND = Command(
    "mirror",
    "mirror a finished run into a registered model version, exactly once (the default command)",
    (
        "aml-mirror mirror runs/ppo --model-name ppo-reach --tracking-uri sqlite:///mlflow.db",
        "aml-mirror mirror azure://acct/runs/ppo-17 --model-name ppo-reach --checkpoint best",
    ),
    run,
)
