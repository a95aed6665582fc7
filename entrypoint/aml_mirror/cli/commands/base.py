"""The definition of a command: its name, its help with examples, and the function that runs it."""

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
    """The values of ``--framework``."""
    from aml_mirror import layouts

    return layouts.layout_names()


def forms_of_plugins(flags: Sequence[str]) -> list[str]:
    """The forms of other packages' sources or registries, for the help of their flag."""
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
    """The facts known so far. The receipt of a failure contains them."""
    commands: tuple[Command, ...]
    """All that there are."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command. Its options are the rows of :mod:`aml_mirror.core.options` that name it."""

    name: str
    help: str
    """One line for the list of commands; no capital letter, no full stop."""
    examples: tuple[str, ...]
    run: Callable[[Call], int]
    """Does the work and returns the exit code; a failure is raised."""
    note: str = ""
    """More text, before the examples."""
    reads_settings: bool = True
    """False: it needs neither the environment nor ``.env``."""
