"""Leftovers of copying tools: which file each was meant to become, and that nothing else counts as a
leftover.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from aml_mirror.core.errors import DataError
from aml_mirror.layouts import find_run
from aml_mirror.pipeline.select import choose
from aml_mirror.sources.leftovers import unfinished
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.saved import write_bytes
from builders.torch_zip import save

ETAG = "0123456789abcdef" * 4


def tree_of(path: Path) -> Tree:
    source = LocalSource(path)
    return Tree(source, source.scan())


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        ("a/.azDownload-3f2b1c9a-1111-2222-3333-444455556666-model_1.pt", "a/model_1.pt"),
        (".azDownload-6a1b-model.safetensors", "model.safetensors"),
        ("a/.model_1.pt.Xy12Ab", "a/model_1.pt"),
        (".checkpoint_1000.a1B2c3", "checkpoint_1000"),
        (".rsync-partial/model_1.pt", "model_1.pt"),
        ("a/.~tmp~/model_1.pt", "a/model_1.pt"),
        ("model_1.pt.d5a5bb1f.partial", "model_1.pt"),
        ("model.safetensors.partial", "model.safetensors"),
        ("a/model_1.pt_.gstmp", "a/model_1.pt"),
        (f".cache/huggingface/download/a/model.safetensors.{ETAG}.incomplete", "a/model.safetensors"),
        (f".cache/huggingface/download/{'x' * 27}=.{ETAG}.incomplete", ""),
        ("model.safetensors.incomplete", "model.safetensors"),
        ("model_1.pt.6e0F9a3b", "model_1.pt"),
        ("model_1.pt.part.minio", "model_1.pt"),
        ("model_1.pt.crdownload", "model_1.pt"),
        ("model_1.pt.part", "model_1.pt"),
        ("model_1.pt.a1b2c3d4.part", "model_1.pt"),
        ("a/model_1.pt3141592653", "a/model_1.pt"),
        ("model_1.pt.aria2", "model_1.pt"),
        ("model_1.pt.lftp-pget-status", "model_1.pt"),
        ("model_1.pt.uploading", "model_1.pt"),
        ("model_1.pt.download", "model_1.pt"),
        (".unison.model_1.pt.0a1b2c3d.unison.tmp", "model_1.pt"),
        (".model_1.pt.~1a2b3c4d", "model_1.pt"),
        ("model_1.pt.download/model_1.pt", "model_1.pt"),
        ("model_1.pt.tmp", "model_1.pt"),
        (".model_1.pt.tmp", "model_1.pt"),
        ("Unconfirmed 123456.crdownload", ""),
        (".fuse_hidden0000001200000003", ""),
    ],
)
def test_the_file_that_a_leftover_was_to_become(path: str, whole: str) -> None:
    assert unfinished(path) == whole


@pytest.mark.parametrize(
    "path",
    [
        "model_1.pt",
        ".hydra/config.yaml",
        ".metadata",
        "a/.gitignore",
        # A step of eight digits, and a host name of eight hexadecimal digits.
        "model.pt.00001000",
        "events.out.tfevents.1764000000.deadbeef",
        "data.part/model_1.pt",
        "step_7.tmp/model.pt",
        "notes.part",
        # A date after a name.
        "model.pt20251103",
        "notes.download",
    ],
)
def test_what_is_no_leftover(path: str) -> None:
    assert unfinished(path) is None


@pytest.mark.parametrize("steps", [(9, 100), (9,)])
def test_a_file_beside_aria2s_own_is_not_whole(tmp_path: Path, steps: tuple[int, ...]) -> None:
    for step in steps:
        save(tmp_path / f"checkpoints/policy_{step}.pt", {}, b"%d" % step)
    write_bytes(tmp_path / "checkpoints/policy_100.pt.aria2")
    tree = tree_of(tmp_path)
    (chosen,) = choose(tree, find_run(tree).read(tree), "final")
    assert chosen.checkpoint.step == 9
    assert "policy_100.pt.aria2" in chosen.passed_over[0][1]


def test_a_companion_that_was_not_copied_makes_the_checkpoint_incomplete(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints/policy_9.pt", {})
    write_bytes(tmp_path / ".dataset_stats.pkl.Xy12Ab")
    tree = tree_of(tmp_path)
    with pytest.raises(DataError, match=r"no complete checkpoint.*dataset_stats"):
        list(choose(tree, find_run(tree).read(tree), "final"))


def test_what_hf_download_left_is_told_where_its_file_may_be_missing(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints/policy_9.pt", {})
    digest = hashlib.sha1(b"policy_9.pt.metadata", usedforsecurity=False).digest()
    own = base64.urlsafe_b64encode(digest).decode()
    folder = tmp_path / ".cache/huggingface/download/checkpoints"
    write_bytes(folder / f"{own}.{ETAG}.incomplete")
    assert tree_of(tmp_path).nameless == []
    other = "A" * 27 + "="
    write_bytes(folder / f"{other}.{ETAG}.incomplete")
    (path,) = tree_of(tmp_path).nameless
    assert other in path


def test_a_log_that_was_not_copied_whole_is_not_read(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints/policy_9.pt", {})
    write_bytes(tmp_path / ".azDownload-6a1b-events.out.tfevents.1764000000.vm.1.0")
    tree = tree_of(tmp_path)
    assert list(tree.files) == ["checkpoints/policy_9.pt"]
    assert len(tree.leftovers) == 1


def test_a_second_copy_of_a_file_is_not_shown_where_the_first_is_there(tmp_path: Path) -> None:
    seconds = (
        *("policy_9 (1).pt", "policy_9 copy 2.pt", "policy_9 - Copy (2).pt", "Copy of policy_9.pt"),
        *("policy_9 (another copy).pt", "policy_9.pt.1", "policy_9.pt.bak"),
    )
    for name in seconds:
        write_bytes(tmp_path / name)
    assert sorted(tree_of(tmp_path).files) == sorted(seconds)
    write_bytes(tmp_path / "policy_9.pt")
    assert list(tree_of(tmp_path).files) == ["policy_9.pt"]
