"""The arithmetic of a decision as a table: ``promote --explain``."""

from __future__ import annotations

from collections.abc import Sequence

from aml_mirror.gates.promotion import Promotion
from aml_mirror.support.progress import one_line


def explained(promotion: Promotion) -> str:
    """Return the evaluations that were counted, and each condition with what was found."""
    evaluations = [("evaluation", "task", "successes", "episodes", "evaluated", "format")]
    for one in promotion.counted:
        for trials in one.trials or (None,):
            evaluations.append(
                (
                    one.id[:16],
                    (trials.task or "not named") if trials else "",
                    str(trials.successes) if trials else "none known",
                    str(trials.episodes) if trials else "",
                    one.evaluated_at.isoformat(timespec="seconds"),
                    one.format,
                )
            )
    conditions = [("condition", "required", "found", "result")]
    conditions += [(one.name, one.required, one.found, one.result) for one in promotion.decision.conditions]
    policy = promotion.policy.name or "none: one trial is needed, and no proof that the incumbent is better"
    lines = [
        f"policy   {policy}"
        + (f" (sha256 {promotion.policy.sha256[:16]}…)" if promotion.policy.sha256 else ""),
        f"stage    {promotion.stage}, version {promotion.previous} has it"
        if promotion.previous
        else f"stage    {promotion.stage}, no version has it",
        "",
        *(_table(evaluations) if len(evaluations) > 1 else ["no evaluation was counted"]),
        "",
        *_table(conditions),
        "",
        f"outcome  {promotion.outcome}",
        *(f"note     {note}" for note in promotion.notes),
    ]
    return "\n".join(one_line(line) for line in lines)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
