"""The manifest of a version: the one with the registered digest, and an answer that was cut is no change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from aml_mirror.core.manifest import Manifest, ManifestEntry, identity
from aml_mirror.registries import keys
from aml_mirror.registries.pinned_manifest import ManifestLost, pinned_manifest
from aml_mirror.registries.records import Version

MANIFEST = Manifest((ManifestEntry("", "a.bin", 1, hashlib.sha256(b"a").hexdigest()),))
WHOLE = MANIFEST.as_json().encode()
VERSION = Version(
    "act",
    "1",
    {
        keys.RUN_ID: "run-1",
        keys.CHECKPOINT: "c",
        keys.MANIFEST_SHA256: MANIFEST.sha256,
        keys.IDENTITY: identity("run-1", "c", MANIFEST.sha256),
        "mirror.state": "complete",
    },
)


class Answers:
    """What a store answers, one after the other: the bytes of each copy."""

    def __init__(self, *answers: list[bytes]) -> None:
        self.left = list(answers)

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        yield from self.left.pop(0)


@pytest.mark.parametrize("copies", [1, 2])
def test_an_answer_that_was_cut_is_asked_for_again(copies: int) -> None:
    cut = [WHOLE] * (copies - 1) + [WHOLE[:-7]]
    answers = Answers(cut, [WHOLE] * copies)
    assert pinned_manifest(VERSION, answers).sha256 == MANIFEST.sha256
    assert answers.left == []


@pytest.mark.parametrize("wrong", [WHOLE[:-7], WHOLE.replace(b"a.bin", b"b.bin"), b""])
def test_one_that_stays_wrong_was_changed(wrong: bytes) -> None:
    answers = Answers([wrong], [wrong])
    with pytest.raises(ManifestLost, match="was changed"):
        pinned_manifest(VERSION, answers)
    assert answers.left == []


def test_one_that_is_not_there_is_missing() -> None:
    with pytest.raises(ManifestLost, match="is missing"):
        pinned_manifest(VERSION, Answers([]))
