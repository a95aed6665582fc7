"""Which verdict on a version is trusted: that of this scanner or a newer one, or else a new scan."""

from __future__ import annotations

from pathlib import Path

import pytest

from aml_mirror.pipeline.current_verdict import Verdict, current_verdict, recorded_verdict
from aml_mirror.registries.records import Version
from aml_mirror.safety.verdict import Safety, inspect
from aml_mirror.safety.words import SCANNER
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree

OLDER, NEWER = str(int(SCANNER) - 1), str(int(SCANNER) + 1)


@pytest.mark.parametrize(
    "tags, word, scans",
    [
        ({"safety": "no-code", "safety.scanner": SCANNER}, "no-code", 0),
        ({"safety": "no-code", "safety.scanner": NEWER}, "no-code", 0),
        ({"safety": "no-code", "safety.scanner": OLDER}, "code", 1),
        ({"safety": "no-pickle"}, "code", 1),
        ({}, "code", 1),
        ({"safety": "no-code", "safety.scanner": "soon"}, "code", 1),
        ({"safety": "no-code", "safety.scanner": SCANNER, "mirror.safety": "suspicious"}, "code", 1),
        (
            {"safety": "suspicious", "mirror.safety": "pickle-clean", "mirror.safety_scanner": SCANNER},
            "pickle-clean",
            0,
        ),
    ],
)
def test_only_a_verdict_of_an_older_scanner_is_scanned_again(
    tmp_path: Path, tags: dict[str, str], word: str, scans: int
) -> None:
    (tmp_path / "policy.py").write_text("class Policy: ...\n")
    source = LocalSource(tmp_path)
    tree = Tree(source, source.scan())
    scanned: list[Safety] = []

    def scan() -> Safety:
        scanned.append(inspect(tree, ["policy.py"], ["policy.py"]))
        return scanned[-1]

    kept: list[dict[str, str]] = []
    verdict = current_verdict(Version("walker", "1", tags), scan, lambda version, tags: kept.append(tags))
    assert (verdict.word, len(scanned), len(kept)) == (word, scans, scans)
    assert verdict.is_current
    assert verdict.is_harmless == (word != "code")
    if scans:
        assert verdict.safety is scanned[0]
        assert kept == [{"mirror.safety": "code", "mirror.safety_scanner": SCANNER}]
        # The next scan reads the stored verdict.
        assert recorded_verdict(Version("walker", "1", {**tags, **kept[0]})).is_current


def test_a_harmless_verdict_of_an_older_scanner_is_not_believed() -> None:
    assert Verdict("no-code", SCANNER).is_harmless and Verdict("no-code", NEWER).is_harmless
    for verdict in (Verdict("no-code", OLDER), Verdict("no-code", ""), Verdict("code", SCANNER)):
        assert not verdict.is_harmless
