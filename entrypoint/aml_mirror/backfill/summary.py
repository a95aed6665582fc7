"""The results of all runs together: one line of JSON, a table, and the exit code."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from aml_mirror.pipeline.receipt import MAX_LINE_BYTES, Receipt
from aml_mirror.support import redaction
from aml_mirror.support.columns import aligned
from aml_mirror.support.progress import amount

SCHEMA = "aml-mirror/backfill/v1"
# Rows of the table, by outcome. The lines on stdout name every run.
_ROWS = {
    "failed": 100,
    "mirrored": 100,
    "planned": 100,
    "already-mirrored": 20,
    "skipped": 20,
    "no-run": 20,
    "copy": 20,
}
_WORDS = {"already-mirrored": "already there", "no-run": "no run", "planned": "will be mirrored"}
_SHOWN = 20
_TEXT = 200  # characters of a failure in the line
# Which of several failures determines the exit code. Any other failure of one run counts as 65.
_ORDER = (77, 78, 75, 70, 65)


@dataclass(slots=True)
class Row:
    """One line of the table."""

    run_id: str
    text: str = ""
    code: int = 0
    cells: tuple[str, ...] = ()
    """For a run that would be mirrored, instead of the text: its checkpoint, step, size, layout and model."""


@dataclass(slots=True)
class Summary:
    """Counts are of runs, except ``versions``. Bytes are of what was mirrored now."""

    source: str = ""
    model_name: str = ""
    shard: str = ""
    schema: str = SCHEMA
    backfill_id: str = ""
    """The id under which the receipts are stored; empty: they are not."""
    outcome: str = "done"
    """``done``: every run was examined; ``stopped``: not, for the reason in ``error``."""
    error: str | None = None
    hint: str | None = None
    mirrored: int = 0
    planned: int | None = None
    """Runs that would be mirrored; None: this is no dry run."""
    already: int = 0
    skipped: int = 0
    failed: int = 0
    no_run: int = 0
    other_shards: int = 0
    copies: int = 0
    """Runs whose files are those of another run."""
    listed: int | None = None
    """Workflows that OSMO listed; None: OSMO was not asked. The next five fields are counts of these."""
    osmo_failed: int = 0
    osmo_running: int = 0
    ended_before: int = 0
    not_selected: int = 0
    postponed: int = 0
    versions: int = 0
    bytes: int = 0
    bytes_sent: int = 0
    bytes_copied: int = 0
    bytes_planned: int = 0
    """Bytes of the runs that would be mirrored. Only the table shows it."""
    seconds: float = 0.0
    knows_registry: bool = True
    """Whether the registry was asked which runs are already there. Only the table depends on it."""
    stop_code: int = 0
    """The exit code of the reason why the work ended early; 0: it did not."""
    codes: dict[int, int] = field(default_factory=dict)
    """Failures by exit code."""
    rows: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def found(self) -> int:
        """Runs that were examined in this shard."""
        return self.mirrored + (self.planned or 0) + self.already + self.skipped + self.failed

    @property
    def exit_code(self) -> int:
        """The exit code of what ended the work; else 77 or 78, else 75, else 70, else 65, else 0."""
        if self.stop_code:
            return self.stop_code
        codes = {code if code in _ORDER else 65 for code in self.codes}
        return next((code for code in _ORDER if code in codes), 0)

    def add(self, receipts: list[Receipt]) -> None:
        """Count one run, with the receipts of its versions."""
        outcomes = {receipt.outcome for receipt in receipts}
        last = receipts[-1]
        self.versions += sum(receipt.outcome == "mirrored" for receipt in receipts)
        for receipt in receipts:
            if receipt.outcome == "mirrored":
                self.bytes += receipt.bytes
                self.bytes_sent += receipt.bytes_sent
                self.bytes_copied += receipt.bytes_copied
        run_id = last.run_id or ""
        uris = ", ".join(receipt.model_uri for receipt in receipts if receipt.model_uri)
        if "failed" in outcomes:
            self.failed += 1
            self.codes[last.exit_code] = self.codes.get(last.exit_code, 0) + 1
            self._row("failed", Row(run_id, last.error or "", last.exit_code))
        elif "skipped" in outcomes:
            self.skipped += 1
            self._row("skipped", Row(run_id, "; ".join(last.warnings)))
        elif "planned" in outcomes:
            self.planned = (self.planned or 0) + 1
            self.bytes_planned += sum(receipt.bytes for receipt in receipts)
            for receipt in receipts:
                step = "" if receipt.step is None else f"step {receipt.step}"
                into = f"into {receipt.model_name}" if receipt.model_name else ""
                cells = (receipt.checkpoint or "", step, amount(receipt.bytes), receipt.framework or "", into)
                self._row("planned", Row(run_id, cells=cells))
        elif outcomes & {"mirrored", "updated"}:
            self.mirrored += 1
            self._row("mirrored", Row(run_id, uris))
        else:
            self.already += 1
            self._row("already-mirrored", Row(run_id, uris))

    def add_no_run(self, path: str) -> None:
        """Count a folder without a run."""
        self.no_run += 1
        self._row("no-run", Row(path, "no checkpoint was found in it"))

    def add_copy(self, run_id: str, other: str) -> None:
        """Record that two runs have the same files."""
        self.copies += 1
        self._row("copy", Row(run_id, f"its files are those of {other}"))

    def _row(self, outcome: str, row: Row) -> None:
        rows = self.rows.setdefault(outcome, [])
        if len(rows) < _ROWS[outcome]:
            rows.append(row)

    def line(self, limit: int = MAX_LINE_BYTES) -> str:
        """Return one line of JSON with at most ``limit`` bytes."""
        for shown, width in ((_SHOWN, _TEXT), (5, _TEXT), (1, 80), (0, 80)):
            text = json.dumps(self._document(shown, width), separators=(",", ":"))
            if len(text.encode()) <= limit:
                break
        return text

    def _document(self, shown: int, width: int) -> dict[str, Any]:
        failures = [
            {"run_id": _cut(row.run_id, width), "exit_code": row.code, "error": _cut(row.text, width)}
            for row in self.rows.get("failed", [])[:shown]
        ]
        workflows = {
            "listed": self.listed,
            "failed_on_osmo": self.osmo_failed,
            "not_ended": self.osmo_running,
            "ended_before_since": self.ended_before,
            "not_selected": self.not_selected,
            "postponed": self.postponed,
        }
        return {
            "schema": self.schema,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "error": _cut(self.error, 2 * width) if self.error else None,
            "hint": _cut(self.hint, 2 * width) if self.hint else None,
            "source": _cut(self.source, 2 * width),
            "model_name": self.model_name or None,
            "shard": self.shard or None,
            **({"backfill_id": self.backfill_id} if self.backfill_id else {}),
            "found": self.found,
            "mirrored": self.mirrored,
            **({"planned": self.planned} if self.planned is not None else {}),
            "already_mirrored": self.already,
            "skipped": self.skipped,
            "failed": self.failed,
            "failed_by_exit_code": {str(code): count for code, count in sorted(self.codes.items())},
            "failures": failures,
            "folders_without_a_run": self.no_run,
            "in_other_shards": self.other_shards,
            "copies": self.copies,
            **({"workflows": workflows} if self.listed is not None else {}),
            "versions": self.versions,
            "bytes": self.bytes,
            "bytes_sent": self.bytes_sent,
            "bytes_copied": self.bytes_copied,
            "seconds": round(self.seconds, 3),
        }

    def table(self) -> str:
        """Return the table for people. Failures are at the end, where they are seen."""
        counts = {
            "no-run": self.no_run, "copy": self.copies, "skipped": self.skipped,
            "already-mirrored": self.already, "mirrored": self.mirrored, "planned": self.planned or 0,
            "failed": self.failed,
        }  # fmt: skip
        planned = [row.cells for row in self.rows.get("planned", [])]
        cells = iter(aligned(planned, right=frozenset({2})))
        table = []
        for outcome, count in counts.items():
            word, rows = _WORDS.get(outcome, outcome), self.rows.get(outcome, [])
            for row in rows:
                text = next(cells) if row.cells else row.text
                table.append((word, row.run_id, f"{row.code}  {text}" if row.code else text))
            if (left := count - len({row.run_id for row in rows})) > 0:
                table.append((word, f"… and {left:,} more", ""))
        lines = aligned(table)
        done = f"{self.mirrored:,} mirrored" if self.planned is None else f"{self.planned:,} will be mirrored"
        shard = f" in shard {self.shard}" if self.shard else ""
        others = f", {self.other_shards:,} in other shards" if self.other_shards else ""
        no_run = f", {self.no_run:,} folder(s) without a run" if self.no_run else ""
        if self.listed is not None:
            left_out = {
                "failed on OSMO": self.osmo_failed,
                "not ended": self.osmo_running,
                "ended before --since": self.ended_before,
                "not selected": self.not_selected,
                "to be tried again later": self.postponed,
            }
            told = ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count)
            lines.append(f"{self.listed:,} workflow(s) listed" + (f": {told}" if told else ""))
        sent = (
            f"{amount(self.bytes_sent)} sent, {amount(self.bytes_copied)} copied in {self.seconds:.0f} s"
            if self.planned is None
            else f"{amount(self.bytes_planned)} in all"
        )
        already = f", {self.already:,} already there" if self.knows_registry else ""
        lines.append(
            f"{self.found:,} run(s){shard}: {done}{already}, "
            f"{self.skipped:,} skipped, {self.failed:,} failed{no_run}{others}; {sent}"
        )
        return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    text = redaction.text(text)
    return text if len(text) <= width else text[: width - 1] + "…"
