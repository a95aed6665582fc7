"""The model card: what this version is, where it comes from, and how to see that it is whole."""

from __future__ import annotations

from collections.abc import Mapping

from aml_mirror import __version__
from aml_mirror.metrics.main_series import main_series
from aml_mirror.pipeline.plan import Plan
from aml_mirror.support import redaction
from aml_mirror.support.progress import amount


def write(plan: Plan, tags: Mapping[str, str]) -> str:
    """Return the card in Markdown. ``tags`` are the person's own."""
    subject, checkpoint = plan.subject, plan.checkpoint
    role = {
        "final": "what training ended with",
        "best": "the best one the training kept",
        "unknown": "no name tells when or why it was saved",
    }.get(checkpoint.role, "one of the training's periodic checkpoints")
    rows = [
        ("Framework", subject.found.layout.name),
        ("Run", subject.run_id),
        ("Source", subject.source.uri),
        ("Checkpoint", f"{checkpoint.path} ({role})"),
        ("Step", "unknown" if checkpoint.step is None else str(checkpoint.step)),
        *([("Base model", checkpoint.base_model)] if checkpoint.base_model else []),
        ("Files", f"{len(plan.manifest.items)}, {amount(plan.manifest.bytes)}"),
        ("Manifest SHA-256", plan.manifest.sha256),
        ("Safety", plan.safety.verdict),
        *sorted((name, str(redaction.value(name, value))) for name, value in tags.items()),
    ]
    lines = [f"# {plan.model_name}", "", "| | |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    if plan.metrics.note:
        lines += ["", "## Metrics", "", f"There are none: {plan.metrics.note}."]
    main = main_series(plan.metrics.series)
    if main:
        lines += [
            "",
            "## Metrics",
            "",
            "| series | last | at step | best | at step |",
            "|---|---|---|---|---|",
            f"| {_cell(main.name)} ({main.direction}) | {main.last:.6g} | {main.last_step} "
            f"| {main.best:.6g} | {main.best_step} |",
            "",
            f"{len(plan.metrics.series)} series with {plan.metrics.points} points are in the MLflow run; the "
            "TensorBoard files stand as they were written under `tensorboard/`.",
        ]
    lines += ["", "## Files", ""]
    shown = plan.manifest.items[:50]
    lines += ["| path | bytes | SHA-256 |", "|---|---|---|"]
    lines += [f"| {_cell(item.path)} | {item.bytes} | {item.sha256 or 'copied'} |" for item in shown]
    if len(plan.manifest.items) > len(shown):
        lines += ["", f"… and {len(plan.manifest.items) - len(shown)} more in `manifest.json`."]
    if plan.warnings:
        lines += ["", "## Warnings", ""]
        lines += [f"- {_cell(warning)}" for warning in plan.warnings[:20]]
        if len(plan.warnings) > 20:
            lines += [f"- … and {len(plan.warnings) - 20} more in `receipt.json`"]
    lines += ["", f"Mirrored by aml-mirror {__version__}.", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    # A name from a run directory must not be able to end the table or begin a heading.
    cleaned = "".join(char if char.isprintable() else " " for char in text)
    return cleaned.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
