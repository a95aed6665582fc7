"""The picture on a card: the same points produce the same bytes, and any points can be drawn."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest

from aml_mirror.metrics.summaries import Series
from aml_mirror.pipeline.curves import MOST, Curves, main_curves

Rows = list[tuple[int, float]]


def series(name: str, rows: Rows) -> Series:
    found = Series(name=name, tag=name, folder="")
    for step, value in rows:
        found.add(step, value)
    return found


def picture(**named: Rows) -> str:
    drawn = Curves([series(name, rows) for name, rows in named.items()])
    for name, rows in named.items():
        for step, value in rows:
            drawn.take((name, value, 0, step))
    return drawn.svg()


def test_the_curves_are_those_that_a_person_looks_at() -> None:
    rows = [(1, 0.0), (2, 1.0)]
    names = (
        "time/fps",
        "train/loss",
        "eval/success",
        "z/other",
        "Episode/mean_reward",
        "reward/part",
        "epoch",
    )
    chosen = [one.name for one in main_curves([series(name, rows) for name in names])]
    assert chosen == ["eval/success", "Episode/mean_reward", "train/loss", "reward/part"]
    assert len(chosen) == MOST
    assert main_curves([series("loss", [(5, 1.0)])]) == [], "one point is no curve"


def test_the_same_points_give_the_same_bytes_however_many_there_are() -> None:
    rows = [(step, math.sin(step / 900) + step % 7) for step in range(100_000)]
    first = picture(loss=rows)
    assert first == picture(loss=rows)
    assert len(first) < 40_000
    root = ET.fromstring(first)
    assert root.get("width") == "600"
    assert next(root.iter("{http://www.w3.org/2000/svg}text")).text == "loss"


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 0.0, 0.0],
        [5.0, math.nan, math.inf, -math.inf, 5.0],
        [-1.7e308, 1.7e308],
        [1.7e308, 1.7e308, 1.7e308],
        [5e-324, 0.0],
        [1e-12, 1.0 + 1e-12],
        [1e15, 1e15 + 0.125],
        [-3.0, -2.0],
    ],
)
def test_odd_values_are_drawn_within_the_picture(values: list[float]) -> None:
    drawn = picture(loss=[(step * 1000, value) for step, value in enumerate(values)])
    root = ET.fromstring(drawn)
    assert not re.search(r"nan|inf", drawn.replace("info", ""))
    for number in re.findall(r"[ML ](-?\d+\.?\d*) (-?\d+\.?\d*)", " ".join(
        path.get("d", "") for path in root.iter("{http://www.w3.org/2000/svg}path")
    )):  # fmt: skip
        assert all(-1 <= float(one) <= 601 for one in number), number


def test_nothing_that_can_be_drawn() -> None:
    assert picture(loss=[(1, math.nan), (2, math.nan)]) == ""
    assert picture(loss=[(7, 1.0)]) == ""


def test_a_name_is_text() -> None:
    drawn = picture(**{'loss </text><script>"&': [(1, 1.0), (2, 2.0)]})
    assert "<script" not in drawn
    assert ET.fromstring(drawn) is not None
