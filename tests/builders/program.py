"""Runs the program like a person starts it, in a separate process, and returns the result."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = str(Path(sys.executable).with_name("aml-mirror"))
# What a test's process sees of this machine's environment. Each request searches all of it for a proxy.
KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_", "TZ", "TMP", "TEMP", "LD_LIBRARY_PATH"),
    *("PYTHON", "PIP_", "UV_", "DOCKER_", "XDG_"),
)
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


# Comes first on the path of processes that the tests start.
ABSENT = str(Path(__file__).parent.parent / "absent")


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment that any program needs, and the given variables: none that our program reads."""
    kept = {key: value for key, value in os.environ.items() if key.startswith(KEPT) or key.lower() in PROXIES}
    path = [ABSENT, *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(path), **more}


@dataclass(frozen=True)
class Done:
    """The result of a call of the program."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out + self.err
        found = json.loads(lines[0])
        assert isinstance(found, dict)
        return found


Call = Callable[..., Done]
