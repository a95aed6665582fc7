"""The card shows names and values of a run literally: they cannot add links, pictures or markup.

The page of a version was checked with MLflow 3.15 in Chromium: none of these texts became an element.
"""

# ruff: noqa: E501 - a table

from __future__ import annotations

import html
import re

import pytest
from markdown_it import MarkdownIt

from aml_mirror.support.markdown import cell

HOSTILE = (
    "![x](http://evil.example/x.png)", "[click](javascript:alert(1))", "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>", "https://evil.example/a_b", "www.evil.example", "a@b.example", "a|b", "# h",
    "<https://evil.example>", "&lt;b&gt;", "[x]: http://evil.example", "mailto:a@b.example", "~~s~~", "**b**",
    "model_200_x_y.pt", "`code`", "- item", "+ item", "=====", "---", "a\\", "\\[x](y)", "![a][b]", "a\n# b",
    "ftp://evil.example", "HTTPS://EVIL.example", "WWW.evil.example", "$x$", "a\u2028b", "http&#58;//evil.example",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("around", ["| name | {} |", "- {}", "# {}"])
def test_what_a_run_is_called_is_shown_and_does_nothing(text: str, around: str) -> None:
    card = "| | |\n|---|---|\n" * around.startswith("|") + around.format(cell(text)) + "\n"
    shown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(card)
    tags = set(re.findall(r"<(/?[a-z0-9]+)", shown))
    assert tags <= {"table", "thead", "tbody", "tr", "th", "td", "/table", "/thead", "/tbody", "/tr", "/th", "/td",
                    "ul", "li", "/ul", "/li", "h1", "/h1"}, shown  # fmt: skip
    plain = html.unescape(re.sub(r"<[^>]*>", "", shown))
    expected = "".join(char if char.isprintable() else " " for char in text).strip()
    assert expected in plain


@pytest.mark.parametrize("text", HOSTILE)
def test_no_address_is_left_that_a_renderer_would_link(text: str) -> None:
    # GitHub, Azure ML's page and Showdown search the source for these, ignoring escapes.
    assert not re.search(r"(?i)\b[a-z]+://|\bwww\.|\bmailto:|\w@\w", cell(text).replace("azure://", ""))
