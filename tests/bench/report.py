"""The figures: stored in ``bench.json``, printed as tables, and written between the markers in README.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.environments import ROOT
from bench.growth import FLAT, LINEAR, Curve, plot
from bench.harness import BenchError, Result

FILE = ROOT / "bench.json"
README = Path(__file__).resolve().parent / "README.md"
PICTURE = Path(__file__).resolve().parent / "scale.svg"
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
_ORDER = (
    *("points", "events", "upload", "reuse", "download", "pull-reuse"),
    *("server-copy", "whole", "mlflow-server", "nothing", "start"),
)


def keep(result: Result, machine: dict[str, Any], file: Path = FILE) -> None:
    """Store a result in ``bench.json``, replacing an earlier one."""
    found = load(file) if file.exists() else {"comparisons": {}}
    found["comparisons"][result.name] = {**result.as_dict(), "machine": machine}
    file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(file: Path = FILE) -> dict[str, Any]:
    """The content of ``bench.json``."""
    if not file.exists():
        raise BenchError(f"{file.name} is not there: make bench writes it")
    found = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def keep_growth(curves: Sequence[Curve], machine: dict[str, Any], file: Path = FILE) -> None:
    """Store the growth in ``bench.json``, and draw it."""
    found = load(file) if file.exists() else {"comparisons": {}}
    found["growth"] = {"curves": [curve.as_dict() for curve in curves], "machine": machine}
    file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draw_growth(file)


def draw_growth(file: Path = FILE) -> None:
    """Draw the growth in ``bench.json`` for the README."""
    if "growth" in (found := load(file)):
        plot(found["growth"]["curves"], PICTURE)


def growth_table(found: dict[str, Any]) -> str:
    """The growth as Markdown."""
    rows = [
        [
            "",
            "sizes",
            "time",
            "time above the start grows with",
            "the program's own CPU with",
            "resident",
            "largest to smallest",
        ],
        ["---"] * 7,
    ]
    for curve in found["curves"]:
        points = curve["points"]
        rows.append(
            [
                curve["unit"],
                " · ".join(f"{point['size']:,}" for point in points),
                " · ".join(_seconds(point["seconds"]) for point in points),
                f"size^{curve['exponent']:.2f}, {_met(curve['exponent'] <= LINEAR)}",
                f"size^{curve['cpu_exponent']:.2f}",
                " · ".join(f"{point['resident_mb']:.0f}" for point in points) + " MB",
                f"{curve['memory_growth']:.2f} ×, {_met(curve['memory_growth'] <= FLAT)}",
            ]
        )
    title = (
        "**Scale**: the whole program, to the emulated workspace, which keeps the points in memory. Goals: "
        f"time no worse than linear (size^{LINEAR}), memory at most {FLAT} times as much"
    )
    lines = [title, ""]
    return "\n".join([*lines, *["| " + " | ".join(row) + " |" for row in rows]]) + "\n"


def _met(met: bool) -> str:
    return "met" if met else "**not met**"


def table(found: dict[str, Any]) -> str:
    """One comparison as Markdown: one row per side, one line per goal."""
    ours = next(side for side in found["sides"] if side["side"] == found["ours"])
    facts = list(dict.fromkeys(name for side in found["sides"] for name in side["facts"]))
    head = ["", "time", "× ours", "CPU", "resident", *facts, "what it stands for"]
    rows = [head, ["---"] * len(head)]
    for side in found["sides"]:
        limits = [f"from 1/{side['extrapolated']:.0f}"] if side["extrapolated"] != 1 else []
        if (taken := len(side["samples"])) < found["rounds"]:
            limits.append(f"{taken} round{'s' * (taken > 1)}")
        limited = f" ({', '.join(limits)})" if limits else ""
        ratio = side["seconds"] / ours["seconds"] if ours["seconds"] else 0
        rows.append(
            [
                f"**{side['side']}**" if side is ours else side["side"],
                _seconds(side["seconds"]) + limited if side["seconds"] else "",
                f"{ratio:.2f}" if side["seconds"] else "",
                _seconds(side["cpu_seconds"]) if side["cpu_seconds"] else "",
                f"{side['resident_mb']:.0f} MB" if side["resident_mb"] else "",
                *[_number(side["facts"][name]) if name in side["facts"] else "" for name in facts],
                side["stands_for"],
            ]
        )
    title = f"**{found['title']}**, medians of {found['rounds']}."
    lines = [f"{title} {found['note']}".rstrip(), ""]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", *[_goal(goal) for goal in found["goals"]]]
    return "\n".join(lines).rstrip() + "\n"


def _goal(goal: dict[str, Any]) -> str:
    said = f"- {goal['goal']}: {goal['measured']:.2f} {goal['unit']}"
    if goal["met"] is not None:
        said += f", {_met(goal['met'])}"
    return said + (f": {goal['obstacle']}" if goal["obstacle"] else "")


def section(found: dict[str, Any]) -> str:
    """All comparisons as the README shows them."""
    kept = sorted(found["comparisons"].values(), key=lambda item: _place(item["name"]))
    all_of = [*kept, *([found["growth"]] if "growth" in found else [])]
    machines = {json.dumps(item["machine"], sort_keys=True) for item in all_of}
    lines = []
    for text in sorted(machines):
        facts = json.loads(text)
        lines.append(
            f"Taken on {facts['date']} with {facts['cores']} cores and {facts['memory_gib']} GiB of memory, "
            f"{facts['system']}, Python {facts['python']}."
        )
    for item in kept:
        lines += ["", table(item).rstrip()]
    if "growth" in found:
        picture = PICTURE.name
        lines += ["", growth_table(found["growth"]), f"![Time and memory against size]({picture})"]
    return "\n".join(lines) + "\n"


def _place(name: str) -> int:
    return next(index for index, start in enumerate(_ORDER) if name.startswith(start))


def write_readme(readme: Path = README, file: Path = FILE) -> None:
    """Write the section between the README's markers.

    Raises:
        BenchError: the figures or the markers are missing.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"{readme.name} has no lines {BEGIN} and {END}")
    readme.write_text(f"{before}{BEGIN}\n{section(load(file))}{END}{after}", encoding="utf-8")


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2f}"
