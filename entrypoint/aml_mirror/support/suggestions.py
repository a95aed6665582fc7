"""Suggests the valid word that is nearest to a wrong one."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str], count: int = 1) -> list[str]:
    """Return up to ``count`` of the choices that a person may have meant, the nearest first."""
    # Imported late: only a mistake needs it.
    from difflib import get_close_matches

    by_lower = {choice.lower(): choice for choice in choices}
    return [by_lower[match] for match in get_close_matches(word.lower(), by_lower, count, cutoff=0.6)]


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``did you mean X?``, or nothing if no choice is near."""
    found = nearest(word, choices)
    return f"did you mean {found[0]}?" if found else ""


def hint(*parts: str) -> str:
    """Join the parts of a hint that are not empty."""
    return " ".join(filter(None, parts))
