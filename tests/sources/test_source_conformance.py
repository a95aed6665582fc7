"""The suite of every source, for folders."""

from __future__ import annotations

import pytest

from builders.source_conformance import Place, SourceConformance


class TestLocal(SourceConformance):
    @pytest.fixture
    def place(self) -> Place:
        return str
