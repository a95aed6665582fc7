"""The model card: what this version is, where it comes from, and how to see that it is whole."""

from __future__ import annotations

import re
from collections.abc import Mapping

from aml_mirror import __version__
from aml_mirror.metrics.main_series import main_series
from aml_mirror.pipeline.plan import Plan
from aml_mirror.support import redaction
from aml_mirror.support.progress import amount


def write(plan: Plan, tags: Mapping[str, str]) -> str:
    """Return the card in Markdown. ``tags`` are the person's own."""
    located, checkpoint = plan.located, plan.checkpoint
    role = {
        "final": "what training ended with",
        "best": "the best one the training kept",
        "unknown": "no name tells when or why it was saved",
    }.get(checkpoint.role, "one of the training's periodic checkpoints")
    rows = [
        ("Framework", located.detected.layout.name),
        ("Run", located.run_id),
        ("Source", located.source.uri),
        ("Checkpoint", f"{checkpoint.path} ({role})"),
        ("Step", "unknown" if checkpoint.step is None else str(checkpoint.step)),
        *([("Base model", checkpoint.base_model)] if checkpoint.base_model else []),
        ("Files", f"{len(plan.manifest.items)}, {amount(plan.manifest.bytes)}"),
        ("Manifest SHA-256", plan.manifest.sha256),
        ("Safety", plan.safety.verdict),
        *sorted((name, str(redaction.value(name, value))) for name, value in tags.items()),
    ]
    lines = [f"# {cell(plan.model_name)}", "", "| | |", "|---|---|"]
    lines += [f"| {cell(name)} | {cell(value)} |" for name, value in rows]
    if plan.metrics.note:
        lines += ["", "## Metrics", "", f"There are none: {cell(plan.metrics.note)}."]
    main = main_series(plan.metrics.series)
    if main:
        lines += [
            "",
            "## Metrics",
            "",
            "| series | last | at step | best | at step |",
            "|---|---|---|---|---|",
            f"| {cell(main.name)} ({main.direction}) | {main.last:.6g} | {main.last_step} "
            f"| {main.best:.6g} | {main.best_step} |",
            "",
            f"{len(plan.metrics.series)} series with {plan.metrics.points} points are in the MLflow run; the "
            "TensorBoard files stand as they were written under `tensorboard/`.",
        ]
    lines += ["", "## Files", ""]
    shown = plan.manifest.items[:50]
    lines += ["| path | bytes | SHA-256 |", "|---|---|---|"]
    lines += [f"| {cell(item.path)} | {item.bytes} | {item.sha256 or 'copied'} |" for item in shown]
    if len(plan.manifest.items) > len(shown):
        lines += ["", f"… and {len(plan.manifest.items) - len(shown)} more in `manifest.json`."]
    if plan.warnings:
        lines += ["", "## Warnings", ""]
        lines += [f"- {cell(warning)}" for warning in plan.warnings[:20]]
        if len(plan.warnings) > 20:
            lines += [f"- … and {len(plan.warnings) - 20} more in `receipt.json`"]
    lines += ["", f"Mirrored by aml-mirror {__version__}.", ""]
    return "\n".join(lines)


# What Markdown gives a meaning anywhere in a line: the renderers of MLflow, Azure ML and GitHub
# differ in which of these they honour, and all of them take a backslash before one for the character itself.
_SPECIAL = re.compile(r"[\\`*_{}\[\]()#!|~]")
# An address becomes a link without any bracket; a backslash does not prevent it, a character's number does.
_ADDRESS = re.compile(r"(?i)(?<=[a-z0-9]):(?=//|[^\s]*@)|(?<=\bmailto):|@|(?<=\bwww)\.")


def cell(text: str) -> str:
    """Return a name or value from a run as Markdown that shows it and does nothing else."""
    cleaned = "".join(char if char.isprintable() else " " for char in text).strip()
    pieces = []
    at = 0
    for match in _ADDRESS.finditer(cleaned):
        pieces += [_plain(cleaned[at : match.start()]), "".join(f"&#{ord(char)};" for char in match[0])]
        at = match.end()
    pieces.append(_plain(cleaned[at:]))
    whole = "".join(pieces)
    # At the beginning of a line, a list, or a heading that is underlined.
    return "\\" + whole if whole.startswith(("-", "+", "=")) else whole


def _plain(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\g<0>", text)
