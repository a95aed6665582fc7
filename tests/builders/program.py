"""The program as a person starts it, in a process of its own, and what came of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = str(Path(sys.executable).with_name("aml-mirror"))
# What a test's process sees of this machine. Each request looks through all of it for a proxy.
KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_", "TZ", "TMP", "TEMP", "LD_LIBRARY_PATH"),
    *("PYTHON", "PIP_", "UV_", "DOCKER_", "XDG_"),
)
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


# Before all else on the path of what the tests start.
ABSENT = str(Path(__file__).parent.parent / "absent")


def clean_environment(**more: str) -> dict[str, str]:
    """What any program needs of the environment, and those given: no variable that ours reads."""
    kept = {key: value for key, value in os.environ.items() if key.startswith(KEPT) or key.lower() in PROXIES}
    path = [ABSENT, *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(path), **more}


@dataclass(frozen=True)
class Done:
    """What a call of the program came to."""

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
