"""What counts as a change of a run in blob storage. The blobs are in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.credentials import AzureSasCredential

from aml_mirror.core.errors import DataError, MirrorError, ServiceUnavailable, SourceNotFound
from aml_mirror.sources.azure_blob import BlobSource
from aml_mirror.sources.base import Entry
from builders.blobs import Blobs, refusal

DATA = bytes(range(100))


@pytest.fixture
def blobs() -> Blobs:
    return Blobs()


@pytest.fixture
def source(blobs: Blobs) -> BlobSource:
    found = BlobSource("azure://lab/runs/run", credential=AzureSasCredential("sig=x"))
    found.container = blobs  # type: ignore[assignment]
    return found


def entries(source: BlobSource) -> dict[str, Entry]:
    return source.scan().files


@pytest.mark.parametrize("count", [1, 7, 8, 20])
def test_a_blob_that_is_another_one_or_gone_was_changed(blobs: Blobs, source: BlobSource, count: int) -> None:
    """A few are asked for one by one, many with a listing."""
    for number in range(count):
        blobs.put(f"run/{number:02}", DATA)
    seen, listed = list(entries(source).values()), blobs.listed
    assert source.changed(seen) == []
    assert blobs.listed == listed + (count >= 8)
    blobs.put("run/00", DATA)
    assert source.changed(seen) == ["00"]
    del blobs.data["run/00"]
    assert source.changed(seen) == ["00"]


def test_a_blob_that_cannot_be_asked_for_is_not_called_unchanged(
    blobs: Blobs, source: BlobSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs.put("run/a", DATA)
    entry = entries(source)["a"]

    def refuse(name: str) -> Any:
        raise refusal(403, "AuthorizationPermissionMismatch")

    monkeypatch.setattr(blobs, "properties", refuse)
    for ask in (source.is_unchanged, source.grown, lambda entry: source.changed([entry])):
        with pytest.raises(MirrorError, match="no data role"):
            ask(entry)


def test_a_log_that_grew_is_the_same_one(blobs: Blobs, source: BlobSource) -> None:
    blobs.put("run/events", DATA)
    entry = entries(source)["events"]
    etag = blobs.put("run/events", DATA + b"more")
    longer = source.grown(entry)
    assert longer is not None and (longer.bytes, longer.stamp) == (104, etag)
    assert not source.is_unchanged(entry) and source.is_unchanged(longer)
    blobs.put("run/events", DATA[:-1])
    assert source.grown(entry) is None
    del blobs.data["run/events"]
    assert source.grown(entry) is None


def test_every_read_is_bound_to_the_blob_that_was_listed(blobs: Blobs, source: BlobSource) -> None:
    blobs.put("run/a", DATA)
    entry = entries(source)["a"]
    assert source.read(entry, 90, 99) == DATA[90:] and source.read(entry, 100, 5) == b""
    blobs.put("run/a", DATA[::-1])
    fresh = BlobSource("azure://lab/runs/run", credential=AzureSasCredential("sig=x"))
    fresh.container = blobs  # type: ignore[assignment]
    # What was read already is remembered.
    reads: list[Callable[[], object]] = [lambda: fresh.read(entry, 0, 5), lambda: fresh.open(entry).read()]
    for read in reads:
        with pytest.raises(DataError, match="azure://lab/runs/run/a changed while it was read"):
            read()


def test_an_answer_that_is_too_short_is_asked_for_again(blobs: Blobs, source: BlobSource) -> None:
    blobs.put("run/a", DATA)
    entry = entries(source)["a"]
    blobs.data["run/a"] = DATA[:50]
    with pytest.raises(ServiceUnavailable, match="sent 50 of 100 bytes of a"):
        source.open(entry).read()


def test_folders_and_names_that_are_no_paths_are_no_files(blobs: Blobs, source: BlobSource) -> None:
    for name in ("run/a", "run/folder/", "run/marked", "run/x//y", "run/../z", "runner/b", "run/sub/c"):
        blobs.put(name, DATA)
    blobs.metadata["run/marked"] = {"hdi_isFolder": "true"}
    listing = source.scan()
    assert sorted(listing.files) == ["a", "sub/c"]
    assert sorted(listing.refused) == ["../z", "x//y"]
    blobs.data.clear()
    with pytest.raises(SourceNotFound, match="nothing below azure://lab/runs/run"):
        source.scan()
    blobs.put("run", DATA)
    with pytest.raises(SourceNotFound, match="is a single blob, not a folder"):
        source.scan()
