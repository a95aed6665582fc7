"""The result of examining one file: names that its pickles import, and why loading it may run code."""

from __future__ import annotations

import base64
import contextlib
import re
from dataclasses import dataclass, field

from aml_mirror.safety.allowlist import ALLOWED
from aml_mirror.safety.known_code import expression_problem, is_known_code, target_problem

# How a pickle of protocol 2 or later, a zip archive and a gzip file begin in base64 and in hexadecimal.
_ENCODED = re.compile(r"\s*(?:gA[I-X]|UEsDB|H4sI|(?P<hex>800[2-5]|504[bB]0304|1[fF]8[bB]08))")
_SHORTEST_TEXT = 12
_MAX_EMBEDDED_BYTES = 64 << 20
MAX_NAMES = 200  # The most that the artifact lists for one file. The rest is only counted.


@dataclass(frozen=True, slots=True)
class Name:
    """Something that a pickle imports."""

    module: str
    name: str

    @property
    def key(self) -> tuple[str, str]:
        """Module and name, as the lists contain them."""
        return self.module, self.name

    @property
    def allowed(self) -> bool:
        """Whether it is on the list of names that run no code of the file's choosing."""
        return self.key in ALLOWED

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True)
class Findings:
    """The result of following the pickles of one file."""

    names: dict[str, None] = field(default_factory=dict)
    """Every name that is imported, in order."""
    names_count: int = 0
    problems: dict[str, None] = field(default_factory=dict)
    """Why the file is suspicious."""
    code: dict[str, None] = field(default_factory=dict)
    """Which code loading it runs, and what runs it."""
    unknown: dict[str, None] = field(default_factory=dict)
    """Why it is unknown what loading it does."""
    opcodes: int = 0
    calls: int = 0
    made_bytes: int = 0
    inflated_bytes: int = 0
    pickles: int = 0
    embedded: list[bytes] = field(default_factory=list)
    """Files that were found in strings, and have not been examined yet."""
    embedded_bytes: int = 0

    def trial(self) -> Findings:
        """Return findings for something that may not be a pickle. Their counts start from these."""
        return Findings(
            opcodes=self.opcodes,
            made_bytes=self.made_bytes,
            inflated_bytes=self.inflated_bytes,
            embedded_bytes=self.embedded_bytes,
        )

    def spent(self, trial: Findings) -> None:
        """Add the cost of a trial, whatever it found."""
        self.opcodes, self.made_bytes = trial.opcodes, trial.made_bytes
        self.inflated_bytes, self.embedded_bytes = trial.inflated_bytes, trial.embedded_bytes

    def problem(self, text: str) -> None:
        """Record why the file is not clean."""
        if len(self.problems) < MAX_NAMES:
            self.problems[text] = None

    def runs(self, text: str) -> None:
        """Record code that loading the file runs."""
        if len(self.code) < MAX_NAMES:
            self.code[text] = None

    def untold(self, text: str) -> None:
        """Record why it is unknown what loading the file does."""
        if len(self.unknown) < MAX_NAMES:
            self.unknown[text] = None

    def take(self, other: Findings) -> None:
        """Add the findings of a part of the file."""
        self.spent(other)
        self.pickles += other.pickles
        self.calls += other.calls
        self.embedded += other.embedded
        for name in other.names:
            if name not in self.names:
                self.names[name] = None
                self.names_count += 1
        for problem in other.problems:
            self.problem(problem)
        for text in other.code:
            self.runs(text)
        for text in other.unknown:
            self.untold(text)

    def target(self, path: str, strict: bool = False) -> None:
        """Record what a configuration names to be imported and called (Hydra's ``_target_``).

        ``strict``: the key is known to have this meaning, so a module alone and a reference count too.
        """
        if why := target_problem(path, strict):
            self.runs(f"its configuration names {path[:200]}, {why}")

    def text(self, value: str) -> None:
        """Record what a string evaluates (OmegaConf's resolvers), and a file in it (base64 or hex)."""
        if "${" in value and (why := expression_problem(value)):
            self.problem(why)
        if len(value) >= _SHORTEST_TEXT and (match := _ENCODED.match(value)):
            # The memo may return the same string any number of times.
            self.embedded_bytes += len(value)
            if self.embedded_bytes > _MAX_EMBEDDED_BYTES:
                self.problem(f"its strings contain more than {_MAX_EMBEDDED_BYTES >> 20} MiB of files")
                return
            with contextlib.suppress(ValueError):
                text = "".join(value.split())
                self.embedded.append(
                    bytes.fromhex(text)
                    if match["hex"]
                    else base64.b64decode(text.replace("-", "+").replace("_", "/") + "==")
                )

    def name(self, found: Name) -> None:
        """Record an import. One that is not allowed is a problem, or code of a framework."""
        shown = str(found)[:200]
        if shown not in self.names:
            self.names_count += 1
            if len(self.names) < MAX_NAMES:
                self.names[shown] = None
        if found.allowed:
            return
        if is_known_code(*found.key):
            self.runs(f"it creates objects of {shown}, which unpickling it imports and runs")
        else:
            self.problem(f"it imports {shown}, which is not known to be harmless")


class MalformedPickle(Exception):
    """The stream is not a pickle, or ends too early; ``text`` in words."""


class TooMuch(MalformedPickle):
    """It may be a pickle, but needs more steps, memory or bytes than we spend on one."""
