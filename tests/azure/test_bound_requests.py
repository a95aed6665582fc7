"""Conditions of requests that write bytes: the examined blob, the blocks, the file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobBlock, BlobClient
from blake3 import blake3

from aml_mirror.core.errors import DataError, ServiceUnavailable
from aml_mirror.core.manifest import BlockDigests, TransferResult
from aml_mirror.sources.azure_blob import BlobSource
from aml_mirror.sources.block_reader import MD5
from aml_mirror.sources.hashing import hash_files, listed_files
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from aml_mirror.storage.azure_cloud import blob_suffix
from aml_mirror.storage.azure_login import STORAGE_SCOPE, credential
from aml_mirror.storage.blob_client import container_client
from aml_mirror.transfer import server_copy, url_copy
from aml_mirror.transfer.block_ids import plain_etag
from aml_mirror.transfer.block_reuse import EarlierBlocks, EarlierFile
from aml_mirror.transfer.checksums import header_of
from aml_mirror.transfer.transfer import Transfer
from aml_mirror.transfer.transfer_options import BLOCK_BYTES as NOTED_BYTES
from aml_mirror.transfer.transfer_options import MIB
from this_process import here  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("here")

PREFIX = "aml-mirror/robot/1"


def to(azure: Any, **more: Any) -> Transfer:
    container = container_client(f"https://{azure.account}.blob.{blob_suffix()}", azure.container)
    return Transfer(container, **{"concurrency": 1, "block_bytes": MIB, "retry_seconds": 5.0, **more})


def test_blocks_of_a_copy_are_bound_to_the_judged_blob(azure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put Block From URL: the source is overwritten with the same size after the first block."""
    monkeypatch.setattr(server_copy, "ONE_REQUEST_BYTES", MIB)
    monkeypatch.setattr(server_copy, "COPY_BLOCK_BYTES", MIB)
    monkeypatch.setattr(url_copy, "RANGES_AT_ONCE", 1)
    where = {"account": azure.new_account(containers=["runs"]), "container": "runs"}
    before, after = b"a" * (3 * MIB), b"b" * (3 * MIB)
    source = BlobSource(azure.seed({"model.bin": before}, "runs/r1", **where), retry_seconds=5)
    tree = Tree(source, source.scan())
    items = listed_files(tree, {"model.bin": "model.bin"}).items
    real, staged = BlobClient.stage_block_from_url, []

    def stage(blob: BlobClient, name: str, *given: Any, **more: Any) -> Any:
        answer = real(blob, name, *given, **more)
        staged.append(name)
        if len(staged) == 1:
            azure.seed({"model.bin": after}, "runs/r1", **where)
        return answer

    monkeypatch.setattr(BlobClient, "stage_block_from_url", stage)
    with pytest.raises(DataError, match="changed while it was read"):
        to(azure).put(tree, items, PREFIX)
    assert len(staged) == 1
    assert not azure.blobs(PREFIX)


def large(folder: Path) -> tuple[Tree, Any]:
    (folder / "model.bin").write_bytes(os.urandom(2 * NOTED_BYTES + 7))
    source = LocalSource(folder)
    tree = Tree(source, source.scan())
    return tree, hash_files(tree, {"model.bin": "model.bin"}).items


