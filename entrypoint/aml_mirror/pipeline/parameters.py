"""Prepares the parameters of a run: flattened, masked, and within MLflow's limits."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from aml_mirror.support import redaction
from aml_mirror.support.secret_names import names_a_secret

# Nested configurations of real runs are four to six levels deep. Deeper ones are stored as text, up to some
# levels.
MAX_DEPTH = 12
_TEXT_DEPTH = 4
# A training configuration has some hundred parameters. A file with more contains data.
MAX_PARAMS = 5_000
# MLflow's limits (mlflow/utils/validation.py, 3.15: MAX_ENTITY_KEY_LENGTH, MAX_PARAM_VAL_LENGTH).
MAX_NAME = 250
MAX_VALUE = 6000
_CUT = re.compile(r"… \(cut(?:: (\d+) characters)?\)$")
_NOT_ALLOWED = re.compile(r"[^\w./\- ]")


def parameters(config: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Flatten a configuration to dotted names and add the environment's parameters.

    If both have a name, the environment wins, because it was set for this run. Values whose names suggest
    credentials become ``***``. Values longer than ``MAX_VALUE`` are cut, with a mark.
    """
    flat: dict[str, str] = {}
    _flatten("", config, flat, 0)
    for name, found in environment.items():
        flat[name] = _text(name, found)
    named: dict[str, str] = {}
    # Names that need no change come first. They keep their names if another becomes equal.
    for name in sorted(flat, key=lambda name: (valid_name(name) != name, name)):
        allowed = valid_name(name)
        if allowed in named:
            mark = "~" + hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:6]
            allowed = allowed[: MAX_NAME - len(mark)].replace("~", "_") + mark.replace("~", "_")
        named[allowed] = flat[name]
    return dict(sorted(named.items()))


def valid_name(name: str) -> str:
    """Return a valid MLflow name: letters, digits, ``_ - . /`` and spaces, a normalised relative path."""
    # It is cut before it is normalised, because a cut may end after "a/..".
    cleaned = _NOT_ALLOWED.sub("_", name.encode("utf-8", "replace").decode())[: MAX_NAME - 1]
    cleaned = posixpath.normpath(cleaned).lstrip("/")
    cleaned = "/".join("_" if part == ".." else part for part in cleaned.split("/"))
    return "_" + cleaned if cleaned in ("", ".") or cleaned.startswith("..") else cleaned


def _flatten(prefix: str, found: Any, flat: dict[str, str], depth: int) -> None:
    if len(flat) >= MAX_PARAMS:
        return
    if isinstance(found, Mapping) and found and depth < MAX_DEPTH and not _is_secret(prefix):
        for key, below in found.items():
            _flatten(f"{prefix}.{key}" if prefix else str(key), below, flat, depth + 1)
        return
    nested = isinstance(found, (list, tuple)) and any(isinstance(i, (Mapping, list, tuple)) for i in found)
    if nested and depth < MAX_DEPTH and not _is_secret(prefix):
        for index, below in enumerate(found):
            _flatten(f"{prefix}.{index}", below, flat, depth + 1)
        return
    if prefix:
        flat[prefix] = _text(prefix, found)


def _is_secret(name: str) -> bool:
    return bool(name) and names_a_secret(name.rpartition(".")[2])


def _text(name: str, found: object) -> str:
    if isinstance(found, (Mapping, list, tuple)):
        text, mark = _joined(_pieces(name, found, 0)), "… (cut)"
    else:
        text = _leaf(name, found)
        mark = f"… (cut: {len(found) if isinstance(found, str) else len(text)} characters)"
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - len(mark)] + mark


def cut_before(text: str) -> str:
    """Tell how :func:`parameters` cut a value, in words; empty: it is complete."""
    # A shorter value with this ending was written like this.
    found = _CUT.search(text) if len(text) == MAX_VALUE else None
    if found is None:
        return ""
    return f"cut {f'from {found[1]} ' if found[1] else ''}to {MAX_VALUE} characters"


def _leaf(name: str, found: object) -> str:
    if isinstance(found, str):
        # Masking takes a while, and the text may be very long.
        return str(redaction.value(name, found[: 2 * MAX_VALUE]))
    if isinstance(found, int) and found.bit_length() > 10_000:
        return f"an integer of {found.bit_length()} bits"  # Python refuses to print it
    return redaction.text(str(redaction.value(name, found)))


def _pieces(name: str, found: object, depth: int) -> Iterator[str]:
    """Write a container like Python, piece by piece: as a whole it may be very long and deep."""
    nested = isinstance(found, (Mapping, list, tuple))
    if nested and found and _is_secret(name):
        yield redaction.MASK
    elif nested and depth > _TEXT_DEPTH:
        yield "…"
    elif isinstance(found, Mapping):
        for index, (key, below) in enumerate(found.items()):
            yield f"{', ' if index else '{'}{_leaf('', key)!r}: "
            yield from _pieces(str(key), below, depth + 1)
        yield "}" if found else "{}"
    elif isinstance(found, (list, tuple)):
        for index, below in enumerate(found):
            yield ", " if index else "["
            yield from _pieces("", below, depth + 1)
        yield "]" if found else "[]"
    else:
        text = _leaf(name, found)
        yield repr(text) if isinstance(found, str) else text


def _joined(pieces: Iterator[str]) -> str:
    parts, count = [], 0
    for piece in pieces:
        parts.append(piece)
        count += len(piece)
        if count > 2 * MAX_VALUE:
            break
    return redaction.text("".join(parts))
