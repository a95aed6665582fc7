"""``aml-mirror plan``."""

from __future__ import annotations

import json

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Print what a mirror would do."""
    from aml_mirror.cli.report import plan_text
    from aml_mirror.pipeline import plan
    from aml_mirror.pipeline.select import choose
    from aml_mirror.sources.registry import open_source

    settings = call.settings
    subject = plan.find(open_source(settings, call.console.say), settings)
    for chosen in choose(subject.tree, subject.run, settings.checkpoint, settings.strict):
        read = settings.hash or not subject.source.has_etags
        decided = plan.decide(subject, plan.narrowed(chosen, settings), settings, call.console, read)
        output.print_text(json.dumps(decided.as_dict()) if settings.json else plan_text(decided))
    return 0


COMMAND = Command(
    "plan",
    "show what mirror would do, without writing anything; needs no target",
    ("aml-mirror plan runs/ppo", "aml-mirror plan runs/ppo --checkpoint best --json"),
    run,
    note="plan takes every option of mirror.",
)
