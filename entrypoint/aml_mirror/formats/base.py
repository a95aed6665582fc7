"""What a module of this package states of its file format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from aml_mirror.sources.tree import Tree


class Kind(Enum):
    """What a file of a format can do to whoever loads it."""

    NO_CODE = "no code"
    PICKLE = "pickle"
    """It is, or may hold, a pickle: harmless or not, as its opcodes say."""
    CODE = "container of code"
    """Loading or using it runs code that the file holds."""


class Weights(Enum):
    """Whether a file with one of a format's suffixes holds the weights of a policy."""

    ALWAYS = "always"
    OFTEN = "often"
    """The suffix stands for other things too, but weights are the most common."""
    NAMED = "named"
    """Only where the file's name says so, as in ``policy.npz``."""
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
        """Read a range. Raises as :meth:`Tree.read`."""
        return self.tree.read(self.path, offset, count)


def _complete(file: FormatFile) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Format:
    """A file format.

    ``problem`` says why the bytes of a file are not complete, empty where they are or where the format has
    nothing to tell it by. It is asked for files with at least one byte.
    """

    name: str
    suffixes: tuple[str, ...]
    """In lower case, each with its dot. The longest that a file's name ends with decides."""
    kind: Kind
    weights: Weights = Weights.NEVER
    problem: Callable[[FormatFile], str] = _complete
    never_empty: bool = False
    """Whether an empty file is incomplete even where it holds no weights."""
    run_by: str = ""
    """Of a container of code: what runs it."""
