"""The pages of a version and its run in a real MLflow UI, in a real browser."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from builders.browser import Page, browser
from builders.program import Call
from builders.runs import huggingface_run

HOSTILE = {
    "link": "[click](http://evil.example/a)",
    "picture": "![x](http://evil.example/x.png)",
    "script": "<script>window.harmed = 1</script><img src=x onerror='window.harmed = 1'>",
    "bare": "http://evil.example/bare www.evil.example mail@evil.example",
    "marks": "**bold** _it_ `code` # head",
}
# The rendered card: its text, the addresses of its links and pictures, and whether the picture has loaded.
CARD = """
(() => {
  const heads = [...document.querySelectorAll('h2')].filter(one => one.innerText.trim() === 'Provenance');
  if (!heads.length) return null;
  const card = heads[0].parentElement, pictures = [...card.querySelectorAll('img')];
  if (!pictures.every(one => one.complete)) return null;
  return {
    text: card.innerText,
    links: [...card.querySelectorAll('a')].map(one => one.getAttribute('href')),
    pictures: pictures.map(one => [one.getAttribute('src'), one.naturalWidth]),
    odd: [...card.querySelectorAll('script, iframe, em, code')].map(one => one.innerText),
    bold: [...card.querySelectorAll('strong')].map(one => one.innerText),
    harmed: window.harmed || 0,
  };
})()
"""


def shown(page: Page, address: str, script: str) -> Any:
    """Open a page and return the result of a script, once it finds something."""
    page.call("Page.navigate", url=address)
    while (found := page.run(script)) is None:
        time.sleep(0.2)
    return found


def test_the_card_in_a_browser(aml_mirror: Call, mlflow_url: str, model_name: str, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run_*7*_<b>x", series=("train/loss", "eval/success_rate"))
    tags = [part for name, value in HOSTILE.items() for part in ("--tag", f"{name}={value}")]
    receipt = aml_mirror(
        "--source", run, "--model-name", model_name, "--tracking-uri", mlflow_url, *tags
    ).json  # fmt: skip
    with browser(tmp_path) as page:
        page.look(1200, 1400)
        card = shown(page, receipt["version_page"], CARD)
        assert card["text"].startswith(model_name)
        for part in (*HOSTILE.values(), run.name, "saved at step 20", "Key parameters", "aml-mirror pull"):
            assert part in card["text"], part
        # No text of a run became a link, a picture or markup.
        assert len(card["links"]) == 2 and all(link.startswith(mlflow_url) for link in card["links"])
        ((address, width),) = card["pictures"]
        assert address == f"get-artifact?run_uuid={receipt['mlflow_run_id']}&path=curves.svg"
        assert width == 600, "the server did not give the picture"
        assert card["harmed"] == 0
        assert set(card["odd"]) <= {f"aml-mirror pull {model_name}:VERSION FOLDER", "tensorboard/"}
        assert "bold" not in card["bold"]
        # The links lead to existing pages.
        heading = (
            f"[...document.querySelectorAll('h1, h2')].some(one => one.innerText.includes({run.name!r}))"
        )
        assert shown(page, receipt["run_page"], f"{heading} || null")
        assert receipt["run_page"] in card["links"]
