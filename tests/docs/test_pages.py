"""The pages: every link and anchor leads somewhere, and the first page stays short."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

from aml_mirror.layouts.known_layouts import BUILT_IN

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    # Files of real runs, unchanged.
    if name and not name.startswith("tests/data/")
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|^    .*?$|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub generates for the headings of a page."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE
    )
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(_CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_first_page_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 8 * 1024


def test_the_versions_that_work_together_are_those_of_the_files() -> None:
    rows = dict(
        re.findall(r"^\| ([^|]+?) \| ([^|]+?) \| .* \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    )
    project = (ROOT / "pyproject.toml").read_text()
    assert f'requires-python = ">={rows["Python"].split()[0]}"' in project
    newest_mlflow = re.search(r"mlflow-skinny==(\d+\.\d+)", project)
    page = (ROOT / "entrypoint/aml_mirror/registries/mlflow/README.md").read_text()
    oldest = rows["MLflow servers"].split()[0]
    assert newest_mlflow and f"| {newest_mlflow[1]}" in page and f" {oldest}." in page
    terraform = re.search(r'required_version = ">= ([\d.]+)"', (ROOT / "terraform/terraform.tf").read_text())
    assert terraform and rows["Terraform"].split()[0] == terraform[1]
    grammar = (ROOT / "tests/osmo/osmo_grammar.py").read_text()
    for version in rows["OSMO"].split(", "):
        assert f'"{version}"' in grammar
    charts = (ROOT / "terraform/README.md").read_text()
    assert all(f"| {chart} |" in charts for chart in ("service 1.3", "service 1.4", "osmo 0.1"))
    oldest_kubernetes = rows["Kubernetes, for the watcher's CronJob"].split()[0]
    assert f'"{oldest_kubernetes}"' in (ROOT / "tests/watch/test_manifest.py").read_text()


def test_the_number_of_layouts_is_right() -> None:
    (stated,) = re.findall(r"how (\d+) frameworks arrange a run", (ROOT / "README.md").read_text())
    assert int(stated) == len(BUILT_IN) - 1  # without the generic layout
