"""Names of metrics: valid on every server, and one series per name.

The rules for a name:
- MLflow (mlflow/utils/validation.py, 3.15): letters and digits of any script, ``_``, ``-``, ``.``, space and
  ``/``; at most 250 characters; unchanged by ``posixpath.normpath``; not beginning with ``/`` or ``..``, and
  not ``.``. MLflow accepts colons except on Windows, but Azure ML does not.
- Names that a server may treat as equal are not both used. In their default collations, MySQL and SQL Server
  ignore case, accents and trailing spaces of keys, and the name is the key of MLflow's table of latest
  values. There, ``Loss`` and ``loss`` would be one metric. The names are kept apart on every server, so a run
  has the same names wherever it is mirrored.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

# mlflow.utils.validation.MAX_ENTITY_KEY_LENGTH, in characters.
MAX_NAME = 250
# The name for a tag of which nothing is left.
UNNAMED = "unnamed"

_NOT_ALLOWED = re.compile(r"[^/\w.\- ]")
_DIGEST = 8


def valid_name(text: str) -> str:
    """Return the valid name closest to ``text``, of any length; ``text`` itself if it is valid."""
    parts = [part for part in _NOT_ALLOWED.sub("_", text).split("/") if part]
    name = "/".join("_" * len(part) if part in (".", "..") else part for part in parts)
    if name.startswith(".."):
        name = "__" + name[2:]
    return name if name.strip() else UNNAMED


def assign_names(keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Assign a name to each (folder, tag). The same keys get the same names, in any order.

    A tag in only one folder is its own name. If several folders have it, the root's keeps it, and the others
    are named ``folder/tag``. If names clash, the one that needed no change is kept. Each other one gets a
    suffix from a hash of folder and tag, which does not change when more tags appear.
    """
    ordered = sorted(set(keys))
    uses: dict[str, int] = {}
    for _, tag in ordered:
        uses[tag] = uses.get(tag, 0) + 1
    wanted = {
        (folder, tag): f"{folder}/{tag}" if folder and uses[tag] > 1 else tag for folder, tag in ordered
    }
    bases = {key: valid_name(text) for key, text in wanted.items()}
    clashes: dict[str, int] = {}
    for base in bases.values():
        clashes[_folded(base)] = clashes.get(_folded(base), 0) + 1
    names: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    # In three rounds, so no name with a suffix can take another tag's own name: unchanged tags, changed ones
    # without a clash, the rest.
    rounds = (
        lambda key: bases[key] == key[1],
        lambda key: clashes[_folded(bases[key])] == 1,
    )
    for has_right in rounds:
        for key in ordered:
            base = bases[key]
            if key not in names and len(base) <= MAX_NAME and has_right(key) and _folded(base) not in taken:
                names[key] = base
                taken.add(_folded(base))
    for key in ordered:
        if key not in names:
            names[key] = _suffixed(bases[key], key, taken)
            taken.add(_folded(names[key]))
    return names


def _suffixed(base: str, key: tuple[str, str], taken: set[str]) -> str:
    digest = hashlib.sha256("\0".join(key).encode("utf-8", "surrogatepass")).hexdigest()
    for length in range(_DIGEST, len(digest) + 1):
        name = f"{base[: MAX_NAME - 1 - length]}_{digest[:length]}"
        if _folded(name) not in taken:
            return name
    raise AssertionError("two names have the same SHA-256")


def _folded(name: str) -> str:
    """Return what a server that ignores case and accents compares."""
    plain = "".join(
        letter
        for letter in unicodedata.normalize("NFKD", name.casefold())
        if not unicodedata.combining(letter)
    )
    return plain.casefold().rstrip(" ")


# Words of names, in lower case. Rewards and losses as the frameworks of this project name them.
_EVALUATION = frozenset({"eval", "evaluation", "val", "valid", "validation", "test"})
_GOALS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"success"}), "max"),
    (frozenset({"reward", "rewards", "rew", "return", "returns"}), "max"),
    (frozenset({"accuracy", "acc", "score"}), "max"),
    (frozenset({"loss", "error", "mse", "mae"}), "min"),
)
# A goal's word beside one of these is not the goal: a spread, a part, a coefficient, another x-axis.
_NOT_THE_GOAL = frozenset({"std", "min", "max", "time", "iter", "weight", "scale", "coef", "ms", "shaped"})
_WHOLE = frozenset({"mean", "total", "avg", "average"})
_UPKEEP = frozenset({"time", "fps", "runtime", "second", "ms", "epoch", "flos", "memory", "gpu", "cpu"})
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def words(name: str) -> list[str]:
    """Split a name into lower-case words at separators and at capital letters."""
    return [word.lower() for word in _WORD.findall(name)]


def goal(name: str) -> tuple[int, str] | None:
    """Return (rank, ``max`` or ``min``) of the goal of a training; None: the name does not indicate one."""
    found = set(words(name))
    if found & _NOT_THE_GOAL:
        return None
    for rank, (goals, direction) in enumerate(_GOALS):
        if found & goals:
            return rank, direction
    return None


def usefulness(name: str) -> tuple[int, ...]:
    """A sort key, most useful first: goals (success, reward, score, loss; measured in evaluation before
    training, means and totals before parts, short names before long ones), other evaluation, the rest,
    and last clocks and counters."""
    found = words(name)
    evaluation = 0 if _EVALUATION.intersection(found) else 1
    aim = goal(name)
    if aim is not None:
        whole = len(_WHOLE.intersection(found))
        # A reward in training says more about a policy than the loss of its evaluation.
        rank = 2 * aim[0] + evaluation
        return 0, rank, -whole, len(found), len(name)
    if _UPKEEP.intersection(found):
        return 3, evaluation, 0, len(found), len(name)
    return 1 if evaluation == 0 else 2, 0, 0, len(found), len(name)
