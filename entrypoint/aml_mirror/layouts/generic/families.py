"""Decides by names alone which candidate training ended with, or says why names do not tell.

A family is a group of names with the same words in the same order, and the same kinds of counters. One family
is sorted by its counter if it has exactly one that a word names, or a single number. The run is undecided if
there are several families, several numbers without a word, the same number twice, or dates. These may be
several trainings, and the numbers of one training say nothing about another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from aml_mirror.layouts.generic.counters import counting, number_at
from aml_mirror.layouts.generic.name_parts import KINDS, WORTH, Name, Number, is_neutral, parse
from aml_mirror.layouts.generic.name_words import CONTAINERS
from aml_mirror.layouts.generic.weight_files import Candidate

# (position in KINDS, value) of each counter, the coarsest first. A number without a word comes last.
Counters = tuple[tuple[int, int], ...]
_UNNAMED = len(KINDS)


@dataclass(frozen=True, slots=True)
class Ranked:
    """What the names tell about the candidates of a run."""

    numbered: list[Candidate]
    """The candidates with a number. The newest comes first, if the names tell which one it is."""
    ends: list[Candidate]
    """The candidates that a word marks as the end of training, the most certain first."""
    steps: dict[str, int | None] = field(default_factory=dict)
    """Path -> the step that the name states; None: it states no step."""
    undecided: str = ""
    """Why names do not tell what training ended with; empty: they do."""
    choices: list[Candidate] = field(default_factory=list)
    """If names do not tell: every candidate that may be the end."""
    is_counted: bool = False
    """Whether a counter sorts ``numbered``."""


@dataclass(slots=True)
class _Member:
    candidate: Candidate
    name: Name
    folder: tuple[str, ...]
    counters: Counters = ()
    step: int | None = None


def rank(candidates: Iterable[Candidate]) -> Ranked:
    """Sort the candidates of one run, as far as their names allow."""
    members = [_member(item) for item in candidates]
    ends = [item for item in members if item.name.end >= 0]
    others = [item for item in members if item.name.end < 0]
    families: dict[tuple[object, ...], list[_Member]] = {}
    shapes = _by_shape(others)
    word_for_number = len(shapes) == 1 and _all_stand(ends, others)
    for group in shapes:
        for item in _counted(group):
            key = (item.folder, item.name.parts, item.name.dates, tuple(kind for kind, _ in item.counters))
            families.setdefault(key, []).append(item)
    for family in families.values():
        family.sort(key=_order)
        _set_steps(family)
    _set_end_steps(ends, families.values())
    ends.sort(
        key=lambda item: (
            item.candidate.temporary,
            -item.name.end,
            item.candidate.path.count("/"),
            item.candidate.path,
        )
    )
    steps = {item.candidate.path: item.step for item in members}
    ordered = [item.candidate for family in families.values() for item in family]
    why, choices = ("", []) if word_for_number else _doubt(list(families.values()), ends)
    counted = bool(others) and all(item.counters for item in others)
    return Ranked(ordered, [item.candidate for item in ends], steps, why, choices, counted)


def _member(candidate: Candidate) -> _Member:
    words = [
        part
        for folder in candidate.folder.lower().split("/")
        if folder and folder not in CONTAINERS
        for part in _filled(parse(folder))
        if not is_neutral(part)
    ]
    name = parse(candidate.name)
    if name.end < 0 <= candidate.end:
        # The suffix tells.
        name = replace(name, end=candidate.end, end_at=len(name.parts))
    return _Member(candidate, name, tuple(words))


def _by_shape(members: list[_Member]) -> list[list[_Member]]:
    """Group names that differ only in numbers and dates."""
    shapes: dict[tuple[object, ...], list[_Member]] = {}
    for item in members:
        kinds = tuple(number.kind for number in item.name.numbers)
        shapes.setdefault((item.folder, item.name.parts, kinds), []).append(item)
    return list(shapes.values())


def _counted(group: list[_Member]) -> list[_Member]:
    """Decide which numbers in names of the same form count. The others become words of the name."""
    counts = counting([item.name for item in group])
    for at in sorted(counts):
        found = [number_at(item.name, at) for item in group]
        # Steps can have eight digits too. Only if all of them are valid days are they days.
        if all(number.is_date for number in found) and found[0].kind in (None, "checkpoint"):
            counts.discard(at)
            for item in group:
                item.name = replace(item.name, dates=(*item.name.dates, number_at(item.name, at).text))
    for item in group:
        parts = list(item.name.parts)
        counters = []
        for number in item.name.numbers:
            if number.at in counts:
                counters.append((KINDS.index(number.kind) if number.kind else _UNNAMED, number.value))
            elif not (number.is_date and number.text in item.name.dates):
                parts[number.at] = str(number.value)
        item.name = replace(item.name, parts=tuple(parts))
        item.counters = tuple(sorted(counters))
    return group


def _order(item: _Member) -> tuple[object, ...]:
    return [-value for _, value in item.counters], item.candidate.temporary, item.candidate.path


def _set_steps(family: list[_Member]) -> None:
    """Set the step of each candidate: its finest counter, unless that restarts in each epoch."""
    kinds = [kind for kind, _ in family[0].counters]
    if not kinds:
        return
    at = max(
        range(len(kinds)),
        key=lambda place: -1 if kinds[place] == _UNNAMED else WORTH.index(KINDS[kinds[place]]),
    )
    values = [item.counters[at][1] for item in family]
    if values == sorted(values, reverse=True):
        for item, value in zip(family, values, strict=True):
            item.step = value


def _set_end_steps(ends: list[_Member], families: Iterable[list[_Member]]) -> None:
    """Set the step of candidates that are named as the end and have a usable counter."""
    known = list(families)
    for end in ends:
        named = [number for number in end.name.numbers if number.kind in ("step", "iteration", "epoch")]
        parts = list(end.name.parts)
        if named and len({number.kind for number in named}) == len(named):
            best = max(named, key=lambda number: WORTH.index(number.kind or "epoch"))
            end.step = best.value
            counting = {number.at for number in named}
            if len(known) == 1 and (newest := _coarser(best, known[0][0])) is not None:
                # iter1_final beside iter1_883steps: the end of all of these, if they are the newest.
                end.step = None
                counting = counting if best.value >= newest else set()
        elif (
            len(known) == 1
            and len(end.name.numbers) == 1
            and known[0][0].counters
            and len(known[0][0].counters) == len(known[0][0].name.numbers) == 1
            and not end.name.numbers[0].is_date
            and _plain(end) == _plain(known[0][0])
            # policy_last_2 beside policy_1000: 2 is not one of those steps.
            and end.name.numbers[0].value >= known[0][0].counters[0][1]
        ):
            end.step = end.name.numbers[0].value
            counting = {end.name.numbers[0].at}
        else:
            counting = set()
        for number in end.name.numbers:
            parts[number.at] = "#" if number.at in counting else str(number.value)
        end.name = replace(end.name, parts=tuple(parts))


def _coarser(number: Number, newest: _Member) -> int | None:
    """Return the coarser count of a family's newest member, if a word names it; else None."""
    kinds = {KINDS[at]: value for at, value in newest.counters if at < _UNNAMED}
    if number.kind is None or number.kind not in kinds or number.kind == "checkpoint":
        return None
    finer = any(WORTH.index(kind) > WORTH.index(number.kind) for kind in kinds)
    return kinds[number.kind] if finer else None