@pytest.mark.parametrize("block", [MIB, NOTED_BYTES], ids=["read again", "noted"])
def test_blocks_that_were_committed_are_compared_with_those_sent(
    azure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """A service that stores another block list of the same total size, and reports success."""
    tree, items = large(tmp_path)
    real = BlobClient.commit_block_list

    def commit(blob: BlobClient, blocks: list[BlobBlock], **more: Any) -> Any:
        return real(blob, [blocks[0], blocks[0], *blocks[2:]], **more)

    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(BlobClient, "commit_block_list", commit)
        with pytest.raises(ServiceUnavailable, match=r"model\.bin does not have the blocks that were sent"):
            to(azure, block_bytes=block).put(
                tree, items, PREFIX, committed=lambda path, stored: told.append(path)
            )
    assert azure.blobs(PREFIX) == {f"{PREFIX}/model.bin": items[0].bytes}
    assert told == []
    # The next attempt does not mistake it for the checkpoint.
    assert to(azure, block_bytes=block).put(tree, items, PREFIX).sent == items[0].bytes
    assert azure.read(f"{PREFIX}/model.bin") == (tmp_path / "model.bin").read_bytes()


@pytest.mark.parametrize("how", ["grows", "is replaced", "is gone"])
@pytest.mark.parametrize("block", [MIB, NOTED_BYTES], ids=["read again", "noted"])
def test_a_file_is_compared_once_more_at_its_commit(azure: Any, tmp_path: Path, block: int, how: str) -> None:
    """The file changes after its last block has arrived: the sent bytes never existed together as one
    file.
    """
    tree, items = large(tmp_path)
    path, arrived = tmp_path / "model.bin", 0

    def change(count: int) -> None:
        nonlocal arrived
        arrived += count
        if arrived < items[0].bytes:
            return
        if how == "grows":
            with path.open("ab") as stream:
                stream.write(b"more")
            return
        path.unlink()
        if how == "is replaced":
            path.write_bytes(bytes(items[0].bytes))

    with pytest.raises(DataError, match=r"model\.bin changed while it was sent"):
        to(azure, block_bytes=block).put(tree, items, PREFIX, change)
    assert arrived == items[0].bytes
    assert not azure.blobs(PREFIX)


def test_what_was_copied_is_not_copied_again(azure: Any) -> None:
    """The control for the tests above: without a change the same copy succeeds and is trusted afterwards."""
    where = {"account": azure.new_account(containers=["runs"]), "container": "runs"}
    source = BlobSource(azure.seed({"model.bin": b"a" * MIB}, "runs/r1", **where), retry_seconds=5)
    tree = Tree(source, source.scan())
    items = listed_files(tree, {"model.bin": "model.bin"}).items
    assert to(azure).put(tree, items, PREFIX) == TransferResult(copied=MIB)
    assert to(azure).put(tree, items, PREFIX) == TransferResult()


def test_blocks_of_an_earlier_version_are_taken_by_etag_checksum_and_length(azure: Any) -> None:
    data = b"".join(bytes([number]) * MIB for number in range(3)) + b"end"
    name = "aml-mirror/earlier/w"
    azure.seed({name: data})
    container = container_client(f"https://{azure.account}.blob.{blob_suffix()}", azure.container)
    source, target = container.get_blob_client(name), container.get_blob_client(f"{PREFIX}/w")
    etag = plain_etag(source.get_blob_properties().etag)
    parts = [data[at : at + MIB] for at in range(0, len(data), MIB)]
    digests = [blake3(part).digest() for part in parts]

    def earlier(etag: str = etag) -> EarlierBlocks:
        file = EarlierFile(source.url, etag, len(data), BlockDigests(MIB, b"".join(digests)))
        return EarlierBlocks([file], lambda: f"Bearer {credential().get_token(STORAGE_SCOPE).token}")

    def take(blocks: EarlierBlocks, number: int, of: bytes = b"", length: int = 0) -> bool:
        part = parts[number]
        header = header_of(MD5, hashlib.md5(of or part).digest())
        return blocks.take(target, f"{number:064x}", digests[number], length or len(part), header)

    blocks = earlier()
    assert all(take(blocks, number) for number in range(4))
    target.commit_block_list([BlobBlock(f"{number:064x}") for number in range(4)])
    assert azure.read(f"{PREFIX}/w") == data
    # Different bytes than expected, and a blob that was replaced.
    assert not take(earlier(), 1, of=b"other")
    assert not take(earlier("0x1"), 1)
    azure.forget_requests()
    # Another length means another block, and unknown blocks are not requested.
    assert not take(earlier(), 3, length=MIB)
    assert not blocks.take(target, "0" * 64, b"?" * 32, MIB, {})
    assert not azure.requests("comp=block&")
    # A service that refuses copies gets only a few requests.
    refusing = earlier("0x1")
    assert not any(take(refusing, 1) for _ in range(12))
    assert len(azure.requests("comp=block&")) == 8
