"""Files from the newest frameworks get the verdicts in ``verdicts.json``.

``make test-frameworks`` generates all files (FRAMEWORK_FILES names their folder). Without it, the test uses
the small ones in tests/data/benign. Its README names the versions that wrote them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

from aml_mirror.safety.file_scan import scan_file
from aml_mirror.safety.words import SUSPICIOUS, UNKNOWN
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree

HERE = Path(__file__).parent
STORED = HERE.parent / "data" / "benign"
TABLE: dict[str, str] = json.loads((HERE / "verdicts.json").read_text())


def row_of(path: str) -> str:
    return next((row for row in TABLE if fnmatchcase(path, row)), "")


def test_every_file_is_judged_as_the_table_states() -> None:
    source = LocalSource(Path(os.environ.get("FRAMEWORK_FILES", STORED)))
    tree = Tree(source, source.scan())
    files = [scan_file(tree, path) for path in tree.files if path.rpartition("/")[2] != "SOURCE.md"]
    wrong = {
        file.path: (file.safety, file.problems[:2])
        for file in files
        if TABLE.get(row_of(file.path)) != file.safety
    }
    assert wrong == {}
    assert len(files) >= (60 if "FRAMEWORK_FILES" in os.environ else 50)
    assert all(not file.problems or "." in file.problems[0] for file in files), (
        "code is named with its module"
    )


def test_at_most_two_per_cent_are_false_alarms() -> None:
    counts = Counter(TABLE.values())
    assert len(TABLE) >= 60
    assert counts[SUSPICIOUS] + counts[UNKNOWN] <= len(TABLE) / 50
