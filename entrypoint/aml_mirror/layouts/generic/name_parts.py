"""Takes a name apart: its words, what its numbers count, its dates, and whether it is named as the end.

No word and no number is dropped without a reason. Whatever does not count, is not a score and does not say
"the end" distinguishes one training from another: a seed, a task, a stage, a word, a date.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from aml_mirror.layouts.generic.name_words import (
    ENDS,
    MODEL_WORDS,
    MONTHS,
    TEMPORARY_WORDS,
    in_full,
)
from aml_mirror.layouts.step_folders import word_set

Kind = Literal["epoch", "iteration", "step", "checkpoint"]
# The coarser counter first: steps may restart in each epoch, but epochs never restart in each step.
KINDS: tuple[Kind, ...] = ("epoch", "iteration", "step", "checkpoint")
_COUNTERS: dict[str, Kind] = {
    **dict.fromkeys(("epoch", "epochs", "ep"), "epoch"),
    **dict.fromkeys(
        ("iter", "iters", "iteration", "iterations", "itr", "it", "update", "updates"), "iteration"
    ),
    **dict.fromkeys(("step", "steps", "timestep", "timesteps"), "step"),
    # The weakest word: it names the number only if no other word does.
    **dict.fromkeys(("checkpoint", "checkpoints", "ckpt", "ckpts", "chkpt", "snapshot"), "checkpoint"),
}
# Numbers behind these words depend on the quality of the policy. They do not distinguish trainings.
_SCORES = word_set(
    "loss reward rew return ret score acc accuracy success sr mse mae error err metric fitness rate"
)
# Numbers behind these words belong to a training, not to a save in it.
_OF_A_TRAINING = word_set(
    "seed task stage phase fold run exp experiment trial version v rank worker gpu env robot id job level "
    "variant config cfg part group member copy attempt round gen skill object agent_id lr bs batch dim "
    "hidden layers horizon chunk size demos demo traj trajs length len"
)

# Those of them that never number the parts of one policy.
_WHOSE = word_set("seed task run exp experiment trial fold job")

_DAY = r"20[1-4][0-9](?P<{0}>[-_.]?)(?:0[1-9]|1[0-2])(?P={0})(?:0[1-9]|[12][0-9]|3[01])"
_TIME = r"(?:[01][0-9]|2[0-3])(?P<{0}>[-_.:h]?)[0-5][0-9](?:(?P={0})[0-5][0-9])?"
_DATES = re.compile(
    rf"(?<![0-9])(?:{_DAY.format('a')}[-_.t ]{{0,3}}{_TIME.format('b')}(?:f[0-9]+)?"
    # A day with separators is always a day. Eight digits alone may be a step.
    r"|20[1-4][0-9](?P<c>[-_.])(?:0[1-9]|1[0-2])(?P=c)(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[1-9]|[12][0-9]|3[01])(?P<d>[-_.])(?:0[1-9]|1[0-2])(?P=d)20[1-4][0-9]"
    r"|(?:0[1-9]|1[0-2])(?P<e>[-_.])(?:0[1-9]|[12][0-9]|3[01])(?P=e)20[1-4][0-9]"
    r"|[1-4][0-9](?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[-_](?:[01][0-9]|2[0-3])(?:[0-5][0-9]){2}"
    rf"|(?<![a-z])(?:{'|'.join(MONTHS)})[a-z]*[-_ ]?[0-9]{{1,2}}(?:[-_ ]{_TIME.format('f')})?"
    r"|(?:[01][0-9]|2[0-3])(?P<g>[-:])[0-5][0-9](?P=g)[0-5][0-9]"
    r")(?![0-9])"
)
# Eight digits that form a day, or seconds or milliseconds since 1970, from 2014 to 2033.
_BARE_DATE = re.compile(
    r"20[1-4][0-9](?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])|1[4-9][0-9]{8}(?:[0-9]{3})?"
)
# 18k behind a word that may describe a size. in_full leaves it alone.
_THOUSANDS = re.compile(r"(?<![a-z0-9.])([0-9]+)[km](?![a-z0-9])")
_TOKEN = re.compile(
    r"(?P<float>[0-9]+(?:\.[0-9]+)?e-?[0-9]+(?![a-z0-9])|[0-9]+\.[0-9]+)|(?P<number>[0-9]+)|(?P<word>[a-z]+)|(?P<other>[^a-z0-9]+)"
)
_MAX_DIGITS = 18
# The words that number the parts of one model: layer_120-model_states.pt of DeepSpeed's pipelines.
_OF_A_PART = word_set("layer layers block expert shard part rank module head mp tp pp dp")
# The most parts of one policy, if no word says that they are parts.
_MAX_PARTS = 100


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number in a name. ``at`` is its position among the parts. A word may say what it counts."""

    at: int
    value: int
    text: str
    kind: Kind | None

    @property
    def is_date(self) -> bool:
        """Whether the digits can be a day or a time."""
        return _BARE_DATE.fullmatch(self.text) is not None


