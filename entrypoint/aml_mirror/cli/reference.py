"""Writes the reference of commands and options into a page, from the same tables as the parser.

``python -m aml_mirror.cli.reference entrypoint/README.md`` (``make reference``) replaces the text between the
two markers. A test fails if the page is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from aml_mirror.cli.commands import COMMANDS
from aml_mirror.cli.commands.base import framework_names
from aml_mirror.core.options import GROUPS, TABLE, Option
from aml_mirror.core.settings import PARAMETER_VARIABLES

BEGIN = "<!-- make reference: begin -->"
END = "<!-- make reference: end -->"
EXIT_CODES = (
    (0, "success, or nothing was left to do"),
    (64, "invalid command line, or a choice that only you can make; the message lists the choices"),
    (65, "no complete checkpoint, or data that cannot be trusted"),
    (66, "no such source, run or version"),
    (70, "a bug: report it with the output of `--debug`"),
    (75, "temporary failure of a service: run the same command again"),
    (77, "permission denied"),
    (78, "invalid or missing configuration"),
    (130, "stopped by Ctrl-C (143: by SIGTERM); run the same command again to continue"),
)


def reference() -> str:
    """Return the reference in Markdown, without the markers."""
    lines = ["## Commands", "", "| command | what it does |", "|---|---|"]
    lines += [f"| `aml-mirror {command.name}` | {_cell(command.help)} |" for command in COMMANDS]
    lines += ["", "```console"]
    lines += [example for command in COMMANDS for example in command.examples]
    lines += [
        "```",
        "",
        "`plan` and `doctor` take every option of `mirror`. To check a command line, replace `mirror` with "
        "one of them. `--help` lists only the options that a command uses itself.",
        "",
        "## Options",
        "",
        "Flags take precedence over environment variables, and these over a `.env` file in the working "
        "directory. "
        "Empty values count as unset. A `.env` file in the folder of a run, or below it, is refused.",
        "",
        "Time spans: `90s`, `15m`, `2h`, `3d`, `1w`. Sizes: `8MiB`.",
    ]
    for group in GROUPS:
        rows = [option for option in TABLE if option.group == group]
        lines += [
            "",
            f"### {group[0].upper()}{group[1:]}",
            "",
            "| option | commands | meaning |",
            "|---|---|---|",
        ]
        lines += [
            f"| {_name(option)} | {_commands(option)} | {_meaning(option)} |"
            for option in rows
            if option.flag and option.commands
        ]
        if variables := [option for option in rows if not option.flag]:
            lines += ["", "| variable | commands | meaning |", "|---|---|---|"]
            lines += [
                f"| {_code(option.variables)} | {_commands(option)} | {_cell(option.help)} |"
                for option in variables
            ]
    lines += [
        "",
        f"The variables {_code(PARAMETER_VARIABLES)} become parameters of the run. Nothing else of the "
        "environment is mirrored.",
        "",
        "## Exit codes",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES),
    ]
    return "\n".join(lines)


def updated(page: str) -> str:
    """Return a page with an up-to-date reference.

    Raises:
        ValueError: a marker is missing in the page.
    """
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def _name(option: Option) -> str:
    return f"`{option.flag} {option.metavar}`" if option.metavar else f"`{option.flag}`"


def _commands(option: Option) -> str:
    return ", ".join(option.commands)


def _meaning(option: Option) -> str:
    text = option.help.replace("{frameworks}", ", ".join(framework_names()))
    parts = [f"{_cell(text)}."]
    if option.variables:
        parts.append(f"Variable: {_code(option.variables)}.")
    if option.default:
        parts.append(f"Default: {_cell(option.default)}.")
    parts.append(option.details)
    return " ".join(filter(None, parts))


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def main() -> int:
    """Update the reference in the pages that the command line names."""
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
