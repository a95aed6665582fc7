"""The word list of `make lint`: prints each line with a word from words.txt, and what to write instead."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("words.txt")
EXCEPTED = "words: ok"
SUFFIXES = (".md", ".py", ".yaml", ".yml", ".tf", ".sh", "Makefile", "Dockerfile")
# Data, and the list itself.
_NOT = ("tests/data/", "tests/docs/", "CHANGELOG.md")


def rules() -> list[tuple[re.Pattern[str], str]]:
    """Each pattern with what to write instead."""
    rows = [line for line in LIST.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    return [
        (re.compile(pattern, re.I), instead)
        for pattern, _, instead in (row.partition(" => ") for row in rows)
    ]


def findings(name: str, text: str) -> list[str]:
    """The problems of a text, one line each."""
    return [
        f"{name}:{number}: {match[0]!r}: write {instead!r} (or except the line with {EXCEPTED!r})"
        for number, line in enumerate(text.splitlines(), 1)
        if EXCEPTED not in line
        for pattern, instead in rules()
        if (match := pattern.search(line))
    ]


def main() -> int:
    """Check every file that git knows; return the exit code."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = [
        line
        for name in names.splitlines()
        if name.endswith(SUFFIXES) and not name.startswith(_NOT) and (ROOT / name).is_file()
        for line in findings(name, (ROOT / name).read_text(encoding="utf-8", errors="replace"))
    ]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
