"""Checks that every long Python file has a reason in long_files.txt (``make lint``)."""

from __future__ import annotations

import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
REASONS = Path(__file__).with_name("long_files.txt")
LONGEST = 300  # lines


def reasons() -> dict[str, str]:
    """Return the reason of each pattern; the first pattern that a path matches counts."""
    rows = [line for line in REASONS.read_text().splitlines() if line and not line.startswith("#")]
    return {pattern.strip(): why.strip() for pattern, _, why in (row.partition(":") for row in rows)}


def main() -> int:
    """Print the files without a reason, and the reasons without a file."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    lengths = {
        name: len((ROOT / name).read_text().splitlines())
        for name in listed
        if name and (ROOT / name).exists()
    }
    long = [name for name, count in lengths.items() if count > LONGEST]
    wrong = [
        f"{name} has {lengths[name]} lines: split it, or give a reason in {REASONS.name}"
        for name in long
        if not any(fnmatch(name, pattern) and why for pattern, why in reasons().items())
    ]
    wrong += [
        f"{pattern} in {REASONS.name} means no long file any more: remove the line"
        for pattern in reasons()
        if not any(fnmatch(name, pattern) for name in long)
    ]
    print("\n".join(wrong), end="\n" if wrong else "")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