def stand_for_numbers(ends: Iterable[Candidate], others: Iterable[Candidate]) -> bool:
    """Tell whether each name of an end is the name of the others with a word instead of the number."""
    return _all_stand([_member(item) for item in ends], [_member(item) for item in others])


def _all_stand(ends: list[_Member], others: list[_Member]) -> bool:
    """Tell whether, in all names that say "the end", that word replaces one number of all the others.

    Example: ``walk__1_final`` beside ``walk__1_100`` and ``walk__1_200`` is the end of these, whatever 1
    means.
    """
    return bool(ends) and all(
        end.folder == other.folder
        and end.name.dates == other.name.dates
        and _stands_for(end.name, other.name)
        for end in ends
        for other in others
    )


def _stands_for(end: Name, other: Name) -> bool:
    at, filled = end.end_at, _filled(other)
    if not any(number.at == at for number in other.numbers):
        return False
    return (*_filled(end)[:at], filled[at], *_filled(end)[at:]) == filled


def _filled(name: Name) -> tuple[str, ...]:
    values = {number.at: str(number.value) for number in name.numbers}
    return tuple(values.get(at, part) for at, part in enumerate(name.parts))


def _plain(item: _Member) -> tuple[str, ...]:
    return (*item.folder, *(part for part in item.name.parts if part != "#" and not is_neutral(part)))


def _doubt(families: list[list[_Member]], ends: list[_Member]) -> tuple[str, list[Candidate]]:
    """Say why names do not tell what training ended with, and which candidates may be the end."""
    newest = [_newest(family) for family in families]
    distinct = {(_plain(end), end.name.dates, end.step) for end in ends if not end.candidate.temporary}
    if len(distinct) > 1:
        return "several are named as the end, each with a different name", [item.candidate for item in ends]
    end = ends[0] if ends else None
    if len(families) > 1:
        choices = [item for found in newest for item in found] + [item.candidate for item in ends]
        return _several(families), choices
    if not families:
        return "", []
    (family,) = families
    if end is not None:
        if _belongs(end, family):
            return "", []
        return (
            "the one named as the end has words or numbers in its name that the others do not have",
            [end.candidate, *newest[0]],
        )
    return ("several have the same number", newest[0]) if len(newest[0]) > 1 else ("", [])


def _newest(family: list[_Member]) -> list[Candidate]:
    """Return the newest of a family, and those with the same number: maybe of two trainings."""
    whole = [item for item in family if not item.candidate.temporary] or family
    times = Counter(item.counters for item in whole)
    return [item.candidate for at, item in enumerate(whole) if at == 0 or times[item.counters] > 1]


def _several(families: list[list[_Member]]) -> str:
    members = [family[0] for family in families]
    if any(item.name.dates for item in members) and len({item.name.parts for item in members}) == 1:
        return "their names have different dates, which may mean different trainings"
    if all(not item.counters for item in members) and any(item.name.numbers for item in members):
        return "no word in their names says which number counts"
    return "their names belong to different series, whose numbers cannot be compared"


def _belongs(end: _Member, family: list[_Member]) -> bool:
    """Tell whether a candidate named as the end belongs to a family: it has no word that the family lacks."""
    words = _plain(end)
    for item in family:
        left = iter((*item.folder, *item.name.parts))
        if not all(word in left for word in words):
            return False
        if end.name.dates and end.name.dates != item.name.dates:
            return False
    return True
