#!/usr/bin/env python3
"""Replay a completed run of OSMO into Azure ML: check, submit workflows/replay-azureml.yaml, follow it.

    replay.py groot-train-17 --model-name groot-pick              submit, and print the workflow's id
    replay.py groot-train-17 --model-name groot-pick --wait       … and end with the receipt and its exit code
    replay.py groot-train-17 --model-name groot-pick --after      wait for the run's end first
    replay.py 0017 --source azure://acct/runs/0017 --dry-run      print the command, submit nothing
    replay.py groot-train-17 --model-name groot-pick --label team=arms     a label of the replay (OSMO 6.4)
    replay.py groot-train-17 --model-name groot-pick -- --tag robot=ur5e --strict

Arguments after `--` are passed to the program in the pod. AZUREML_MODEL_NAME and AML_MIRROR_IMAGE are read
from the environment or from .env in this folder. So is the workspace, if AZURE_SUBSCRIPTION_ID,
AZURE_RESOURCE_GROUP and AZUREML_WORKSPACE_NAME are all set; otherwise the pod template names it.

It needs Python 3.11 and the osmo program, logged in. Exit codes (sysexits.h): 0 submitted, or with --wait
mirrored; 64 usage; 65 no complete checkpoint, or the run failed; 66 no such run; 70 a bug; 75 temporary
failure, or the run has not ended; 77 not allowed; 78 configuration; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

if sys.version_info < (3, 11):  # noqa: UP036 - nothing checks it before, since nothing is installed
    sys.exit(f"replay.py: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")

HERE = Path(__file__).resolve().parent
WORKFLOW = HERE.parent / "workflows" / "replay-azureml.yaml"
# The modules shared with the program in the pod need only the standard library.
sys.path.insert(0, str(HERE.parent / "entrypoint"))

from replay_follow import exit_code, judge, receipts, until_ended  # noqa: E402
from replay_submit import knows_labels, submit  # noqa: E402
from replay_values import (  # noqa: E402
    Values,
    check_flags,
    check_image,
    check_labels,
    check_run_id,
    check_source,
    coordinates,
    default_image,
    read_dotenv,
    read_terraform,
)

from aml_mirror.core.errors import (  # noqa: E402
    ConfigurationError,
    MirrorError,
    ServiceUnavailable,
    SourceNotFound,
    UsageError,
)
from aml_mirror.osmo.client import OsmoClient  # noqa: E402
from aml_mirror.osmo.workflow import has_ended, read_query  # noqa: E402
from aml_mirror.support import redaction  # noqa: E402

BUG, INTERRUPTED = 70, 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see: {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """Build the parser."""
    top = _Parser(
        prog="replay.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="replay.py RUN_ID [options] [-- FLAGS OF THE PROGRAM]",
        allow_abbrev=False,
    )
    top.add_argument("run_id", metavar="RUN_ID", help="as `osmo workflow list` shows it")
    top.add_argument("--source", metavar="DIR", help="where it is [a mounted volume, or what it declared]")
    top.add_argument("--task", metavar="NAME", help="of a run with several tasks, the one to mirror")
    top.add_argument("--framework", metavar="NAME", help="its layout [found by looking]")
    top.add_argument("--checkpoint", metavar="WHICH", help="final, best, all, a step, a path [final]")
    top.add_argument("--model-name", metavar="NAME", help="the registered model [AZUREML_MODEL_NAME]")
    top.add_argument("--experiment", metavar="NAME", help="the experiment [named like the model]")
    top.add_argument(
        "--image", metavar="IMAGE", help="the mirror's image [AML_MIRROR_IMAGE, the last release]"
    )
    top.add_argument("--pool", metavar="NAME", help="where to run it [your default pool on OSMO]")
    top.add_argument("--platform", metavar="NAME", help="which of its platforms [the pool's default]")
    top.add_argument(
        "--label", metavar="K=V", action="append", default=[], help="a label of the replay (repeatable)"
    )
    top.add_argument("--terraform", metavar="DIR", help="take the workspace from terraform's output there")
    top.add_argument("--after", action="store_true", help="wait for the end of the run, then submit")
    top.add_argument(
        "--wait", action="store_true", help="follow the replay, end with its receipt and exit code"
    )
    top.add_argument(
        "--dry-run", action="store_true", help="print the command and the values, submit nothing"
    )
    top.add_argument("--debug", action="store_true", help="show tracebacks")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _replay(given)
    except MirrorError as error:
        _fail(f"{error.message}; {error.hint}" if error.hint else error.message, given)
        return error.exit_code
    except KeyboardInterrupt:
        _say("stopped; what was submitted goes on: `osmo workflow list` shows it")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last catch: a bug ends in one line too
        _fail(f"{type(error).__name__}: {error}; this is a bug: report it with the output of --debug", given)
        return BUG


def _replay(given: list[str]) -> int:
    own, more = given, []
    if "--" in given:
        own, more = given[: given.index("--")], given[given.index("--") + 1 :]
    options = parser().parse_args(own)
    values = _values(options, more)
    command = _command(options, values)
    if options.dry_run:
        for key, value in values.given.items():
            print(redaction.text(f"# {key} = {value}  ({values.where[key]})"))
        print(redaction.text(shlex.join(["osmo", *command])))
        return 0

    program = OsmoClient.find()
    if not program:
        raise ConfigurationError(
            "there is no osmo program on PATH", "install the OSMO client, and log in with `osmo login URL`"
        )
    # A user's own program gets the user's own environment.
    client = OsmoClient(program, 0, _say, os.environ)
    if options.after:
        judge(until_ended(client, options.run_id, _say), "--allow-failed" in more)
    elif not options.source:
        _look(client, options.run_id, more)
    if options.label and not knows_labels(client):
        _say("this osmo client knows no labels, which came with OSMO 6.4: the replay is submitted without")
        command = _command(options, values, with_labels=False)
    name = submit(client, command, _say)
    if not options.wait:
        print(name)
        _say(f"submitted {name}; follow it with: osmo workflow logs {name}")
        return 0
    _say(f"submitted {name}")
    workflow = until_ended(client, name, _say)
    try:
        found = receipts(client, name)
        if not found:
            _say(f"there is no receipt in the log of {name}")
    except MirrorError as error:
        # OSMO 6.2 cannot read its logs if it reaches storage with a workload identity. The exit code is still
        # known.
        _say(f"the receipt cannot be had: {error.message}")
        found = []
    for receipt in found:
        print(receipt, flush=True)
    code = exit_code(workflow)
    if code and found and (receipt_error := json.loads(found[-1]).get("error")):
        hint = json.loads(found[-1]).get("hint")
        _fail(f"{receipt_error}; {hint}" if hint else str(receipt_error), [])
    return code


def _values(options: argparse.Namespace, more: list[str]) -> Values:
    check_run_id(options.run_id)
    check_labels(options.label)
    dotenv = read_dotenv(Path.cwd() / ".env")
    environment = dict(os.environ)
    values = Values()
    values.set("run_id", options.run_id, "RUN_ID")
    if options.source:
        values.set("source", check_source(options.source), "--source")
    for key in ("task", "framework", "checkpoint", "model_name", "experiment", "platform", "image"):
        values.set(key, getattr(options, key), "--" + key.replace("_", "-"))
    for key, name in (("model_name", "AZUREML_MODEL_NAME"), ("image", "AML_MIRROR_IMAGE")):
        for place, where in ((environment, name), (dotenv, f"{name} in .env")):
            if key not in values.given:
                values.set(key, place.get(name), where)
    image = values.given.get("image") or default_image(WORKFLOW)
    check_image(image, values.where.get("image", f"the default of {WORKFLOW.name}"))

    places: list[tuple[str, Mapping[str, str]]] = [("the environment", environment), (".env", dotenv)]
    if options.terraform:
        places = [(f"terraform in {options.terraform}", read_terraform(Path(options.terraform)))]
    named = [flag.partition("=")[0] for flag in more]
    flags, where = coordinates(places) if "--workspace-name" not in named else ([], "")
    values.set("flags", check_flags([*flags, *more]), f"the workspace from {where}" if where else "after --")
    return values


def _command(options: argparse.Namespace, values: Values, with_labels: bool = True) -> list[str]:
    where = ["--pool", options.pool] if options.pool else []
    for label in options.label if with_labels else []:
        where += ["--label", label]
    # Pass all of them as strings, because --set would turn 0017 into a number.
    strings = [f"{key}={value}" for key, value in values.given.items()]
    return ["workflow", "submit", str(WORKFLOW), *where, "-t", "json", "--set-string", *strings]


def _look(client: OsmoClient, run_id: str, more: list[str]) -> None:
    """Report now what a pod would report some minutes later."""
    try:
        run = read_query(client.query(run_id, patient=False), run_id)
    except SourceNotFound as error:
        _say(f"{error.message}; going on, since it may lie on a volume that the pod mounts")
        return
    if not has_ended(run.status):
        raise ServiceUnavailable(
            f"run {run.name} is {run.status}: it has not ended", "pass --after to wait for that"
        )
    judge(run, "--allow-failed" in more)


def _say(text: str) -> None:
    line = "".join(char if char.isprintable() else "?" for char in redaction.text(text))
    print(line, file=sys.stderr, flush=True)


def _fail(text: str, given: list[str]) -> None:
    if "--debug" in given:
        import traceback

        print(redaction.text(traceback.format_exc()), file=sys.stderr)
    _say(f"error: {text}")


if __name__ == "__main__":
    sys.exit(main())
