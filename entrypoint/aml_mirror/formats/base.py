"""What each module of this package declares about its file format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from aml_mirror.sources.tree import Tree


class Kind(Enum):
    """What a file of a format can do when it is loaded."""

    NO_CODE = "no code"
    PICKLE = "pickle"
    """It is or contains a pickle. Its opcodes tell whether it is harmless."""
    CODE = "container of code"
    """Loading or using it runs code from the file."""


class Weights(Enum):
    """Whether a file with one of a format's suffixes contains the weights of a policy."""

    ALWAYS = "always"
    OFTEN = "often"
    """The suffix has other meanings too, but weights are the most common."""
    NAMED = "named"
    """Only if the file's name says so, like ``policy.npz``."""
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class FormatFile:
    """A file of a run whose format is known."""

    tree: Tree
    path: str
    holds_weights: bool = True

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.tree.size(self.path)

    def read(self, offset: int, count: int) -> bytes:
        """Read a range. Raises the errors of :meth:`Tree.read`."""
        return self.tree.read(self.path, offset, count)


def _complete(file: FormatFile) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Format:
    """A file format.

    ``problem`` says why the bytes of a file are not complete; it is empty if they are, or if the format
    cannot tell. It is called for files with at least one byte.
    """

    name: str
    suffixes: tuple[str, ...]
    """In lower case, each with its dot. The longest one that matches a file's name counts."""
    kind: Kind
    weights: Weights = Weights.NEVER
    problem: Callable[[FormatFile], str] = _complete
    never_empty: bool = False
    """Whether an empty file is incomplete even if it contains no weights."""
    run_by: str = ""
    """For a container of code: what runs it."""
