"""``aml-mirror pull``."""

from __future__ import annotations

import json
from dataclasses import replace

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Download a version into a folder, verify it, and show how to load it."""
    from aml_mirror.pull.pull import pull

    settings = call.settings
    if settings.run_id and settings.reference and not settings.folder:
        # With --run-id, the folder is the only argument.
        settings = replace(settings, reference="", folder=settings.reference)
    result = pull(settings, call.console)
    if output.for_people(settings.json):
        output.print_text(result.text())
    else:
        output.print_text(json.dumps(result.as_dict()))
    return 0


COMMAND = Command(
    "pull",
    "download a registered version, verify it, and show how to load it",
    (
        "aml-mirror pull act-pick:3 policies/act --tracking-uri http://mlflow.example:5000",
        "aml-mirror pull act-pick@production policies/act --replace --public-key release.pub",
        "aml-mirror pull --run-id ppo-17 policies/ppo",
    ),
    run,
)
