"""What following the pickles of one file shows: names that they import, and why the file is not clean."""

from __future__ import annotations

from dataclasses import dataclass, field

from aml_mirror.safety.allowlist import ALLOWED

MAX_NAMES = 200  # of one file, listed in the artifact; one more and the rest is counted


@dataclass(frozen=True, slots=True)
class Name:
    """Something that a pickle imports."""

    module: str
    name: str

    @property
    def key(self) -> tuple[str, str]:
        """Module and name, as the lists have them."""
        return self.module, self.name

    @property
    def allowed(self) -> bool:
        """Whether it is on the list of what runs no code of the file's."""
        return self.key in ALLOWED

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True)
class Findings:
    """What following the pickles of one file showed."""

    names: dict[str, None] = field(default_factory=dict)
    """Every name that is imported, in order."""
    names_count: int = 0
    problems: dict[str, None] = field(default_factory=dict)
    opcodes: int = 0
    calls: int = 0
    made_bytes: int = 0
    inflated_bytes: int = 0
    pickles: int = 0

    def trial(self) -> Findings:
        """Findings of what may turn out to be no pickle, that count on from these."""
        return Findings(opcodes=self.opcodes, made_bytes=self.made_bytes, inflated_bytes=self.inflated_bytes)

    def spent(self, trial: Findings) -> None:
        """Take what a trial cost, whatever it found."""
        self.opcodes, self.made_bytes = trial.opcodes, trial.made_bytes
        self.inflated_bytes = trial.inflated_bytes

    def problem(self, text: str) -> None:
        """Note why the file is not clean."""
        if len(self.problems) < MAX_NAMES:
            self.problems[text] = None

    def name(self, found: Name) -> None:
        """Note an import; one that is not allowed is a problem."""
        shown = str(found)[:200]
        if shown not in self.names:
            self.names_count += 1
            if len(self.names) < MAX_NAMES:
                self.names[shown] = None
        if not found.allowed:
            self.problem(f"it imports {shown}, which is not known to be harmless")


class MalformedPickle(Exception):
    """The stream is no pickle, or ends too early; ``text`` in words."""


class TooMuch(MalformedPickle):
    """It may be a pickle, but takes more steps, memory or bytes than are spent on one."""
