"""``aml-mirror completion``."""

from __future__ import annotations

from aml_mirror.cli import output
from aml_mirror.cli.commands.base import Call, Command


def run(call: Call) -> int:
    """Print the script that makes a shell complete commands, options and values."""
    from aml_mirror.cli.commands.completion_scripts import script

    output.print_line(script(call.settings.shell, call.commands))
    return 0


COMMAND = Command(
    "completion",
    "print the completion script for bash, zsh or fish",
    (
        'eval "$(aml-mirror completion bash)"    # in ~/.bashrc',
        'eval "$(aml-mirror completion zsh)"     # in ~/.zshrc, after compinit',
        "aml-mirror completion fish | source     # in ~/.config/fish/config.fish",
    ),
    run,
    reads_settings=False,
)
