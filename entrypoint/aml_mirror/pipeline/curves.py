"""The picture on a model card: the main curves of a run, as SVG.

It is drawn here, with the standard library's ElementTree, which escapes its output. Libraries were
considered: matplotlib would add some 90 MB to an image that has no numpy; pygal 3.1 draws only one scale per
picture and writes the date into each; svg.py only names elements. All we need is a line, a band and two axes.

The same points give the same bytes. Points are not held in memory: each series is divided into ``_COLUMNS``
columns while its points are read, and drawn as the mean of each column, with a band from the smallest to the
largest value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from aml_mirror.metrics.series_names import goal, usefulness
from aml_mirror.metrics.summaries import Series
from aml_mirror.registries.records import Point

ARTIFACT = "curves.svg"
MOST = 4
"""The number of curves in one picture."""

_COLUMNS = 200
_WIDTH = 600
# The size of one panel, in pixels. If there are more than two, they are drawn in two columns.
_HEIGHT = {1: 220, 2: 170, 3: 180, 4: 180}
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 24, 30, 24
_TEXT, _FAINT, _GRID, _LINE = "#222222", "#555555", "#dddddd", "#1f5fa8"
# Beyond these, the difference of two values may exceed a float.
_MOST, _LEAST = 1e300, 1e-300
_UPKEEP = 3
"""The class of clocks and counters: see :func:`usefulness`."""


@dataclass(slots=True)
class _Column:
    count: int = 0
    total: float = 0.0
    least: float = math.inf
    most: float = -math.inf


@dataclass(slots=True)
class Curve:
    """One series in the picture."""

    name: str
    first: int
    last: int
    columns: dict[int, _Column] = field(default_factory=dict)

    def add(self, step: int, value: float) -> None:
        """Add one point. One that is not finite is not drawn."""
        if not math.isfinite(value):
            return
        value = min(max(value, -_MOST), _MOST)
        at = min(max((step - self.first) * (_COLUMNS - 1) // max(self.last - self.first, 1), 0), _COLUMNS - 1)
        column = self.columns.setdefault(at, _Column())
        column.count += 1
        column.total += value
        column.least, column.most = min(column.least, value), max(column.most, value)


class Curves:
    """The main curves of a run. :meth:`take` receives its points."""

    def __init__(self, series: Sequence[Series]) -> None:
        self._curves = {
            one.name: Curve(one.name, one.first_step, one.last_step) for one in main_curves(series)
        }

    def take(self, point: Point) -> None:
        """Add one point."""
        if (curve := self._curves.get(point[0])) is not None:
            curve.add(point[3], point[1])

    def svg(self) -> str:
        """Return the picture; empty: there is nothing to draw."""
        curves = [curve for curve in self._curves.values() if len(curve.columns) > 1]
        return _picture(curves) if curves else ""


def main_curves(series: Sequence[Series]) -> list[Series]:
    """Choose the series that a person would look at, first one for each goal (success, reward, …)."""
    ranked = sorted(
        (one for one in series if one.last_step > one.first_step and usefulness(one.tag)[0] < _UPKEEP),
        key=lambda one: (usefulness(one.tag), one.name),
    )
    chosen: list[Series] = []
    seen: set[int] = set()
    for one in ranked:
        aim = goal(one.tag)
        if aim is not None and aim[0] not in seen:
            seen.add(aim[0])
            chosen.append(one)
    chosen += [one for one in ranked if one not in chosen]
    return chosen[:MOST]


def _picture(curves: list[Curve]) -> str:
    across = 1 if len(curves) <= 2 else 2
    height = _HEIGHT[len(curves)]
    width = _WIDTH // across
    whole = height * -(-len(curves) // across)
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "width": f"{_WIDTH}",
            "height": f"{whole}",
            "viewBox": f"0 0 {_WIDTH} {whole}",
            "role": "img",
            "font-family": "Helvetica, Arial, sans-serif",
            "font-size": "12",
        },
    )
    ET.SubElement(root, "title").text = "Curves of " + ", ".join(_shown(curve.name) for curve in curves)
    _element(root, "rect", width=_WIDTH, height=whole, fill="#ffffff")
    for number, curve in enumerate(curves):
        x, y = width * (number % across), height * (number // across)
        panel = ET.SubElement(root, "g", {"transform": f"translate({x} {y})"})
        _draw(panel, curve, width, height)
    return ET.tostring(root, encoding="unicode") + "\n"


def _draw(panel: ET.Element, curve: Curve, width: int, height: int) -> None:
    columns = sorted(curve.columns.items())
    low = min(column.least for _, column in columns)
    high = max(column.most for _, column in columns)
    if high - low <= max(abs(low), abs(high), _LEAST) * 1e-9:
        half = max(abs(low), abs(high), _LEAST) / 2
        low, high = low - half, high + half
    inner_width, inner_height = width - _LEFT - _RIGHT, height - _TOP - _BOTTOM

    def x_of(step: float) -> float:
        return _LEFT + inner_width * (step - curve.first) / (curve.last - curve.first)

    def y_of(value: float) -> float:
        return _TOP + inner_height * (1 - (value - low) / (high - low))

    def at(column: int) -> float:
        return _LEFT + inner_width * column / (_COLUMNS - 1)

    _text(panel, _shown(curve.name, width // 7), _LEFT, 18, fill=_TEXT, font_weight="bold")
    for value in _ticks(low, high, max(3, inner_height // 28)):
        y = y_of(value)
        _element(panel, "path", d=f"M{_LEFT} {y:.1f}h{inner_width}", stroke=_GRID)
        _text(panel, _number(value), _LEFT - 6, y + 4, fill=_FAINT, text_anchor="end")
    bottom = _TOP + inner_height
    _element(panel, "path", d=f"M{_LEFT} {bottom}h{inner_width}", stroke=_FAINT)
    ticks = _ticks(curve.first, curve.last, max(3, inner_width // 80))
    for step in ticks:
        x = x_of(step)
        _element(panel, "path", d=f"M{x:.1f} {bottom}v4", stroke=_FAINT)
        _text(panel, _number(step), x, bottom + 17, fill=_FAINT, text_anchor="middle")
    if any(column.count > 1 for _, column in columns):
        above = [f"{at(number):.1f} {y_of(column.most):.1f}" for number, column in columns]
        below = [f"{at(number):.1f} {y_of(column.least):.1f}" for number, column in reversed(columns)]
        _element(panel, "path", d=f"M{'L'.join(above + below)}Z", fill=_LINE, fill_opacity="0.2")
    means = (f"{at(number):.1f} {y_of(_mean(column)):.1f}" for number, column in columns)
    _element(
        panel, "path", d=f"M{'L'.join(means)}", fill="none", stroke=_LINE, stroke_width="2",
        stroke_linejoin="round",
    )  # fmt: skip


def _mean(column: _Column) -> float:
    # Rounding may move it out of the column.
    return min(max(column.total / column.count, column.least), column.most)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Return round values between two others, at most ``count`` + 1 of them."""
    unit = 10.0 ** math.floor(math.log10((high - low) / count))
    step = next(unit * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (unit * factor) <= count)
    first = math.ceil(low / step)
    edge = step * 1e-6
    found = (step * number for number in range(first, first + count + 2))
    return [value for value in found if low - edge <= value <= high + edge]


def _number(value: float) -> str:
    size = abs(value)
    for unit, mark in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if unit <= size < 1e12:
            return f"{value / (1e3 if mark == 'k' else unit):.4g}{mark}"
    return f"{value:.4g}"


def _shown(name: str, length: int = 60) -> str:
    """Return a name without characters that XML does not allow, cut in the middle."""
    plain = "".join(char if char.isprintable() else " " for char in name)
    keep = (length - 1) // 2
    return plain if len(plain) <= length else f"{plain[:keep]}…{plain[-keep:]}"


def _text(parent: ET.Element, text: str, x: float, y: float, **more: str) -> None:
    _element(parent, "text", x=f"{x:.1f}", y=f"{y:.1f}", **more).text = text


def _element(parent: ET.Element, name: str, **attributes: object) -> ET.Element:
    named = {key.replace("_", "-"): str(value) for key, value in attributes.items()}
    return ET.SubElement(parent, name, named)
