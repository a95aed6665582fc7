"""The one fixture that every layout's tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree


@pytest.fixture
def tree() -> Callable[[Path], Tree]:
    """``tree(path)``: the tree of a directory of this machine, as the layouts see it."""

    def build(path: Path) -> Tree:
        source = LocalSource(path)
        return Tree(source, source.scan())

    return build
