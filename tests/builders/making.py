"""Calls the targets of the Makefile like a person does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make at the root."""
    done = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        # The variables of the make that started these tests must not be inherited.
        env={**{k: v for k, v in os.environ.items() if not k.startswith("MAKE")}, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def build(context: Path, reference: str, **variables: str) -> dict[str, str]:
    """Run ``make build`` in a copy of the tree; return its output."""
    words = (f"{name}={value}" for name, value in variables.items())
    done = make("build", f"CONTEXT={context}", f"REFERENCE={reference}", *words)
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
