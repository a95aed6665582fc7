"""Names and values of a run as Markdown that shows them and does nothing else."""

from __future__ import annotations

import re

# What Markdown gives a meaning anywhere in a line: the renderers of MLflow, Azure ML and GitHub
# differ in which of these they honour, and all of them take a backslash before one for the character itself.
_SPECIAL = re.compile(r"[\\`*_{}\[\]()#!|~]")
# An address becomes a link without any bracket; a backslash does not prevent it, a character's number does.
_ADDRESS = re.compile(r"(?i)(?<=[a-z0-9]):(?=//|[^\s]*@)|(?<=\bmailto):|@|(?<=\bwww)\.")


def cell(text: str) -> str:
    """Return a name or value from a run as Markdown that shows it and does nothing else."""
    cleaned = "".join(char if char.isprintable() else " " for char in text).strip()
    pieces = []
    at = 0
    for match in _ADDRESS.finditer(cleaned):
        pieces += [_plain(cleaned[at : match.start()]), "".join(f"&#{ord(char)};" for char in match[0])]
        at = match.end()
    pieces.append(_plain(cleaned[at:]))
    whole = "".join(pieces)
    # At the beginning of a line, a list, or a heading that is underlined.
    return "\\" + whole if whole.startswith(("-", "+", "=")) else whole


def _plain(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\g<0>", text)