@dataclass(frozen=True, slots=True)
class Name:
    """A parsed name. ``parts`` is what distinguishes trainings, with ``#`` where a number may count."""

    parts: tuple[str, ...]
    numbers: tuple[Number, ...] = ()
    dates: tuple[str, ...] = ()
    end: int = -1
    """The index in ``ENDS`` of the word that says training ended; -1: there is none."""
    end_at: int = -1
    """The position of that word among the parts."""


def parse(name: str) -> Name:
    """Parse a name that has no suffix."""
    low = in_full(name.lower())
    dates = tuple(match[0] for match in _DATES.finditer(low))
    tokens = _tokens(_DATES.sub("~", low))
    parts: list[str] = []
    numbers: list[Number] = []
    end, end_at = -1, -1
    named, used = _named(tokens)
    for at, (kind, text) in enumerate(tokens):
        before = _word(tokens, at - 1)
        if kind == "word":
            if text in ENDS and ENDS.index(text) >= end:
                end, end_at = ENDS.index(text), len(parts)
            elif text not in TEMPORARY_WORDS and (
                text not in _COUNTERS or (at not in used and not is_neutral(text))
            ):
                parts.append(text)
        elif before in _SCORES:
            continue
        elif kind == "float" or len(text) > _MAX_DIGITS or before in _OF_A_TRAINING or _is_agent(tokens, at):
            parts.append(text.lstrip("0") or "0" if kind == "number" else text)
        else:
            numbers.append(Number(len(parts), int(text), text, named.get(at)))
            parts.append("#")
    return Name(tuple(parts), tuple(numbers), dates, end, end_at)


def stated_step(name: str) -> int | None:
    """Return the step that a name states by itself; None: it states none, or several numbers are possible."""
    parsed = parse(name)
    named = [number for number in parsed.numbers if number.kind]
    if len({number.kind for number in named}) < len(named):
        return None
    if named:
        best = max(named, key=lambda number: WORTH.index(number.kind or "checkpoint"))
        return None if best.kind == "checkpoint" and best.is_date else best.value
    if len(parsed.numbers) == 1 and parsed.end < 0 and not parsed.numbers[0].is_date:
        return parsed.numbers[0].value
    return None


# Which of several counters is the step: in epoch=3-step=1000 it is the step.
WORTH: tuple[Kind, ...] = ("checkpoint", "epoch", "iteration", "step")


def is_neutral(part: str) -> bool:
    """Tell whether a word only says that something is a model. Any name may include or omit it."""
    return part in MODEL_WORDS


