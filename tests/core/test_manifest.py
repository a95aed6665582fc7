"""manifest.py: the files of a version, and when two mirrors count as the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aml_mirror.core.manifest import Manifest, ManifestEntry, identity

HASHED = ManifestEntry("run/m.pt", "m.pt", 3, "aa", etag="e1")


@pytest.mark.parametrize(
    "other",
    [
        ManifestEntry("x", "n.pt", 3, "aa"),
        ManifestEntry("x", "m.pt", 4, "aa"),
        ManifestEntry("x", "m.pt", 3, "ab"),
        ManifestEntry("x", "m.pt", 3, None, etag="e1"),
    ],
)
def test_path_size_and_digest_make_another_manifest(other: ManifestEntry) -> None:
    assert Manifest((other,)).sha256 != Manifest((HASHED,)).sha256


def test_place_etag_and_evidence_make_no_other_manifest() -> None:
    same = ManifestEntry("elsewhere", "m.pt", 3, "aa", md5="5", etag="e2", evidence="copied")
    assert Manifest((same,)).sha256 == Manifest((HASHED,)).sha256


def test_the_etag_counts_only_where_there_is_no_digest() -> None:
    copied = [
        Manifest((ManifestEntry("x", "m.pt", 3, None, etag=etag, evidence="copied"),))
        for etag in ("e1", "e2")
    ]
    assert copied[0].sha256 != copied[1].sha256
    assert copied[0].integrity == "copied" == Manifest((HASHED, copied[0].items[0])).integrity


def test_the_document_names_every_file_as_the_manifest_entry_says() -> None:
    document = json.loads(Manifest((HASHED,)).as_json())
    assert document["files"] == [
        {"path": "m.pt", "bytes": 3, "sha256": "aa", "md5": None, "etag": "e1", "evidence": "hashed"}
    ]
    assert document["manifest_sha256"] == Manifest((HASHED,)).sha256 and document["bytes"] == 3


@given(one=st.tuples(*[st.text()] * 3), other=st.tuples(*[st.text()] * 3))
def test_identity_is_the_run_the_checkpoint_and_the_digest_and_nothing_runs_together(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert (identity(*one) == identity(*other)) == (one == other)
    assert len(identity(*one)) == 64 and identity("a", "bc", "d") != identity("ab", "c", "d")
