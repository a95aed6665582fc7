"""The rows of ``status --html``: the state of every run, why it is missing, and the curves of the newest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from heapq import nlargest
from pathlib import Path
from typing import Any

from aml_mirror.backfill.discovery import Candidate, failure_of
from aml_mirror.backfill.plan_runs import located_run
from aml_mirror.core.errors import UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.decide import Decisions
from aml_mirror.pipeline.destination import destination
from aml_mirror.status.curves import MAX_LOG_BYTES, Curve, curve
from aml_mirror.status.page import PageRow, page
from aml_mirror.status.prefix_status import RunStatus
from aml_mirror.status.status_text import note
from aml_mirror.support.progress import Console, amount


class Backlog:
    """Collects the contents of the page.

    Args:
        settings: of this call.
        console: output for the user.
    """

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings, self._console = settings, console
        self._rows: list[PageRow] = []
        self._candidates: list[Candidate | None] = []
        self._registry = ""

    def add(self, run: RunStatus) -> None:
        """Add the status of a run, while the listing of its files is available."""
        found, candidate = run.document, run.candidate
        self._registry = found["workspace"]
        items = found["versions"] or found["incomplete"]
        last: dict[str, Any] = items[-1] if items else {}
        layout = candidate.found.layout.name if candidate and candidate.found else ""
        self._candidates.append(candidate)
        self._rows.append(
            PageRow(
                name=found["run_id"],
                state=run.state,
                framework=layout,
                model=found["model_name"],
                versions=tuple(
                    (str(item["version"]), str(item["uri"]), " (archived)" if item["archived"] else "")
                    for item in items
                    if item["version"]
                ),
                checkpoint=last.get("checkpoint") or "",
                step=last.get("step"),
                written=candidate.newest if candidate else 0.0,
                why=self._why(run),
            )
        )

    def skipped(self, candidates: Sequence[Candidate]) -> None:
        """Add folders that look like a run but do not count as one."""
        for candidate in candidates:
            self._candidates.append(None)
            self._rows.append(
                PageRow(candidate.path, "skipped", written=candidate.newest, why=candidate.refused)
            )

    def page(self, place: str, file: Path) -> str:
        """Return the page.

        Args:
            place: the URI of the folder of the runs.
            file: the target file.

        Raises:
            UsageError: that file is in the folder of a run.
        """
        self._refuse_a_runs_folder(file)
        count = self._settings.curves
        drawn = self._curves(count)
        footer = (
            f"Curves are shown for the {count:,} most recently written runs, if their logs have at most "
            f"{amount(MAX_LOG_BYTES)}. --curves N changes the number."
            if drawn
            else ""
        )
        return page(place, self._registry, self._rows, footer)

    def _curves(self, count: int) -> int:
        """Read the logs of the most recently written runs; return how many have a curve."""
        having = [
            number
            for number, candidate in enumerate(self._candidates)
            if candidate is not None and candidate.found is not None
        ]
        newest = nlargest(count, having, key=lambda number: self._rows[number].written)
        drawn = 0
        for done, number in enumerate(newest, 1):
            self._console.doing(f"curve {done:,} of {len(newest):,}: {self._rows[number].name}")
            if found := self._curve(number):
                self._rows[number] = replace(self._rows[number], curve=found)
                drawn += 1
        self._console.doing("")
        return drawn

    def _curve(self, number: int) -> Curve | None:
        candidate = self._candidates[number]
        if candidate is None:
            return None
        try:
            return curve(located_run(candidate, self._own(candidate)))
        except Exception as error:  # noqa: BLE001 - a missing curve is no reason to have no page
            if self._settings.debug:
                self._console.warn(f"no curve of {candidate.path}: {failure_of(error).message}")
            return None

    def _own(self, candidate: Candidate) -> Settings:
        return replace(
            self._settings,
            source=candidate.source.uri,
            run_id=candidate.path,
            output_base="",
            framework_tag="",
        )

    def _why(self, run: RunStatus) -> str:
        """Return why a run has no version: the error of a mirror, or that there was no mirror."""
        candidate = run.candidate
        if run.state != "missing":
            return note(run)
        if candidate is None or candidate.found is None:
            return str(run.document["missing"] or "")
        try:
            own = replace(self._own(candidate), model_name=run.document["model_name"])
            located = located_run(candidate, own)
            list(Decisions(located, destination(own), own, self._console).selected())
        except Exception as error:  # noqa: BLE001 - any error is the answer
            return failure_of(error).message
        return "not mirrored yet"

    def _refuse_a_runs_folder(self, file: Path) -> None:
        parent = Path(os.path.realpath(file.absolute().parent))
        for candidate in self._candidates:
            if candidate is None or candidate.found is None or "://" in candidate.source.uri:
                continue
            with suppress(OSError):
                if parent.is_relative_to(os.path.realpath(candidate.source.uri)):
                    raise UsageError(
                        f"--html {file} is in the folder of a run: {candidate.path}",
                        "pass a file in another folder",
                    )
