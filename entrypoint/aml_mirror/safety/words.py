"""The words of a verdict, the worst last, and their names in earlier releases."""

from __future__ import annotations

SAFETENSORS = "safetensors"
"""All weights are safetensors, and nothing else contains code or a pickle."""
NO_CODE = "no-code"
"""Every file has a known format without code, and was examined."""
CLEAN = "pickle-clean"
"""There are pickles, but they only build tensors, arrays, containers and settings."""
UNKNOWN = "unknown"
"""A file has an unknown format, or could not be examined."""
CODE = "code"
"""A file is, contains or names code: the finding says which, and what would run it."""
SUSPICIOUS = "suspicious"
"""A pickle names something that is not known to be harmless, or readers disagree about a file."""

WORST = (SUSPICIOUS, CODE, UNKNOWN, CLEAN)
HARMLESS = frozenset({SAFETENSORS, NO_CODE, CLEAN})
# A version says which scanner judged it. Earlier releases, whose scanner was 1, said nothing. Increase this
# whenever a file may be judged differently than before.
SCANNER = "3"
FIRST_SCANNER = "1"
_EARLIER = {"no-pickle": NO_CODE, "pickle-suspicious": SUSPICIOUS}


def current(word: str) -> str:
    """Return the current word for a verdict of any release; ``unknown`` for an unknown one."""
    word = _EARLIER.get(word, word)
    return word if word in HARMLESS or word in WORST else UNKNOWN
