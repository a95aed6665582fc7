"""What verify reports when any part of a version has changed. The version is a dictionary here."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace

import pytest

from aml_mirror.core.manifest import Manifest
from aml_mirror.support.progress import Console
from aml_mirror.verify.verify import Verification, verify_version
from builders.stored_version import StoredVersion, entry, sha256

WEIGHTS, CONFIG = b"weights" * 9, b"{}"


def verified(stored: StoredVersion) -> Verification:
    return verify_version(stored.registry, stored.version, [], Console(io.StringIO()))


@pytest.fixture
def hashed_version() -> StoredVersion:
    items = (entry("config.json", CONFIG, sha256=sha256(CONFIG)), entry("w", WEIGHTS, sha256=sha256(WEIGHTS)))
    return StoredVersion(Manifest(items), {"config.json": CONFIG, "w": WEIGHTS})


@pytest.fixture
def copied_version() -> StoredVersion:
    md5 = hashlib.md5(WEIGHTS).hexdigest()
    items = (entry("config.json", CONFIG, etag="0x1"), entry("w", WEIGHTS, etag="0x2", md5=md5))
    return StoredVersion(Manifest(items), {"config.json": CONFIG, "w": WEIGHTS})


def test_what_is_right_is_counted_by_how_it_was_compared(
    hashed_version: StoredVersion, copied_version: StoredVersion
) -> None:
    found = verified(hashed_version)
    assert found.holds and found.checked == {"sha256": 2, "md5": 0, "size": 0}
    found = verified(copied_version)
    assert found.holds and found.checked == {"sha256": 0, "md5": 1, "size": 1}
    assert found.bytes == len(WEIGHTS) + len(CONFIG)
    assert set(found.right) == {"config.json", "w"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (WEIGHTS + b"x", "it has 64 bytes"),
        (WEIGHTS[:-1], "it has 62 bytes"),
        (b"x" + WEIGHTS[1:], "SHA-256 is"),
    ],
)
def test_a_file_that_differs_is_wrong_and_not_among_the_right_ones(
    hashed_version: StoredVersion, data: bytes, says: str
) -> None:
    hashed_version.there["w"] = data
    found = verified(hashed_version)
    assert not found.holds and found.checked["sha256"] == 1
    assert [path for path, _ in found.wrong] == ["w"] and says in found.wrong[0][1]
    assert set(found.right) == {"config.json"} and set(found.read) == {"config.json", "w"}


def test_of_a_copied_file_the_md5_is_compared_and_without_one_the_size(copied_version: StoredVersion) -> None:
    copied_version.there["w"] = b"x" + WEIGHTS[1:]
    assert "MD5 is" in verified(copied_version).wrong[0][1]
    copied_version.there["w"] = WEIGHTS
    copied_version.there["config.json"] = b"{ }"
    assert [path for path, _ in verified(copied_version).wrong] == ["config.json"]


def test_of_a_file_whose_copy_was_refused_what_was_sent_is_compared(copied_version: StoredVersion) -> None:
    copied_version.stored["config.json"] = sha256(CONFIG)
    assert verified(copied_version).checked == {"sha256": 1, "md5": 1, "size": 0}
    copied_version.there["config.json"] = b"[]"
    found = verified(copied_version)
    assert "stored was" in found.wrong[0][1]


def test_each_kind_of_difference_alone_makes_a_version_differ(hashed_version: StoredVersion) -> None:
    for change, kind in (
        ({"there": {"config.json": CONFIG}}, "missing"),
        ({"there": {**hashed_version.there, "more": b""}}, "extra"),
        ({"wrong": [("mirror/MODEL_CARD.md", "why")]}, "wrong"),
        ({"lost": ["mirror/MODEL_CARD.md"]}, "missing"),
    ):
        found = verified(replace(hashed_version, **change))  # type: ignore[arg-type]
        assert not found.holds and found.as_dict()["exit_code"] == 65
        assert [name for name in ("wrong", "missing", "extra") if getattr(found, name)] == [kind]
