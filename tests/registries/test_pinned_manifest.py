"""The manifest of a version is the one with the registered digest. A truncated answer does not count as a
change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from aml_mirror.core.errors import DataError
from aml_mirror.core.manifest import Manifest, ManifestEntry, identity
from aml_mirror.registries import keys
from aml_mirror.registries.pinned_manifest import ManifestLost, parsed, pinned_manifest
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
    """The answers of a store in order: the bytes of each copy."""

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


def test_each_copy_has_to_be_the_registered_one() -> None:
    wrong = WHOLE.replace(b"a.bin", b"b.bin")
    for answer in ([WHOLE, wrong], [wrong, WHOLE]):
        with pytest.raises(ManifestLost, match="was changed"):
            pinned_manifest(VERSION, Answers(answer, answer))


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({keys.MANIFEST_SHA256: ""}, "was not made by aml-mirror"),
        ({keys.IDENTITY: ""}, "was not made by aml-mirror"),
        ({keys.STATE: "incomplete"}, "is not complete"),
        ({keys.RUN_ID: "run-2"}, "contradict each other"),
        ({keys.CHECKPOINT: "d"}, "contradict each other"),
        ({keys.IDENTITY: "0" * 64}, "contradict each other"),
    ],
)
def test_what_a_version_says_of_itself_is_compared_before_anything_is_read(
    tags: dict[str, str], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        pinned_manifest(replace(VERSION, tags={**VERSION.tags, **tags}), Answers())


def _with(**changed: Any) -> bytes:
    found = json.loads(WHOLE)
    found["files"][0].update(changed)
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    "data",
    [
        json.dumps({**json.loads(WHOLE), "schema": "aml-mirror/manifest/v2"}).encode(),
        # In Python True equals 1, so an unchecked digest of it would match as well.
        _with(bytes=True),
        _with(bytes="1"),
        _with(path=1),
        _with(md5=1),
        _with(sha256=None, etag=MANIFEST.items[0].sha256),
        _with(sha256="", etag=MANIFEST.items[0].sha256),
    ],
)
def test_what_has_another_form_is_no_manifest(data: bytes) -> None:
    assert parsed(WHOLE) == MANIFEST
    assert parsed(data) is None
