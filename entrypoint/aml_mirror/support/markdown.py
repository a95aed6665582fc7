"""Names and values of a run as Markdown that only shows them."""

from __future__ import annotations

import re

# Characters with a meaning in Markdown, anywhere in a line. The renderers of MLflow, Azure ML and GitHub
# differ in which of them they honour, but all of them treat a backslash before one as an escape.
_SPECIAL = re.compile(r"[\\`*_{}\[\]()#!|~]")
# An address becomes a link without brackets. A backslash does not prevent that, a character reference does.
_ADDRESS = re.compile(r"(?i)(?<=[a-z0-9]):(?=//|[^\s]*@)|(?<=\bmailto):|@|(?<=\bwww)\.")


def cell(text: str) -> str:
    """Return a name or value from a run as Markdown that only shows it."""
    cleaned = "".join(char if char.isprintable() else " " for char in text).strip()
    pieces = []
    at = 0
    for match in _ADDRESS.finditer(cleaned):
        pieces += [_plain(cleaned[at : match.start()]), "".join(f"&#{ord(char)};" for char in match[0])]
        at = match.end()
    pieces.append(_plain(cleaned[at:]))
    whole = "".join(pieces)
    # At the beginning of a line: a list, or an underlined heading.
    return "\\" + whole if whole.startswith(("-", "+", "=")) else whole


def _plain(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\g<0>", text)
