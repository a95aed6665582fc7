"""The status as text: one run in detail, or a table of many runs with a line of counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from aml_mirror.status.prefix_status import RunStatus
from aml_mirror.support.columns import aligned
from aml_mirror.support.progress import one_line

STATES = ("mirrored", "begun", "missing", "failed")
# The number of version numbers in a row.
_SHOWN = 3


def run_text(found: dict[str, Any]) -> str:
    """One run in detail."""
    lines = [f"{found['run_id']} in {found['workspace']}"]
    for item in found["versions"]:
        archived = ", archived" if item["archived"] else ""
        lines.append(f"  {item['uri']}  {item['checkpoint']} ({_step(item)}), complete{archived}")
        if item["logs"] == "unknown":
            lines.append("    it is unknown whether its logs have grown: it has no record of them")
    for item in found["incomplete"]:
        what = item["uri"] or f"MLflow run {item['mlflow_run_id']} ({item['status']})"
        lines.append(f"  {what}  {item['checkpoint']} ({_step(item)}), not complete")
    if found["missing"]:
        lines.append(f"  {found['missing']}")
    return "\n".join(map(one_line, lines))


def _step(item: dict[str, Any]) -> str:
    return f"step {'unknown' if item['step'] is None else item['step']}"


def table(prefix: str, runs: Sequence[RunStatus]) -> str:
    """One row per run, below a line with the place, the registry and, if it is the same, the model."""
    models = {run.document["model_name"] for run in runs}
    lines = []
    if runs:
        model = f", model {next(iter(models))}" if len(models) == 1 else ""
        lines.append(one_line(f"{prefix} in {runs[0].document['workspace']}{model}"))
        head = ("RUN", "STATE", *(("MODEL",) if len(models) > 1 else ()), "VERSION", "CHECKPOINT", "STEP", "")
        rows = [head, *(_row(run, len(models) > 1) for run in runs)]
        lines += aligned(rows, right=frozenset({len(head) - 2}))
    return "\n".join([*lines, count_line(runs)])


def count_line(runs: Sequence[RunStatus]) -> str:
    """``3 runs: 1 mirrored, 2 missing``."""
    counts = Counter(run.state for run in runs)
    told = ", ".join(f"{counts[state]:,} {state}" for state in STATES if counts[state])
    return f"{len(runs):,} run{'' if len(runs) == 1 else 's'}" + (f": {told}" if told else "")


def _row(run: RunStatus, has_model: bool) -> tuple[str, ...]:
    found = run.document
    items = found["versions"] or found["incomplete"]
    last = items[-1] if items else {}
    step = last.get("step")
    return (
        found["run_id"],
        run.state,
        *([found["model_name"]] if has_model else []),
        _numbers(items),
        last.get("checkpoint") or "",
        "" if step is None else str(step),
        note(run),
    )


def _numbers(items: list[dict[str, Any]]) -> str:
    numbers = [item["version"] for item in items if item["version"]]
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return ", ".join(numbers[:_SHOWN]) + more


def note(run: RunStatus) -> str:
    """Return remarks about a run; empty: none."""
    found = run.document
    if run.state == "failed":
        return str(found["missing"] or "")
    if run.state == "begun":
        return "not complete: run the same mirror again to continue"
    if found["versions"] and all(item["archived"] for item in found["versions"]):
        return "archived"
    if found["versions"] and found["incomplete"]:
        return f"{len(found['incomplete'])} more not complete"
    return ""
