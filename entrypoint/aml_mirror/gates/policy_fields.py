"""Reads the fields of a policy. Each error says which field is wrong and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aml_mirror.evidence.evaluation import finite
from aml_mirror.support.suggestions import did_you_mean, hint


class Mistake(Exception):
    """What is wrong with a policy, and where, in words."""


class Fields:
    """The fields of one section. Each is read once; fields that are never read are unknown.

    Args:
        where: the section's position in the file; empty: the whole file.
        found: the section's value; None: there is none.

    Raises:
        Mistake: the value is not a section.
    """

    def __init__(self, where: str, found: Any) -> None:
        if found is not None and not isinstance(found, Mapping):
            raise Mistake(f"{where or 'it'} is {_shown(found)}, not a section with keys")
        self.given = found is not None
        self._where = where
        self._found: Mapping[Any, Any] = found or {}
        self._read: dict[str, None] = {}

    def names(self) -> list[str]:
        """Return the keys of this section.

        Raises:
            Mistake: a key is not a string.
        """
        for key in self._found:
            if not isinstance(key, str):
                raise Mistake(f"{self._place(str(key))} is not a string: put it in quotes")
        return list(self._found)

    def section(self, name: str) -> Fields:
        """Return a section below this one; an empty one if it does not exist."""
        return Fields(self._place(name), self._take(name))

    def items(self, name: str) -> list[Any]:
        """Return a list; empty if it does not exist."""
        found = self._take(name)
        if found is None:
            return []
        if not isinstance(found, list):
            raise Mistake(f"{self._place(name)} is {_shown(found)}, not a list")
        return found

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string. Without a default, it is required."""
        found = self._take(name)
        if found is None:
            if default is None:
                raise Mistake(f"{self._place(name)} is missing")
            return default
        if not isinstance(found, str):
            raise Mistake(f"{self._place(name)} is {_shown(found)}, not a string")
        return found

    def duration(self, name: str) -> str:
        """Return a duration as it was written; empty if it does not exist."""
        found = self._take(name)
        if found is None:
            return ""
        if not isinstance(found, str):
            raise Mistake(f"{self._place(name)} is {_shown(found)}, not a duration: write 30d for 30 days")
        return found

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false."""
        found = self._take(name)
        if found is None:
            return default
        if not isinstance(found, bool):
            raise Mistake(f"{self._place(name)} is {_shown(found)}, not true or false")
        return found

    def count(self, name: str, default: int, most: int) -> int:
        """Return a whole number from 1 to ``most``."""
        found = self._take(name)
        if found is None:
            return default
        if type(found) is not int or not 1 <= found <= most:
            raise Mistake(f"{self._place(name)} is {_shown(found)}, not a whole number from 1 to {most:,}")
        return found

    def number(self, name: str) -> float | None:
        """Return a finite number; None if it does not exist."""
        found = self._take(name)
        if found is None:
            return None
        if (number := finite(found)) is None:
            raise Mistake(f"{self._place(name)} is {_shown(found)}, not a finite number")
        return number

    def share(self, name: str, default: float | None = None, inside: bool = False) -> float | None:
        """Return a fraction from 0 to 1; with ``inside`` neither 0 nor 1."""
        number = self.number(name)
        if number is None:
            return default
        if not 0 <= number <= 1 or (inside and number in (0, 1)):
            meant = f" (write {number / 100:g} for {number:g} %)" if 1 < number <= 100 else ""
            raise Mistake(f"{self._place(name)} is {number:g}, not a fraction between 0 and 1{meant}")
        return number

    def words(self, name: str, known: Sequence[str], default: tuple[str, ...]) -> tuple[str, ...]:
        """Return a list of words, each of which must be known. It must not be empty."""
        found = self.items(name)
        if name not in self._found:
            return default
        for word in found:
            if word not in known:
                near = did_you_mean(str(word), known)
                raise Mistake(
                    hint(f"{self._place(name)} has {_shown(word)}; allowed are {', '.join(known)};", near)
                )
        if not found:
            raise Mistake(f"{self._place(name)} is empty: nothing would be accepted")
        return tuple(found)

    def require_all_known(self) -> None:
        """Raise a :class:`Mistake` for a key that was not read."""
        for key in self._found:
            if key not in self._read:
                known = list(self._read)
                raise Mistake(
                    hint(
                        f"there is no key {self._place(str(key))}; known keys are {', '.join(known)};",
                        did_you_mean(str(key), known),
                    ).rstrip(";")
                )

    def _take(self, name: str) -> Any:
        self._read[name] = None
        return self._found.get(name)

    def _place(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, list):
        return "a list"
    return repr(value)[:60]
