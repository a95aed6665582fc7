"""The commands, one module each. What a command needs is imported when it runs, so that help is fast."""

from aml_mirror.cli.commands import (
    backfill,
    completion,
    demote,
    doctor,
    evaluate,
    export,
    history,
    mirror,
    plan,
    promote,
    prune,
    pull,
    repair,
    rollback,
    share,
    status,
    verify,
    watch,
)
from aml_mirror.cli.commands.base import Call, Command

__all__ = ["BY_NAME", "COMMANDS", "Call", "Command"]

COMMANDS = (
    mirror.COMMAND,
    plan.COMMAND,
    backfill.COMMAND,
    watch.COMMAND,
    status.COMMAND,
    verify.COMMAND,
    pull.COMMAND,
    export.COMMAND,
    repair.COMMAND,
    evaluate.COMMAND,
    promote.COMMAND,
    demote.COMMAND,
    rollback.COMMAND,
    history.COMMAND,
    share.COMMAND,
    prune.COMMAND,
    doctor.COMMAND,
    completion.COMMAND,
)
BY_NAME = {command.name: command for command in COMMANDS}
