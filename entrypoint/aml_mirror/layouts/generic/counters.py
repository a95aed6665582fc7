"""Which numbers in names of one shape count: what was saved when, and not a seed, a job or a version."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from aml_mirror.layouts.generic.name_parts import Name, Number

_MAX_SEED = 100
_PADDED = 9  # digits


def number_at(name: Name, at: int) -> Number:
    """Return the number at a place of a name."""
    return next(number for number in name.numbers if number.at == at)


def counting(names: Sequence[Name]) -> set[int]:
    """Return the places of the numbers that count, in names that differ in numbers and dates at most.

    Those that a word names count, if no word names two. One without a word counts where it is the only one.
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
    """Return the places of numbers behind "checkpoint" that count no saves.

    Where another word names a number too, each count of saves belongs to one of that, and grows with it.
    """
    saves = {number.at for number in names[0].numbers if number.at in counts and number.kind == "checkpoint"}
    others = sorted(counts - saves)
    if not saves or not others:
        return set()
    rows = sorted({tuple(number_at(name, at).value for at in (*others, *saves)) for name in names})
    return set() if all(one[-1] < two[-1] for one, two in pairwise(rows)) else saves


def _are_padded(numbers: Sequence[Number]) -> bool:
    """Tell whether numbers have zeros before them, up to nine digits, as no seed has.

    ``checkpoint_000000978_4005888`` of Sample Factory counts updates and steps of the environment
    (``sample_factory/algo/learning/learner.py``).
    """
    return all(len(number.text) >= _PADDED and number.text.startswith("0") for number in numbers)


def _may_be_seeds(names: Sequence[Name], at: int) -> bool:
    """Tell whether numbers that no word names may be seeds: small ones behind an environment's version.

    ``TD3_Walker2d-v4_3_actor`` of sfujim/TD3 has the seed there, other scripts have the step.
    """
    before = names[0].parts[max(0, at - 2) : at]
    behind = len(before) == 2 and before[0] == "v" and before[1].isdecimal()
    return behind and all(number_at(name, at).value <= _MAX_SEED for name in names)
