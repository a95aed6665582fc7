"""Completion for bash, zsh and fish, made from the table of options.

The scripts contain every command, option and fixed value, so completing starts no process. The shell
completes paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aml_mirror.cli.commands.base import PROGRAM, Command, framework_names
from aml_mirror.core.errors import UsageError
from aml_mirror.core.options import TABLE, Option, options_of
from aml_mirror.support.suggestions import did_you_mean, hint

Commands = Sequence[Command]
SHELLS = ("bash", "zsh", "fish")


def script(shell: str, commands: Commands) -> str:
    """Return the completion script of a shell for some commands.

    Raises:
        UsageError: no shell is named, or one that is not supported.
    """
    makers = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    if shell not in makers:
        raise UsageError(
            f"no completion for the shell {shell!r}" if shell else "no shell is named",
            hint(did_you_mean(shell, SHELLS), f"one of: {', '.join(SHELLS)}"),
        )
    return makers[shell](commands)


def _listed(command: str) -> list[Option]:
    return [option for option in options_of(command) if command in option.commands and option.flag]


def _words(option: Option) -> list[str]:
    """The fixed values of an option."""
    if option.completes in ("", "directory", "file"):
        return []
    return option.completes.replace("{frameworks}", " ".join(framework_names())).split()


def _flags(command: str) -> list[str]:
    return [*(option.flag for option in _listed(command) if not option.is_positional), "--help"]


def _all_with_value(commands: Commands) -> Iterable[tuple[str, Option]]:
    for command in commands:
        for option in _listed(command.name):
            if not option.is_switch:
                yield command.name, option


def _bash(commands: Commands) -> str:
    names = " ".join(command.name for command in commands)
    lines = [
        "_aml_mirror() {",
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=mirror flags=",
        "    COMPREPLY=()",
        "    compopt +o default +o nospace 2>/dev/null",
        "    # --flag=value arrives as three words.",
        '    if [[ $cur == "=" ]]; then cur=',
        '    elif [[ $prev == "=" ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi',
        f'    case " {names} " in *" ${{COMP_WORDS[1]}} "*) command=${{COMP_WORDS[1]}} ;; esac',
        "    if [[ $COMP_CWORD == 1 && $cur != -* ]]; then",
        f'        COMPREPLY=($(compgen -W "{names}" -- "$cur")); return',
        "    fi",
        '    case "$command:$prev" in',
    ]
    for command, option in _all_with_value(commands):
        if option.is_positional:
            continue
        words = _words(option)
        if option.setting == "checkpoint":
            action = f'COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$cur") $(compgen -f -- "$cur"))'
        elif words:
            action = f'COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$cur"))'
        elif option.completes == "directory":
            action = 'compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$cur"))'
        elif option.completes == "file":
            action = 'compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur"))'
        else:
            action = ":"
        lines.append(f"        {command}:{option.flag}) {action}; return ;;")
    lines += ["    esac", "    case $command in"]
    for command_ in commands:
        lines.append(f'        {command_.name}) flags="{" ".join(_flags(command_.name))}" ;;')
    lines += [
        "    esac",
        "    if [[ $cur == -* ]]; then",
        '        COMPREPLY=($(compgen -W "$flags" -- "$cur")); return',
        "    fi",
        "    case $command in",
    ]
    for command_ in commands:
        for option in _listed(command_.name):
            if option.is_positional and (words := _words(option)):
                lines.append(
                    f'        {command_.name}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$cur")) ;;'
                )
            elif option.is_positional and option.completes == "directory":
                lines.append(
                    f"        {command_.name}) compopt -o filenames 2>/dev/null; "
                    'COMPREPLY=($(compgen -d -- "$cur")) ;;'
                )
    return "\n".join([*lines, "    esac", "}", f"complete -F _aml_mirror {PROGRAM}"])


def _zsh(commands: Commands) -> str:
    words = " ".join(_words(next(option for option in TABLE if option.setting == "checkpoint")))
    lines = [
        f"#compdef {PROGRAM}",
        "_aml_mirror_checkpoint() {",
        f"    _alternative 'words:word:({words})' 'files:file:_files'",
        "}",
        "_aml_mirror() {",
        "    local -a commands",
        "    commands=(",
    ]
    lines += [f"        {_quoted(f'{command.name}:{command.help}')}" for command in commands]
    lines += [
        "    )",
        "    if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then _describe command commands; return; fi",
        "    local command=$words[2]",
        "    if [[ $command == -* ]]; then command=mirror; else shift words; (( CURRENT-- )); fi",
        "    case $command in",
    ]
    for command in commands:
        lines.append(f"        {command.name}) _arguments -s \\")
        for option in _listed(command.name):
            lines.append(f"            {_zsh_spec(option)} \\")
        lines.append("            '--help[show the help]' ;;")
    lines += ["    esac", "}", f"compdef _aml_mirror {PROGRAM}"]
    return "\n".join(lines)


def _zsh_spec(option: Option) -> str:
    words = " ".join(_words(option))
    value = {"directory": "_directories", "file": "_files"}.get(
        option.completes, f"({words})" if words else " "
    )
    if option.setting == "checkpoint":
        value = "_aml_mirror_checkpoint"
    if option.is_positional:
        return _quoted(f"::{option.flag.lower().replace(':', ' ')}:{value}")
    text = option.help.split(", one of: {frameworks}")[0].replace("[", r"\[").replace("]", r"\]")
    text = text.replace(":", r"\:")
    star = "*" if option.repeatable else ""
    if option.is_switch:
        return _quoted(f"{star}{option.flag}[{text}]")
    return _quoted(f"{star}{option.flag}=[{text}]:{option.metavar.lower()}:{value}")


def _fish(commands: Commands) -> str:
    names = " ".join(command.name for command in commands)
    lines = [f"complete -c {PROGRAM} -f"]
    for command in commands:
        lines.append(
            f"complete -c {PROGRAM} -n 'not __fish_seen_subcommand_from {names}' -a {command.name} "
            f"-d {_quoted(command.help)}"
        )
    for command in commands:
        seen = f"-n '__fish_seen_subcommand_from {command.name}'"
        if command.name == "mirror":
            # It is the default command.
            others = " ".join(other.name for other in commands if other is not command)
            seen = f"-n 'not __fish_seen_subcommand_from {others}'"
        for option in _listed(command.name):
            text = _quoted(option.help.split(", one of: {frameworks}")[0])
            words = " ".join(_words(option))
            value = {"directory": "-a '(__fish_complete_directories)'", "file": "-F"}.get(
                option.completes, f"-a '{words}'" if words else ""
            )
            if option.setting == "checkpoint":
                value = f"-F -a '{words}'"
            if option.is_positional:
                only = f"-n '__fish_seen_subcommand_from {command.name}'"
                lines.append(f"complete -c {PROGRAM} {only} {value}".rstrip())
            else:
                need = "" if option.is_switch else " -x" if option.completes != "file" else " -r"
                if option.setting == "checkpoint":
                    need = " -r"
                lines.append(
                    f"complete -c {PROGRAM} {seen} -l {option.flag[2:]} -d {text}{need} {value}".rstrip()
                )
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
