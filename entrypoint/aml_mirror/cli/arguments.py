"""The commands and flags, with their help. Nothing is decided here."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from aml_mirror import __version__
from aml_mirror.core.errors import UsageError

COMMANDS = ("mirror", "plan", "backfill", "status", "verify", "doctor")

_TOP_EXAMPLES = """\
examples:
  aml-mirror plan --source outputs/train/act                     what would be mirrored
  aml-mirror --source outputs/train/act --model-name act-pick \\
             --tracking-uri http://mlflow.example:5000           mirror it
  aml-mirror backfill --source outputs/train --model-name act    mirror every run in there
  aml-mirror status --run-id train-42 --model-name act-pick      which version it became
  aml-mirror verify act-pick:3                                   whether it still is what was mirrored
  aml-mirror doctor                                              what is missing, and how to mend it

exit codes: 0 mirrored, or already there; 64 usage; 65 no complete checkpoint, or data that cannot be trusted;
66 no such source; 70 a bug; 75 the service failed for now, run it again; 77 not allowed; 78 configuration
"""

_EXAMPLES = {
    "mirror": "example:\n  aml-mirror mirror --source runs/ppo --model-name ppo-reach --tracking-uri sqlite:///mlflow.db",
    "plan": "example:\n  aml-mirror plan --source runs/ppo --checkpoint best --json",
    "backfill": "examples:\n"
    "  aml-mirror backfill --source runs --model-name ppo-reach --match 'ppo-*' --since 7d\n"
    "  aml-mirror backfill --source azure://acct/runs/reach --model-name '{framework}-{parent}' --shard 0/4",
    "status": "example:\n  aml-mirror status --run-id ppo-17 --model-name ppo-reach --tracking-uri sqlite:///mlflow.db",
    "verify": "example:\n  aml-mirror verify ppo-reach:3 --tracking-uri sqlite:///mlflow.db",
    "doctor": "example:\n  aml-mirror doctor --source runs/ppo --model-name ppo-reach --tracking-uri http://mlflow.example:5000",
}

_HELP = {
    "mirror": "mirror a finished run into a registered model version, exactly once (the default command)",
    "plan": "decide the same and write nothing; needs no target",
    "backfill": "mirror every run below a prefix that is not mirrored yet, and go on where one fails",
    "status": "tell which version a run, or each run below a prefix, became, or what is missing",
    "verify": "read every byte of a registered version and compare it with what was mirrored",
    "doctor": "check settings, run and workspace, a line a check",
}


class _Replaced(argparse.Action):
    """``backfill --exclude`` left out runs, while ``mirror --exclude`` leaves out files."""

    def __call__(self, *_: object) -> NoReturn:
        raise UsageError(
            "backfill has no --exclude any more: it left out runs here and files elsewhere",
            "pass --exclude-run GLOB for runs, --exclude-file GLOB for files of each run",
        )


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours: one line, exit code 64."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see: {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """Build the parser. Flags have no defaults here: an absent one leaves the word to the environment."""
    shape = argparse.RawDescriptionHelpFormatter
    top = _Parser(
        prog="aml-mirror",
        description="Mirror a finished robot-learning run into a model registry, exactly once.",
        epilog=_TOP_EXAMPLES,
        formatter_class=shape,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"aml-mirror {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name in COMMANDS:
        command = commands.add_parser(
            name,
            help=_HELP[name],
            description=_HELP[name][0].upper() + _HELP[name][1:] + ".",
            epilog=_EXAMPLES[name],
            formatter_class=shape,
            allow_abbrev=False,
        )
        if name == "verify":
            _add_verified(command)
        elif name == "backfill":
            _add_prefix(command)
            _add_checkpoint(command, file="-file")
        else:
            _add_run(command)
        if name not in ("status", "verify", "backfill"):
            _add_osmo(command)
            _add_checkpoint(command)
        _add_target(command)
        if name == "doctor":
            _add_probe(command)
        _add_output(command)
    return top


def _add_run(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("the run")
    group.add_argument(
        "--source",
        metavar="DIR",
        help="a folder, or azure://ACCOUNT/CONTAINER/PATH [OUTPUT_DIR, OUTPUT_BASE/run id, or what the "
        "run declared on OSMO]",
    )
    group.add_argument("--run-id", metavar="ID", help="its id [REPLAY_RUN_ID, RUN_ID, or the folder's name]")
    group.add_argument("--framework", metavar="NAME", help="its layout [found by looking]")


def _add_osmo(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("the run on OSMO, which the pod's osmo program is asked about")
    group.add_argument("--task", metavar="NAME", help="only this task of it: its status, its outputs [all]")
    group.add_argument("--wait-for", metavar="TIME", help="how long its end is waited for: 30m, 12h, 3d [0]")
    group.add_argument(
        "--allow-failed", action="store_true", default=None, help="mirror also what a failed run left"
    )


def _add_prefix(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("the runs")
    group.add_argument(
        "--source",
        metavar="PREFIX",
        help="the folder that holds the runs' folders, or azure://ACCOUNT/CONTAINER/PATH [OUTPUT_BASE]",
    )
    group.add_argument(
        "--match",
        metavar="GLOB",
        action="append",
        help="only runs whose path below PREFIX, or a folder above, matches (repeatable)",
    )
    group.add_argument(
        "--exclude-run",
        dest="exclude_runs",
        metavar="GLOB",
        action="append",
        help="not the runs whose path, or a folder above, matches (repeatable)",
    )
    group.add_argument("--exclude", metavar="GLOB", action=_Replaced, help=argparse.SUPPRESS)
    group.add_argument(
        "--since",
        metavar="WHEN",
        help="only runs with a file written since: 2026-11-01 (UTC), 36h, 7d, 2w",
    )
    group.add_argument("--limit", metavar="N", help="mirror no more than N; what is there does not count")
    group.add_argument(
        "--shard", metavar="I/N", help="only the I-th of N parts, from 0/N to N-1/N; together they are all"
    )
    group.add_argument("--framework", metavar="NAME", help="their layout [found by looking]")


def _add_checkpoint(command: argparse.ArgumentParser, file: str = "") -> None:
    group = command.add_argument_group("what of it")
    group.add_argument(
        "--checkpoint",
        metavar="WHICH",
        help="final, best, all, a step, or a path below the run's root, of any weights [final]",
    )
    group.add_argument(
        f"--include{file}",
        dest="include",
        metavar="GLOB",
        action="append",
        help="take only files that match (repeatable)",
    )
    group.add_argument(
        f"--exclude{file}",
        dest="exclude",
        metavar="GLOB",
        action="append",
        help="leave out files that match (repeatable)",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        default=None,
        help="fail with 65 where an incomplete checkpoint is newer",
    )
    group.add_argument(
        "--hash",
        action="store_true",
        default=None,
        help="also read and hash files that are copied server-side",
    )
    group.add_argument(
        "--refuse-pickle",
        action="store_true",
        default=None,
        help="fail with 65 where loading the checkpoint may run code that its maker chose",
    )
    group.add_argument(
        "--sign-key", metavar="FILE", help="sign what the version is made of: a private key in PEM"
    )


def _add_target(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("where to")
    group.add_argument("--model-name", metavar="NAME", help="the registered model [AZUREML_MODEL_NAME]")
    group.add_argument("--experiment", metavar="NAME", help="the experiment [named like the model]")
    group.add_argument("--tag", metavar="K=V", action="append", help="a tag of your own (repeatable)")
    group.add_argument(
        "--tracking-uri", metavar="URI", help="an MLflow server or database [MLFLOW_TRACKING_URI]"
    )
    group.add_argument("--subscription-id", metavar="ID", help="Azure ML [AZURE_SUBSCRIPTION_ID]")
    group.add_argument("--resource-group", metavar="NAME", help="Azure ML [AZURE_RESOURCE_GROUP]")
    group.add_argument("--workspace-name", metavar="NAME", help="Azure ML [AZUREML_WORKSPACE_NAME]")
    group.add_argument("--concurrency", metavar="N", help="Azure ML: blocks sent at the same time [16]")
    group.add_argument("--block-size", metavar="SIZE", help="Azure ML: size of a block: 4MiB, 32MiB [8MiB]")
    group.add_argument(
        "--retry-for", metavar="TIME", help="how long a failing service is tried again: 90s, 15m, 2h [15m]"
    )


def _add_verified(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("what is checked")
    group.add_argument(
        "reference", metavar="MODEL:VERSION", nargs="?", help="as act-pick:3 or models:/act-pick/3"
    )
    group.add_argument(
        "--public-key", metavar="FILE", help="it also has to be signed with the key of this one, in PEM"
    )


def _add_probe(command: argparse.ArgumentParser) -> None:
    command.add_argument_group("the workspace").add_argument(
        "--probe",
        action="store_true",
        default=None,
        help="Azure ML: also try what only a real workspace can tell, with a run and a model version of its "
        "own, both named aml-mirror-probe and removed again",
    )


def _add_output(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("output")
    group.add_argument("--json", action="store_true", default=None, help="print one JSON object on stdout")
    group.add_argument("--debug", action="store_true", default=None, help="show tracebacks")


def with_default_command(arguments: Sequence[str]) -> list[str]:
    """Put ``mirror`` in front where no command is named."""
    given = list(arguments)
    if given and (given[0] in COMMANDS or given[0] in ("-h", "--help", "--version")):
        return given
    if given and not given[0].startswith("-"):
        raise UsageError(f"there is no command {given[0]!r}", "the commands are: " + ", ".join(COMMANDS))
    return ["mirror", *given]
