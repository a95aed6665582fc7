"""Runs a backfill in this process, with the real clients, and returns the result."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from pathlib import Path

from aml_mirror.backfill.backfill import Backfill
from aml_mirror.backfill.summary import Summary
from aml_mirror.cli.arguments import parser
from aml_mirror.core.settings import Settings, resolve
from aml_mirror.pipeline.receipt import Receipt
from aml_mirror.support.progress import Console


@dataclass(frozen=True)
class Filled:
    """The output of a backfill."""

    receipts: list[Receipt]
    summary: Summary
    said: str

    @property
    def outcomes(self) -> dict[str, str]:
        """Run id -> outcome."""
        found = {str(receipt.run_id): receipt.outcome for receipt in self.receipts}
        assert len(found) == len(self.receipts), [receipt.run_id for receipt in self.receipts]
        return found

    def receipt(self, run_id: str) -> Receipt:
        """The receipt of one run."""
        (found,) = [receipt for receipt in self.receipts if receipt.run_id == run_id]
        return found


def settings_of(*arguments: str | Path, command: str = "backfill", **environment: str) -> Settings:
    """The settings of a call, only from these flags and variables."""
    flags = parser().parse_args([command, *map(str, arguments)])
    return resolve(flags, environment, Path(os.devnull))


def backfill(*arguments: str | Path, **environment: str) -> Filled:
    """Run a backfill to its end."""
    told: list[Receipt] = []
    stream = io.StringIO()
    work = Backfill(
        settings_of(*arguments, **environment), Console(stream), lambda one: told.append(replace(one))
    )
    summary = work.run()
    return Filled(told, summary, stream.getvalue())