def _tokens(low: str) -> list[tuple[str, str]]:
    """Split a name into words and numbers. h1, v0 and 7b are one word each, step100 is not."""
    found: list[tuple[str, str]] = []
    glued = False
    for match in _TOKEN.finditer(low):
        kind, text = str(match.lastgroup), match[0]
        if kind == "other":
            glued = False
            continue
        if glued and found:
            last_kind, last = found[-1]
            apart = (last_kind == "word" and _names(last)) or (kind == "word" and _names(text))
            if not apart:
                found[-1] = ("word", last + text)
                continue
        found.append((kind, text))
        glued = True
    return found


def _named(tokens: list[tuple[str, str]]) -> tuple[dict[int, Kind], set[int]]:
    """Map the position of each number that a word names to what it counts. Also return the positions of these
    words.

    The words are before the numbers (``epoch_2_step_400``) or behind them (``2_epochs_400_steps``). The last
    word decides which. A word names one number.
    """
    words = [at for at in range(len(tokens)) if _word(tokens, at) in _COUNTERS]
    if not words:
        return {}, set()
    behind = words[-1] + 1 == len(tokens) or tokens[words[-1] + 1][0] != "number"
    named: dict[int, Kind] = {}
    used: set[int] = set()
    for step in (1, -1) if behind else (-1, 1):
        for at, (kind, _) in enumerate(tokens):
            if kind == "number" and at not in named and at + step in words and at + step not in used:
                used.add(at + step)
                named[at] = _COUNTERS[_word(tokens, at + step)]
    if len(set(named.values())) > 1:
        # 8123_checkpoint_iter_5: a number before the weakest word belongs to something else.
        named = {
            at: kind
            for at, kind in named.items()
            if kind != "checkpoint" or _COUNTERS.get(_word(tokens, at - 1)) == "checkpoint"
        }
    return named, used


def is_series(names: list[str]) -> bool:
    """Tell whether names form a series, and so several policies: ``policy_step_5``, ``policy_step_9``.

    Parts of one policy have small numbers without a word of a counter.
    """
    counted: dict[tuple[str, ...], set[tuple[int, ...]]] = {}
    others: dict[tuple[str, ...], set[int]] = {}
    for name in names:
        parsed = parse(_THOUSANDS.sub(r"\g<1>000", name.lower()))
        counters = [number for number in parsed.numbers if number.kind not in (None, "checkpoint")]
        if counters:
            counted.setdefault(parsed.parts, set()).add(tuple(number.value for number in counters))
        elif len(parsed.numbers) == 1 and not _OF_A_PART.intersection(parsed.parts):
            others.setdefault(parsed.parts, set()).add(parsed.numbers[0].value)
    return any(len(values) > 1 for values in counted.values()) or any(
        len(values) > 1 and max(values) > _MAX_PARTS for values in others.values()
    )


def _names(word: str) -> bool:
    return word in _COUNTERS or word in MODEL_WORDS or word in _OF_A_TRAINING or word in _SCORES


def _is_agent(tokens: list[tuple[str, str]], at: int) -> bool:
    """Tell whether a number belongs to one of several agents: ``actor_agent0`` of marlbenchmark/on-policy."""
    return _word(tokens, at - 1) == "agent" and _word(tokens, at - 2) in MODEL_WORDS


def tells_apart(names: list[str]) -> bool:
    """Tell whether some names differ only in the training that they belong to: a seed, a task, a run."""
    shapes: dict[tuple[str, ...], set[str]] = {}
    for name in names:
        tokens = _tokens(in_full(name.lower()))
        whose = [
            at for at, (kind, _) in enumerate(tokens) if kind == "number" and _word(tokens, at - 1) in _WHOSE
        ]
        shape = tuple("#" if at in whose else text for at, (_, text) in enumerate(tokens))
        shapes.setdefault(shape, set()).add(" ".join(tokens[at][1] for at in whose))
    return any(len(values) > 1 for values in shapes.values())


def _word(tokens: list[tuple[str, str]], at: int) -> str:
    return tokens[at][1] if 0 <= at < len(tokens) and tokens[at][0] == "word" else ""
