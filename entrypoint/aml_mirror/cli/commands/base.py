"""What every command is: a name, its help with examples, and what runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aml_mirror.support import plugins

if TYPE_CHECKING:
    from aml_mirror.core.settings import Settings
    from aml_mirror.pipeline.receipt import Progress
    from aml_mirror.support.progress import Console


PROGRAM = "aml-mirror"


def framework_names() -> tuple[str, ...]:
    """The names that ``--framework`` takes."""
    from aml_mirror import layouts

    return layouts.layout_names()


def forms_of_plugins(flags: Sequence[str]) -> list[str]:
    """How to name the sources or registries of other packages, for the help of their flag."""
    if "--source" in flags:
        return [str(item.form) for item in plugins.load(plugins.SOURCES)]
    if "--tracking-uri" in flags:
        return [str(item.usage) for item in plugins.load(plugins.REGISTRIES)]
    return []


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the program."""

    settings: Settings
    console: Console
    progress: Progress
    """What is known so far: the receipt of a failure names it."""
    commands: tuple[Command, ...]
    """All that there are."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command. Its options are the rows of :mod:`aml_mirror.core.options` that name it."""

    name: str
    help: str
    """One line, as the list of commands shows it; no capital letter, no full stop."""
    examples: tuple[str, ...]
    run: Callable[[Call], int]
    """Does the work and returns the exit code; a failure is raised."""
    note: str = ""
    """More, in front of the examples."""
    reads_settings: bool = True
    """False: it needs neither the environment nor ``.env``."""
