"""What every source must do: a class of tests, and a fixture ``place`` that makes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.core.errors import DataError, SourceNotFound
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.locate import locate
from aml_mirror.sources.base import Source
from aml_mirror.sources.registry import open_source
from builders.runs import huggingface_run

Place = Callable[[Path], str]
"""Copies a folder's files to the place of the source, and returns the value of --source."""


class SourceConformance:
    """Inherit from it, with a fixture ``place`` of the type :data:`Place`."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        return huggingface_run(tmp_path / "conformance-run", points=3)

    def opened(self, uri: str) -> Source:
        return open_source(Settings(source=uri))

    def test_it_lists_every_file_with_its_size(self, place: Place, run: Path) -> None:
        listing = self.opened(place(run)).scan()
        sizes = {path: entry.bytes for path, entry in listing.files.items()}
        files = [path for path in run.rglob("*") if path.is_file()]
        assert sizes == {path.relative_to(run).as_posix(): path.stat().st_size for path in files}
        assert all(entry.path == path and entry.stamp for path, entry in listing.files.items())
        assert not listing.refused and not listing.unknown

    def test_it_reads_whole_files_and_ranges(self, place: Place, run: Path) -> None:
        source = self.opened(place(run))
        entry = source.scan().files["checkpoint-20/model.safetensors"]
        data = (run / entry.path).read_bytes()
        with source.open(entry) as stream:
            assert stream.read() == data
            stream.seek(8)
            assert stream.read(5) == data[8:13]
        assert source.read(entry, 8, 5) == data[8:13]
        assert source.read(entry, len(data) - 3, 100) == data[-3:]

    def test_it_knows_whether_a_file_is_the_listed_one(self, place: Place, run: Path) -> None:
        source = self.opened(place(run))
        entries = source.scan().files
        weights, config = (entries[f"checkpoint-20/{name}"] for name in ("model.safetensors", "config.json"))
        assert source.is_unchanged(weights) and source.changed([weights, config]) == []
        (run / weights.path).write_bytes(b"other bytes" * 100)
        place(run)
        assert not source.is_unchanged(weights)
        assert source.changed([weights, config])[:1] == [weights.path]
        with pytest.raises(DataError):
            source.read(weights, 0, 10)
        with pytest.raises(DataError), source.open(weights) as stream:
            stream.read()

    def test_it_is_named_after_the_run_and_shown_by_a_uri(self, place: Place, run: Path) -> None:
        uri = place(run)
        source = self.opened(uri)
        assert source.name == "conformance-run"
        assert source.uri == uri

    def test_a_run_is_located_in_it(self, place: Place, run: Path) -> None:
        located = locate(self.opened(place(run)), Settings())
        assert located.run_id == "conformance-run"
        assert located.detected.layout.name == "huggingface"
        assert located.run.checkpoints[0].path == "checkpoint-20"

    def test_where_nothing_is_there_is_no_source(self, place: Place, run: Path) -> None:
        uri = place(run).replace("conformance-run", "no-such-run")
        with pytest.raises(SourceNotFound):
            self.opened(uri).scan()
