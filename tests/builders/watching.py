"""Runs a watcher in this process, with real clients and a clock that a test sets."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path

from aml_mirror.backfill.summary import Summary
from aml_mirror.cli.arguments import parser
from aml_mirror.core.settings import Settings, resolve
from aml_mirror.pipeline.receipt import Receipt
from aml_mirror.support.progress import Console
from aml_mirror.watch.watch import Watch


def settings_of(*arguments: str | Path, command: str = "watch", **environment: str) -> Settings:
    """The settings of a call, only from these flags and variables."""
    flags = parser().parse_args([command, *map(str, arguments)])
    return resolve(flags, environment, Path(os.devnull))


@dataclass
class Watching:
    """Passes of one watcher. ``now`` is the clock, in seconds since the epoch."""

    settings: Settings
    now: float
    receipts: list[Receipt] = field(default_factory=list)
    said: io.StringIO = field(default_factory=io.StringIO)

    def one_pass(self, later: float = 0.0) -> Summary:
        """Make a pass ``later`` seconds after the previous one."""
        self.now += later
        console = Console(self.said)
        watch = Watch(self.settings, console, self.receipts.append, lambda one: None, lambda: self.now)
        return watch.one_pass()

    def outcomes(self) -> list[tuple[str | None, str, int]]:
        """Run id, outcome and exit code of each receipt since the last call."""
        found = [(one.run_id, one.outcome, one.exit_code) for one in self.receipts]
        self.receipts.clear()
        return found
