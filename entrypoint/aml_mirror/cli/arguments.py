"""The command-line parser, built from the table of options."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NoReturn

from aml_mirror import __version__
from aml_mirror.cli.commands import BY_NAME
from aml_mirror.cli.commands import COMMANDS as _COMMANDS
from aml_mirror.cli.commands.base import PROGRAM, Command, forms_of_plugins, framework_names
from aml_mirror.core.errors import UsageError
from aml_mirror.core.options import GROUPS, TABLE, Option, options_of
from aml_mirror.core.settings import destination
from aml_mirror.support.library_internals import actions_of, flags_of_command
from aml_mirror.support.suggestions import did_you_mean, hint

COMMANDS = tuple(BY_NAME)
DEFAULT = "mirror"

EXAMPLES = """\
examples:
  aml-mirror plan outputs/train/act                              show what would be mirrored
  aml-mirror mirror outputs/train/act --model-name act-pick \\
             --tracking-uri http://mlflow.example:5000           mirror it
  aml-mirror backfill outputs/train --model-name act             mirror every run in there
  aml-mirror status --run-id train-42 --model-name act-pick      which version it became
  aml-mirror verify act-pick:3                                   whether it is still what was mirrored
  aml-mirror doctor                                              what is wrong, and how to fix it

exit codes: 0 mirrored, now or earlier; 64 invalid usage, or you have to choose; 65 no complete checkpoint,
or data that cannot be trusted; 66 no such source; 70 a bug; 75 temporary failure, run it again;
77 permission denied; 78 configuration
"""

# Options that a command had in an earlier release: the message, and what to pass instead.
_REPLACED = {
    ("backfill", "--exclude"): (
        "backfill no longer has --exclude, which skipped runs there and files in mirror",
        "pass --exclude-run GLOB to skip runs, or --exclude-file GLOB to skip files of each run",
    )
}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line with exit code 64 and name the right help page."""

    def error(self, message: str) -> NoReturn:
        if match := re.fullmatch("argument ([^:]+): expected one argument", message):
            message = f"{match[1]} needs a value"
        elif match := re.fullmatch("argument ([^:]+): ignored explicit argument .*", message):
            message = f"{match[1]} takes no value"
        raise UsageError(message, f"see: {self.prog} --help")

    def format_help(self) -> str:
        # Imported late: loading the layouts takes longer than printing the help.
        for action in actions_of(self):
            if action.help and "{frameworks}" in action.help:
                action.help = action.help.replace("{frameworks}", ", ".join(framework_names()))
            elif more := forms_of_plugins(action.option_strings):
                action.help = f"{action.help}; or {'; or '.join(more)}"
        return super().format_help()

    # argparse overloads this method. The program calls it in this way only.
    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        flags, rest = self.parse_known_args(args, namespace)
        if rest:
            command = getattr(flags, "command", None) or DEFAULT
            raise _unknown(rest[0], command, self._flags_of(command))
        return flags

    def _flags_of(self, command: str) -> list[str]:
        return flags_of_command(self, command)


def parser(extra: Iterable[Option] = (), only: str = "") -> argparse.ArgumentParser:
    """Build the parser. Flags have no defaults here, so that an absent flag falls back to the environment.

    Args:
        extra: options of registries and sources from other packages.
        only: the first word of the command line. If given, only this command gets its options, because
            building the options of all commands takes longer than some commands run.
    """
    top = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [COMMAND] [options]",
        description="Mirror a finished robot-learning run into a model registry, exactly once.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = top.add_subparsers(prog=PROGRAM, dest="command", metavar="COMMAND", parser_class=_Parser)
    extra = tuple(extra)
    for command in _COMMANDS:
        is_wanted = only in ("", command.name)
        _add_command(commands, command, options_of(command.name, extra) if is_wanted else [])
    return top


def _add_command(commands: Any, command: Command, options: list[Option]) -> None:
    positional = "".join(f" [{option.flag}]" for option in options if option.is_positional)
    title = "examples" if len(command.examples) > 1 else "example"
    page = commands.add_parser(
        command.name,
        help=command.help,
        usage=f"{PROGRAM} {command.name}{positional} [options]",
        description=f"{command.help[0].upper()}{command.help[1:]}."
        + (f" {command.note}" * bool(command.note)),
        epilog="\n  ".join([f"{title}:", *command.examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if not options:
        return
    names = dict.fromkeys((*GROUPS, *(option.group for option in options)))
    for name in names:
        group = page.add_argument_group(name)
        for option in options:
            if option.group == name and option.flag:
                _add_option(group, option, command.name)


def _add_option(group: Any, option: Option, command: str) -> None:
    text = option.help_text if command in option.commands else argparse.SUPPRESS
    if option.is_positional:
        group.add_argument(destination(option), metavar=option.flag, nargs="?", help=text)
    elif option.is_switch:
        group.add_argument(
            option.flag, dest=destination(option), action="store_true", default=None, help=text
        )
    else:
        group.add_argument(
            option.flag,
            dest=destination(option),
            metavar=option.metavar,
            action="append" if option.repeatable else "store",
            help=text,
        )


def _unknown(argument: str, command: str, flags: list[str]) -> UsageError:
    """Return the error for an argument that a command does not accept. ``flags`` are the accepted ones."""
    page = f"see: {PROGRAM} {command} --help"
    if not argument.startswith("-"):
        return UsageError(f"unexpected argument {argument!r} for {PROGRAM} {command}", page)
    flag = argument.partition("=")[0]
    if replaced := _REPLACED.get((command, flag)):
        return UsageError(*replaced)
    if others := list(
        dict.fromkeys(name for option in TABLE if option.flag == flag for name in option.commands)
    ):
        return UsageError(f"{flag} is an option of {', '.join(others)}, not of {command}", page)
    return UsageError(f"unknown option {flag} for {PROGRAM} {command}", hint(did_you_mean(flag, flags), page))


def with_default_command(arguments: Sequence[str]) -> list[str]:
    """Insert ``mirror`` if the command line names no command.

    Raises:
        UsageError: the first word is neither a command nor a path or URI, or a command follows options.
    """
    given = list(arguments)
    if given and (given[0] in COMMANDS or given[0] in ("-h", "--help", "--version")):
        return given
    page = f"see: {PROGRAM} --help"
    if given and not given[0].startswith("-") and not _is_place(given[0]):
        word = given[0]
        # A folder with that name is more likely than a command with a similar one.
        is_folder = os.path.isdir(word)
        meant = f"to mirror a folder: {PROGRAM} mirror {word};" if is_folder else did_you_mean(word, COMMANDS)
        raise UsageError(
            f"there is no command {word!r}", hint(meant, f"the commands are: {', '.join(COMMANDS)};", page)
        )
    takes_value = {option.flag for option in TABLE if option.flag.startswith("-") and not option.is_switch}
    for before, word in pairwise(given):
        if word in COMMANDS and before not in takes_value:
            raise UsageError(
                f"the command {word!r} comes after options", f"put it first: {PROGRAM} {word} …; {page}"
            )
    return [DEFAULT, *given]


def _is_place(word: str) -> bool:
    """Return whether a word can only be a path or a URI, because no command has such a name."""
    return os.sep in word or word in (".", "..")
