"""The words of a verdict, the worst last, and what earlier releases called them."""

from __future__ import annotations

SAFETENSORS = "safetensors"
"""All weights are safetensors, and nothing else holds code or a pickle."""
NO_CODE = "no-code"
"""Every file is of a known format that holds no code, and was examined."""
CLEAN = "pickle-clean"
"""There are pickles, and what they name only builds tensors, arrays, containers and settings."""
UNKNOWN = "unknown"
"""A file is of no known format, or of one that could not be examined."""
CODE = "code"
"""A file is or holds code, or names some: the finding says which, and who would run it."""
SUSPICIOUS = "suspicious"
"""A pickle names what is not known to be harmless, or a file is not what readers agree on."""

WORST = (SUSPICIOUS, CODE, UNKNOWN, CLEAN)
HARMLESS = frozenset({SAFETENSORS, NO_CODE, CLEAN})
# A version says by which scanner it was judged; earlier releases, whose scanner was 1, said nothing. Raised
# whenever a file may be judged otherwise than before.
SCANNER = "3"
FIRST_SCANNER = "1"
_EARLIER = {"no-pickle": NO_CODE, "pickle-suspicious": SUSPICIOUS}


def current(word: str) -> str:
    """Return the word for what a version of any release says of itself; ``unknown`` for one nobody knows."""
    word = _EARLIER.get(word, word)
    return word if word in HARMLESS or word in WORST else UNKNOWN
