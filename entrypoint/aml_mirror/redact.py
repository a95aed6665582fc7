"""Keep secrets out of everything that leaves the program: parameters, tags, logs, receipts.

Two rules, since neither is enough alone: a value is masked for the name it stands under, and a text is
masked wherever it looks like a credential, whatever its name.
"""

from __future__ import annotations

import re
from itertools import pairwise

MASK = "***"

# Words that say that the value is a credential. "token" counts at the end of a name only: `hub_token` is a
# credential, `token_dim` and `pad_token_id` are not.
_SECRET_WORDS = frozenset(
    (
        "secret",
        "secrets",
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "credential",
        "credentials",
        "apikey",
        "sas",
        "signature",
        "authorization",
        "bearer",
        "cookie",
    )
)
_SECRET_ENDS = ("token", "auth", "jwt", "pat", "dsn")
_SECRET_PAIRS = (
    ("api", "key"),
    ("access", "key"),
    ("account", "key"),
    ("secret", "key"),
    ("private", "key"),
    ("storage", "key"),
    ("license", "key"),
    ("subscription", "key"),
    ("encryption", "key"),
    ("connection", "string"),
    ("conn", "str"),
    ("access", "token"),
    ("client", "assertion"),
)
# Tokens of a vocabulary, which every language model's configuration names.
_VOCABULARY = frozenset(
    (
        "bos",
        "eos",
        "pad",
        "unk",
        "cls",
        "sep",
        "mask",
        "image",
        "boi",
        "eoi",
        "start",
        "end",
        "special",
        "action",
        "state",
        "img",
    )
)
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")

_PATTERNS = (
    # Signatures and keys in URLs and connection strings (Azure SAS, AWS presigned).
    (
        re.compile(
            r"(?i)([?&;\s\"']|^)(sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token|"
            r"access_token|token|api_?key|password|code)=[^&;\s\"']+"
        ),
        r"\1\2=" + MASK,
    ),
    (
        re.compile(r"(?i)(AccountKey|SharedAccessSignature|SharedAccessKey|Password|Pwd)=[^;\s\"']+"),
        r"\1=" + MASK,
    ),
    (re.compile(r"(?i)\b(Bearer|Basic)\s+[A-Za-z0-9+/=._~-]{8,}"), r"\1 " + MASK),
    # user:password@ in a URL.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@"), r"\1:" + MASK + "@"),
    # JSON web tokens, and the tokens of the hosts that training configurations name most.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*\.?[A-Za-z0-9_-]*"), MASK),
    (
        re.compile(
            r"\b(hf_|ghp_|gho_|ghs_|github_pat_|glpat-|sk-|xoxb-|xoxp-|nvapi-|dapi)[A-Za-z0-9_-]{16,}"
        ),
        MASK,
    ),
    (re.compile(r"\bAKIA[A-Z0-9]{16}\b"), MASK),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.S), MASK),
)


def text(value: str) -> str:
    """Return the text with everything that looks like a credential replaced by ``***``."""
    for pattern, replacement in _PATTERNS:
        value = pattern.sub(replacement, value)
    return value


def names_a_secret(name: str) -> bool:
    """Tell whether a value under this name (``wandb.api_key``, ``hubToken``) is a credential."""
    for segment in re.split(r"[./]", name):
        words = [word.lower() for word in _WORDS.findall(segment)]
        if not words:
            continue
        if any(word in _SECRET_WORDS for word in words):
            return True
        if any(pair == (a, b) for a, b in pairwise(words) for pair in _SECRET_PAIRS):
            return True
        if words[-1] in _SECRET_ENDS and not (len(words) > 1 and words[-2] in _VOCABULARY):
            return True
    return False


def value(name: str, found: object) -> object:
    """Return the value of a parameter, or ``***`` where its name says that it is a credential.

    Booleans and None say whether there is a credential, not which: they stay.
    """
    if isinstance(found, bool) or found is None or found == "":
        return found
    if names_a_secret(name):
        return MASK
    return text(found) if isinstance(found, str) else found
