"""The suites of every registry and every source, for those of another package."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from aml_mirror.core.settings import Settings
from aml_mirror.registries import registry
from aml_mirror.sources import registry as sources
from builders.registry_conformance import RegistryConformance
from builders.source_conformance import Place, SourceConformance

PACKAGE = Path(__file__).parent / "third_party"


class TestShelf(RegistryConformance):
    @pytest.fixture
    def target(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
        monkeypatch.syspath_prepend(str(PACKAGE))
        from aml_mirror_example.registry import ShelfType  # type: ignore[import-not-found]

        monkeypatch.setattr(registry, "registry_types", lambda: (*registry.BUILT_IN, ShelfType()))
        return Settings(tracking_uri=f"shelf://{tmp_path}/shelf", model_name="conformance")


class TestZip(SourceConformance):
    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
        monkeypatch.syspath_prepend(str(PACKAGE))
        from aml_mirror_example.source import ZipType  # type: ignore[import-not-found]

        monkeypatch.setattr(sources, "source_types", lambda: (*sources.BUILT_IN, ZipType()))

        def place(run: Path) -> str:
            archive = shutil.make_archive(str(tmp_path / "archive" / run.name), "zip", run)
            return f"zip://{archive}"

        return place


def test_the_package_is_not_in_the_environment_of_the_tests() -> None:
    assert "aml_mirror_example" not in sys.modules or PACKAGE.as_posix() in str(
        sys.modules["aml_mirror_example"].__file__
    )
