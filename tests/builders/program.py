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
# Nothing of the machine that runs the tests may decide what they see.
FOREIGN = ("AZURE", "ARM_", "MLFLOW", "OSMO", "RUN_ID", "REPLAY_", "OUTPUT_", "AML_", "TRAINING_", "PYTEST_")


# Before all else on the path of what the tests start.
ABSENT = str(Path(__file__).parent.parent / "absent")


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without any variable that the program reads, plus those given."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
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
