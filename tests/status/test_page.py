"""The page of a backlog in a real Chromium: what it shows, with keyboards and screen readers, too.

The sizes and times of a page with 10,000 runs are in entrypoint/backfill.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from aml_mirror.status.curves import POINTS, Curve, Thinned
from aml_mirror.status.page import PageRow, page, write
from builders.browser import Page, browser

HOSTILE = "<script>document.title='run'</script>"
ROWS = [
    PageRow(
        "b/10", "mirrored", "lerobot", "act-pick", (("3", "models:/act-pick/3", " (archived)"),),
        "checkpoints/20", 20, 1.79e9, curve=Curve("eval/success", (0.0, 0.5, 1.0), 1.0, 20),
    ),
    PageRow("b/9", "missing", "skrl", "m", written=1.78e9, why="the run contains no complete checkpoint"),
    PageRow("c", "begun", "skrl", "m", checkpoint="agent_5.pt", step=5, why="not complete"),
    PageRow(HOSTILE, "failed", why="{data} </script><img src=x onerror=\"document.title='why'\">"),
    PageRow("a\u202e\x1b[2J&amp;", "skipped", why="-->"),
]  # fmt: skip
ALL = f"Runs 1 to {len(ROWS)} of {len(ROWS)}"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser that shows the page."""
    folder = tmp_path_factory.mktemp("browser")
    write(page("azure://acct/<b>runs</b>", "MLflow at http://x", ROWS, "Made & done."), folder / "runs.html")
    with browser(folder) as found:
        found.look(1400, 900)
        found.open(folder / "runs.html")
        yield found


def names(shown: Page) -> list[str]:
    found = shown.run("[...document.querySelectorAll('#rows th')].map((one) => one.textContent)")
    assert isinstance(found, list)
    return found


def click(shown: Page, text: str) -> None:
    shown.run(
        f"[...document.querySelectorAll('button')].find((one) => one.textContent.includes({text!r})).click()"
    )


def search(shown: Page, text: str) -> None:
    shown.run("document.getElementById('search').select()")
    shown.type(text) if text else shown.key("Delete", code=46)


def test_names_are_text_and_nothing_is_loaded(shown: Page) -> None:
    assert names(shown) == [HOSTILE, "a\\u202e\\x1b[2J&amp;", "b/9", "b/10", "c"]
    assert shown.run("document.title") == "Runs in azure://acct/<b>runs</b>"
    assert shown.run("document.querySelectorAll('img, b b, link, iframe, #rows script').length") == 0
    whole = shown.run("document.body.textContent")
    assert "{data} </script><img src=x" in whole and "Made & done." in whole
    (own,) = shown.requests()
    assert own.endswith("/runs.html")
    assert shown.complaints() == []
    # Its content security policy blocks even a script that got into the page.
    shown.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.x = 1'}))"
    )
    assert shown.run("window.x") is None
    shown.events.clear()


def test_a_screen_reader_is_told_what_there_is(shown: Page) -> None:
    tree = shown.tree()

    def named(role: str) -> list[str]:
        return [node["name"] for node in tree if node["role"] == role]

    assert named("table") == ["Runs and the versions they became. The buttons in the header sort the table."]
    assert named("columnheader") == [
        "Run", "State", "Framework", "Model", "Checkpoint", "Step", "Last written", "Curve",
        "What is missing",
    ]  # fmt: skip
    assert named("rowheader") == names(shown)
    assert named("searchbox") == ["Search"]
    assert named("heading") == ["Runs in azure://acct/<b>runs</b>"]
    assert {"main", "banner", "contentinfo"} <= {node["role"] for node in tree}
    (curve,) = [name for name in named("image") if name]
    assert curve == "eval/success from 0 to 1, lowest 0, highest 1, last step 20"
    pressed = {
        node["name"]: node.get("pressed") for node in tree if node["role"] == "button" if "pressed" in node
    }
    assert pressed == {
        "all 5": "true", "mirrored 1": "false", "begun 1": "false", "missing 1": "false", "failed 1": "false",
        "skipped 1": "false",
    }  # fmt: skip
    assert named("status") == [""] and ALL in [node["name"] for node in tree]


def test_the_table_is_sorted_by_each_column(shown: Page) -> None:
    def sorted_by() -> list[list[str]]:
        found = (
            "[...document.querySelectorAll('th[aria-sort]')].map((one) => [one.textContent, one.ariaSort])"
        )
        return list(shown.run(found))

    assert sorted_by() == [["Run", "ascending"]]
    click(shown, "Step")
    assert (names(shown)[:2], sorted_by()) == (["c", "b/10"], [["Step", "ascending"]])
    click(shown, "Step")
    # Unknown values stay at the end.
    assert (names(shown)[:2], sorted_by()) == (["b/10", "c"], [["Step", "descending"]])
    for column, first in (
        ("State", "b/10"),
        ("Last written", "b/9"),
        ("Curve", "b/10"),
        ("Framework", "b/10"),
    ):
        click(shown, column)
        assert names(shown)[0] == first, column
    click(shown, "Run")
    assert names(shown)[2:4] == ["b/9", "b/10"]


