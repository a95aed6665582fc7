"""Formats results as text. Each fits on one screen."""

from __future__ import annotations

from collections.abc import Iterable

from aml_mirror.doctor.doctor import Check
from aml_mirror.pipeline.plan import Plan
from aml_mirror.pipeline.receipt import Receipt
from aml_mirror.support.progress import amount, one_line

MAX_LINES = 8


def plan_text(plan: Plan) -> str:
    """What a mirror would do."""
    located, checkpoint, metrics = plan.located, plan.checkpoint, plan.metrics
    best = plan.best
    rows = [
        ("run", f"{located.run_id}  ({located.detected.layout.name}, {located.source.uri})"),
        ("checkpoint", f"{checkpoint.path}  ({_step(checkpoint.step)}, {checkpoint.role}, complete)"),
        ("base model", checkpoint.base_model),
        ("best", f"{best.path}  ({_step(best.step)})" if best else ""),
        ("files", f"{len(plan.manifest.items)}, {amount(plan.manifest.bytes)}"),
        (
            "metrics",
            f"{len(metrics.series)} series, {metrics.points:,} points"
            + (f" of {metrics.points_read:,} read" if metrics.points_read != metrics.points else "")
            + f", from {len(metrics.sources)} file(s)"
            if metrics.series and not metrics.note
            else metrics.note,
        ),
        ("params", str(len(plan.params) or "")),
        ("without", ", ".join(name for name in plan.absent if name != "metrics")),
        ("safety", plan.safety.verdict),
        ("model", plan.model_name or "(none given: pass --model-name to mirror)"),
        ("identity", f"{plan.identity}{_from_etags(plan)}"),
    ]
    lines = [f"{name:<11} {one_line(value)}" for name, value in rows if value]
    lines += _listed(
        "will be mirrored", (f"{item.source}  {amount(item.bytes)}" for item in plan.manifest.items)
    )
    lines += _listed("left out", map(_reason, plan.left_out))
    lines += _listed("warnings", plan.warnings)
    return "\n".join(lines)


def _from_etags(plan: Plan) -> str:
    """Say when a mirror that hashes would get another identity."""
    if plan.manifest.integrity == "sha256":
        return ""
    hashes = "it hashes them if the registry has a hashed version of this run, and with --hash"
    return f"  (from ETags, because the service copies the files; {hashes})"


def receipt_text(receipt: Receipt) -> str:
    """What a mirror did."""
    version = f"{receipt.model_name} version {receipt.model_version}"
    if receipt.outcome == "already-mirrored":
        return _with_pages(f"already mirrored: {version} ({receipt.model_uri}); nothing was sent", receipt)
    if receipt.outcome == "updated":
        text = f"updated: {version} ({receipt.model_uri}); {receipt.points:,} points of its logs were added"
        return _with_pages(text, receipt)
    lines = [
        f"mirrored {receipt.run_id} as {version} ({receipt.model_uri})",
        f"  checkpoint  {receipt.checkpoint} ({_step(receipt.step)}), {receipt.files} file(s), "
        f"{amount(receipt.bytes)}",
        f"  metrics     {receipt.series} series, {receipt.points:,} points",
        f"  MLflow run  {receipt.mlflow_run_id}",
        f"  manifest    {receipt.manifest_sha256}",
        f"  safety      {receipt.safety}",
        f"  took        {receipt.seconds:.1f} s, {amount(receipt.bytes_sent)} sent",
    ]
    return _with_pages("\n".join(map(one_line, lines)), receipt)


def _with_pages(text: str, receipt: Receipt) -> str:
    pages = (("version", receipt.version_page), ("run", receipt.run_page))
    return "\n".join([text, *(f"  {name:<11} {one_line(page)}" for name, page in pages if page)])


def check_text(check: Check) -> str:
    """One check of the doctor, with its fix if it failed."""
    fix = f"; {check.failure.hint}" if check.failure and check.failure.hint else ""
    return f"{'FAIL' if check.failure else 'ok':<5} {check.name}: {check.found}{fix}"


def _reason(item: dict[str, str]) -> str:
    what = item.get("path") or item.get("param") or item.get("metric")
    return f"{what}: {item['reason']}"


def _step(step: int | None) -> str:
    return "step unknown" if step is None else f"step {step}"


def _listed(title: str, found: Iterable[str]) -> list[str]:
    lines = [one_line(line) for line in found]
    if not lines:
        return []
    shown = [f"  {line}" for line in lines[:MAX_LINES]]
    if len(lines) > MAX_LINES:
        shown.append(f"  … and {len(lines) - MAX_LINES} more (--json shows all)")
    return [title, *shown]
