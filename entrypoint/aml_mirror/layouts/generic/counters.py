"""Decides which numbers in similar names count saves, and which are a seed, a job or a version."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from aml_mirror.layouts.generic.name_parts import Name, Number

_MAX_SEED = 100
_PADDED = 9  # digits


def number_at(name: Name, at: int) -> Number:
    """Return the number at a position of a name."""
    return next(number for number in name.numbers if number.at == at)


def counting(names: Sequence[Name]) -> set[int]:
    """Return the positions of the numbers that count, in names that differ only in numbers and dates.

    Numbers that a word names count, if no word names two of them. A number without a word counts if it is the
    only one.
    """
    numbers = names[0].numbers
    counts = {number.at for number in numbers if number.kind}
    if len({number.kind for number in numbers if number.kind}) < len(counts):
        counts = set()
    if not counts and len(numbers) == 1:
        at = numbers[0].at
        return set() if _may_be_seeds(names, at) else {at}
    if (
        len(numbers) == 2
        and len(counts) == 1
        and _are_padded([number_at(name, min(counts)) for name in names])
    ):
        return {number.at for number in numbers}
    return counts - _of_no_save(names, counts)


def _of_no_save(names: Sequence[Name], counts: set[int]) -> set[int]:
    """Return the positions of numbers behind "checkpoint" that do not count saves.

    If another word names a number too, each count of saves belongs to one value of that number, and grows
    with it.
    """
    saves = {number.at for number in names[0].numbers if number.at in counts and number.kind == "checkpoint"}
    others = sorted(counts - saves)
    if not saves or not others:
        return set()
    rows = sorted({tuple(number_at(name, at).value for at in (*others, *saves)) for name in names})
    return set() if all(one[-1] < two[-1] for one, two in pairwise(rows)) else saves


def _are_padded(numbers: Sequence[Number]) -> bool:
    """Tell whether the numbers have leading zeros, up to nine digits. Seeds never do.

    ``checkpoint_000000978_4005888`` of Sample Factory counts updates and environment steps
    (``sample_factory/algo/learning/learner.py``).
    """
    return all(len(number.text) >= _PADDED and number.text.startswith("0") for number in numbers)


def _may_be_seeds(names: Sequence[Name], at: int) -> bool:
    """Tell whether numbers without a word may be seeds: small ones behind an environment's version.

    ``TD3_Walker2d-v4_3_actor`` of sfujim/TD3 has the seed there; other scripts have the step there.
    """
    before = names[0].parts[max(0, at - 2) : at]
    behind = len(before) == 2 and before[0] == "v" and before[1].isdecimal()
    return behind and all(number_at(name, at).value <= _MAX_SEED for name in names)