def test_it_is_searched_by_words_and_by_state(shown: Page) -> None:
    status = "document.getElementById('shown').textContent"
    search(shown, "ACT models:/act-pick/3")
    assert names(shown) == ["b/10"]
    assert shown.run(status) == "Runs 1 to 1 of 1, of 5 in all"
    search(shown, "contains no complete")
    assert names(shown) == ["b/9"]
    click(shown, "mirrored")
    assert shown.run(status) == "No run matches, of 5 in all"
    search(shown, "")
    assert names(shown) == ["b/10"]
    click(shown, "all")
    assert shown.run(status) == ALL


def test_a_keyboard_reaches_everything_and_focus_is_seen(shown: Page) -> None:
    shown.run("document.activeElement.blur(), getSelection().removeAllRanges()")
    shown.run("document.getElementById('states').firstChild.focus()")
    reached = []
    for _ in range(16):
        reached.append(shown.run("document.activeElement.textContent || document.activeElement.id"))
        assert shown.run("getComputedStyle(document.activeElement).outlineStyle") in ("solid", "auto"), (
            reached
        )
        shown.key("Tab", code=9)
    assert reached[:7] == [
        "all 5",
        "✓ mirrored 1",
        "◐ begun 1",
        "○ missing 1",
        "✕ failed 1",
        "– skipped 1",
        "search",
    ]
    assert reached[8:] == [
        "Run", "State", "Framework", "Model", "Checkpoint", "Step", "Last written", "Curve"
    ]  # fmt: skip
    shown.run("document.querySelectorAll('#head button')[0].focus()")
    shown.key("Enter", "\r", 13)
    assert names(shown)[0] == "c"
    shown.key("Enter", "\r", 13)
    assert names(shown)[-1] == "c"


CONTRAST = """
[...document.querySelectorAll('h1, dt, dd, button, label, p, th, td, td small, .state, footer')]
  .filter((one) => one.textContent && one.checkVisibility())
  .map((one) => {
    let around = one;
    while (getComputedStyle(around).backgroundColor === 'rgba(0, 0, 0, 0)' && around.parentElement) around = around.parentElement;
    return [one.textContent.slice(0, 20), getComputedStyle(one).color, getComputedStyle(around).backgroundColor];
  })
"""  # noqa: E501 - JavaScript


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_in_light_and_dark(shown: Page, dark: bool) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text. https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    shown.look(1400, 900, dark)
    found = shown.run(CONTRAST)
    assert len(found) > 40
    assert {text: round(ratio, 2) for text, *colours in found if (ratio := _ratio(*colours)) < 4.5} == {}
    background = shown.run("getComputedStyle(document.body).backgroundColor")
    assert (_light(background) < 0.1) is dark


@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_is_cut_off_in_a_narrow_window(shown: Page, width: int) -> None:
    shown.look(width, 900)
    # The table scrolls by itself; the page does not.
    assert shown.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_many_runs_are_shown_page_by_page(shown: Page, tmp_path: Path) -> None:
    rows = [PageRow(f"run-{number}", "mirrored", step=number) for number in range(10_000)]
    text = page("/runs", "MLflow", rows)
    write(text, tmp_path / "many.html")
    shown.look(1400, 900)
    shown.open(tmp_path / "many.html")
    assert len(names(shown)) == 100 and names(shown)[-1] == "run-99"
    click(shown, "Next")
    assert names(shown)[0] == "run-100"
    assert shown.run("document.getElementById('page').textContent") == "Page 2 of 100"
    click(shown, "Step")
    click(shown, "Step")
    assert names(shown)[0] == "run-9999"
    search(shown, "run-777")
    assert len(names(shown)) == 11


def _light(colour: str) -> float:
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (red, green, blue)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _ratio(one: str, other: str) -> float:
    low, high = sorted((_light(one), _light(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_page_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "runs.html"
    before = os.umask(0o027)
    try:
        write("old", target)
        write("new", target)
    finally:
        os.umask(before)
    assert target.read_text() == "new" and target.stat().st_mode & 0o777 == 0o640
    with pytest.raises(UnicodeEncodeError):
        write("\ud800", target)
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("count", [1, 59, 120, 121, 5000])
def test_a_long_curve_keeps_its_shape(count: int) -> None:
    thinned = Thinned(POINTS)
    for number in range(count):
        thinned.add(float(number))
    values = thinned.values
    assert list(values) == sorted(values) and len(values) <= 2 * POINTS
    assert len(values) == count if count < 2 * POINTS else len(values) >= POINTS
    assert values[0] < count / POINTS and values[-1] >= count - 1 - count / POINTS
