"""Uploading files to a container: the real storage client with the emulated accounts."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from aml_mirror.core import option_values
from aml_mirror.core.errors import (
    ConfigurationError,
    DataError,
    MirrorError,
    NotAllowed,
    ServiceUnavailable,
    UsageError,
)
from aml_mirror.core.manifest import ManifestEntry, TransferResult
from aml_mirror.sources import block_reader
from aml_mirror.sources.azure_blob import BlobSource
from aml_mirror.sources.hashing import block_size, hash_files, listed_files
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from aml_mirror.storage.azure_cloud import blob_suffix
from aml_mirror.storage.blob_client import container_client
from aml_mirror.transfer import server_copy
from aml_mirror.transfer.block_ids import block_id
from aml_mirror.transfer.transfer import Transfer
from aml_mirror.transfer.transfer_options import BLOCK_BYTES as NOTED_BYTES
from aml_mirror.transfer.transfer_options import MIB
from this_process import here  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("here")

FILES = {
    "model.bin": 3 * MIB + 17,
    "config.json": 20,
    "deep/er/ä #?%.txt": 1000,
    "empty": 0,
    "exact": 2 * MIB,
}
PREFIX = "aml-mirror/robot/1"


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def make_run(folder: Path, files: dict[str, int] = FILES) -> Tree:
    for seed, (name, size) in enumerate(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise(size, seed))
    return tree_of(folder)


def tree_of(folder: Path) -> Tree:
    source = LocalSource(folder)
    return Tree(source, source.scan())


def hashed(tree: Tree) -> tuple[ManifestEntry, ...]:
    return hash_files(tree, {path: path for path in tree.files}).items


def to(azure: Any, retry_seconds: float = 600.0, **more: Any) -> Transfer:
    container = container_client(f"https://{azure.account}.blob.{blob_suffix()}", azure.container)
    return Transfer(container, **{"concurrency": 4, "block_bytes": MIB, **more}, retry_seconds=retry_seconds)


def assert_whole(azure: Any, tree: Tree, items: tuple[ManifestEntry, ...]) -> None:
    found = azure.blobs(PREFIX + "/")
    assert found == {f"{PREFIX}/{item.path}": item.bytes for item in items}
    for item in items:
        with tree.open(item.source) as stream:
            assert azure.read(f"{PREFIX}/{item.path}") == stream.read()


def puts(azure: Any) -> list[str]:
    return [f"{one['method']} {one['path']}" for one in azure.requests(".blob.") if one["method"] == "PUT"]


def test_brings_every_byte_and_says_what_it_sent(azure: Any, tmp_path: Path) -> None:
    tree = make_run(tmp_path)
    items = hashed(tree)
    told: list[int] = []
    moved = to(azure).put(tree, items, PREFIX, told.append, {"identity": "abc"})
    total = sum(FILES.values())
    assert moved == TransferResult(sent=total)
    assert sum(told) == total
    assert_whole(azure, tree, items)
    for item in items:
        assert azure.metadata(f"{PREFIX}/{item.path}") == {"sha256": item.sha256, "identity": "abc"}


def test_what_is_there_is_not_sent_again(azure: Any, tmp_path: Path) -> None:
    tree = make_run(tmp_path)
    items = hashed(tree)
    to(azure).put(tree, items, PREFIX)
    azure.forget_requests()
    told: list[int] = []
    assert to(azure).put(tree, items, PREFIX, told.append) == TransferResult()
    assert sum(told) == sum(FILES.values())
    assert len(azure.requests("comp=list")) == 1
    assert puts(azure) == []


def test_what_else_lies_there_goes_and_neighbours_stay(azure: Any, tmp_path: Path) -> None:
    tree = make_run(tmp_path)
    items = hashed(tree)
    stay = {"aml-mirror/robot/10/x": b"1", "aml-mirror/robot/x": b"1"}
    azure.seed({**stay, f"{PREFIX}/left/over.bin": b"1", f"{PREFIX}/config.json": b"another twenty bytes"})
    to(azure).put(tree, items, PREFIX)
    assert_whole(azure, tree, items)
    assert set(stay) <= set(azure.blobs("aml-mirror/"))


def test_a_hierarchical_namespace_keeps_its_folders(azure: Any, tmp_path: Path) -> None:
    account = azure.new_account(hns=True, containers=["models"])
    tree = make_run(tmp_path)
    items = hashed(tree)
    container = container_client(f"https://{account}.blob.{blob_suffix()}", "models")
    for _ in range(2):
        Transfer(container, 4, MIB, 30).put(tree, items, PREFIX)
    found = azure.blobs(PREFIX + "/", account=account, container="models")
    assert {name for name, size in found.items() if size} == {
        f"{PREFIX}/{item.path}" for item in items if item.bytes
    }


def test_the_container_itself_is_no_folder_of_a_checkpoint(azure: Any, tmp_path: Path) -> None:
    tree = make_run(tmp_path)
    with pytest.raises(ValueError):
        to(azure).put(tree, hashed(tree), "/")


def test_a_file_that_is_not_the_judged_one_is_not_committed(azure: Any, tmp_path: Path) -> None:
    tree = make_run(tmp_path)
    items = hashed(tree)
    wrong = tuple(
        replace(item, sha256="0" * 64) if item.path in ("model.bin", "config.json") else item
        for item in items
    )
    with pytest.raises(DataError, match="changed while it was sent"):
        to(azure).put(tree, wrong, PREFIX)
    assert not azure.blobs(f"{PREFIX}/model.bin")
    assert not azure.blobs(f"{PREFIX}/config.json")
    (tmp_path / "model.bin").write_bytes(noise(3 * MIB + 18, 9))
    with pytest.raises(DataError, match="changed"):
        to(azure).put(tree, items, PREFIX)
    assert not azure.blobs(f"{PREFIX}/model.bin")


def test_a_file_that_grows_while_it_is_read(azure: Any, tmp_path: Path) -> None:
    tree = make_run(tmp_path, {"model.bin": 8 * MIB})
    items = hashed(tree)

    def grow(count: int) -> None:
        with (tmp_path / "model.bin").open("ab") as stream:
            stream.write(b"more")

    with pytest.raises(DataError, match="changed"):
        to(azure, concurrency=1).put(tree, items, PREFIX, grow)
    assert not azure.blobs(PREFIX)


def test_a_name_that_is_too_long(azure: Any, tmp_path: Path) -> None:
    tree = make_run(tmp_path, {"/".join(["x" * 200] * 5) + "/y" * 20: 1})
    with pytest.raises(DataError, match="1024 characters"):
        to(azure).put(tree, hashed(tree), PREFIX)


CHILD = """
import sys
from pathlib import Path
from aml_mirror.storage.blob_client import container_client
from aml_mirror.sources.hashing import hash_files
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from aml_mirror.transfer.transfer import Transfer

url, container, folder, prefix, name, concurrency, block = sys.argv[1:]

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

source = LocalSource(folder)
tree = Tree(source, source.scan())
transfer = Transfer(container_client(url, container), int(concurrency), int(block), 30)
transfer.put(tree, [], prefix + "-none")
items = hash_files(tree, {name: name}).items
before = peak()
moved = transfer.put(tree, items, prefix)
print(moved.sent, (peak() - before) * 1024)
"""


def child(
    azure: Any, folder: Path, item: ManifestEntry, concurrency: int = 2, block: int = MIB
) -> tuple[int, str]:
    done = subprocess.run(
        [
            *(sys.executable, "-c", CHILD, f"https://{azure.account}.blob.{blob_suffix()}", azure.container),
            *(str(folder), PREFIX, item.path, str(concurrency), str(block)),
        ],
        env={**azure.env(), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout + done.stderr


def test_blocks_that_lie_there_are_sent_again(azure: Any, tmp_path: Path) -> None:
    """Block ids do not prove bytes: the second block exists with the right id and other bytes."""
    tree = make_run(tmp_path, {"model.bin": 3 * MIB + 5})
    (item,) = hashed(tree)
    blob = azure.blob_service().get_blob_client(azure.container, f"{PREFIX}/model.bin")
    second = (tmp_path / "model.bin").read_bytes()[MIB : 2 * MIB]
    blob.stage_block(block_id(MIB, blake3(second).hexdigest()), bytes(MIB))
    assert to(azure).put(tree, [item], PREFIX).sent == item.bytes
    assert_whole(azure, tree, (item,))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("match", ["comp=blocklist", "comp=block&", "comp=list"])
def test_killed_anywhere_and_run_again(azure: Any, tmp_path: Path, match: str, when: str) -> None:
    tree = make_run(tmp_path, {"model.bin": 3 * MIB})
    (item,) = hashed(tree)
    azure.fault("kill", match=match, when=when)
    assert child(azure, tmp_path, item)[0] == -9
    azure.clear_faults()
    assert child(azure, tmp_path, item)[0] == 0
    assert_whole(azure, tree, (item,))


def test_blocks_of_other_bytes_or_other_programs_do_no_harm(azure: Any, tmp_path: Path) -> None:
    tree = make_run(tmp_path, {"old.bin": 4 * MIB, "foreign.bin": 4 * MIB})
    items = hashed(tree)
    service = azure.blob_service()
    old = service.get_blob_client(azure.container, f"{PREFIX}/old.bin")
    # The right position and size but other bytes: another digest, so another id.
    old.stage_block(block_id(0, blake3(noise(MIB, 77)).hexdigest()), noise(MIB, 77))
    # The right id, but truncated: the size shows it.
    second = (tmp_path / "old.bin").read_bytes()[MIB : 2 * MIB]
    old.stage_block(block_id(MIB, blake3(second).hexdigest()), second[:100])
    foreign = service.get_blob_client(azure.container, f"{PREFIX}/foreign.bin")
    foreign.stage_block("short-id", b"123")
    moved = to(azure).put(tree, items, PREFIX)
    assert moved.sent == 8 * MIB
    assert_whole(azure, tree, items)


def test_two_at_once_leave_one_whole_folder(azure: Any, tmp_path: Path) -> None:
    tree = make_run(tmp_path, {"a.bin": 6 * MIB, "b.bin": 6 * MIB, "c.txt": 10})
    items = hashed(tree)
    failures: list[Exception] = []

    def put() -> None:
        try:
            to(azure).put(tree_of(tmp_path), items, PREFIX)
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=put) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert_whole(azure, tree, items)


TROUBLE: dict[str, dict[str, Any]] = {
    "429": {"action": "status", "status": 429, "headers": {"Retry-After": "1"}},
    "503": {"action": "status", "status": 503, "times": 2},
    "500-long": {"action": "status", "status": 500, "times": 5},
    "408": {"action": "status", "status": 408},
    "401": {"action": "status", "status": 401},
    "drop": {"action": "drop", "times": 4},
    "lost": {"action": "drop", "when": "after"},
    "cut": {"action": "cut", "when": "after"},
    "length": {"action": "length", "when": "after"},
    "token": {"action": "expire-tokens"},
    "damage": {"action": "damage", "times": 2},
}
STAGES = {
    "block": "PUT .*comp=block&",
    "commit": "PUT .*comp=blocklist",
    "known": "GET .*comp=blocklist",
    "whole": r"PUT .*config\.json",
    "list": "comp=list",
}


@pytest.mark.parametrize(
    ("trouble", "stage"),
    # A request without a body cannot be damaged.
    [
        (one, stage)
        for one in TROUBLE
        for stage in STAGES
        if one != "damage" or STAGES[stage].startswith("PUT")
    ],
)
def test_trouble_passes(azure: Any, tmp_path: Path, trouble: str, stage: str) -> None:
    tree = make_run(tmp_path, {"model.bin": 3 * MIB, "config.json": 20})
    items = hashed(tree)
    azure.fault(match=STAGES[stage], **TROUBLE[trouble])
    to(azure).put(tree, items, PREFIX)
    assert azure.faults()[0]["acted"]
    assert_whole(azure, tree, items)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (403, {"x-ms-error-code": "AuthorizationPermissionMismatch"}, NotAllowed),
        (507, {}, ServiceUnavailable),
        (503, {}, ServiceUnavailable),
        (400, {"x-ms-error-code": "InvalidHeaderValue"}, ConfigurationError),
    ],
)
def test_trouble_that_stays_ends_with_one_line_and_a_later_try_completes(
    azure: Any, tmp_path: Path, stage: str, status: int, headers: dict[str, str], kind: type[MirrorError]
) -> None:
    tree = make_run(tmp_path, {"model.bin": 3 * MIB, "config.json": 20})
    items = hashed(tree)
    azure.fault("status", match=STAGES[stage], status=status, headers=headers, times=0)
    with pytest.raises(kind) as caught:
        to(azure, retry_seconds=1).put(tree, items, PREFIX)
    assert "\n" not in caught.value.message
    azure.clear_faults()
    to(azure).put(tree, items, PREFIX)
    assert_whole(azure, tree, items)


def test_a_role_that_is_missing_is_named(azure: Any, tmp_path: Path) -> None:
    tree = make_run(tmp_path)
    azure.set_role("Storage Blob Data Reader", account=azure.account)
    with pytest.raises(NotAllowed, match=azure.account) as caught:
        to(azure).put(tree, hashed(tree), PREFIX)
    assert "Storage Blob Data Contributor" in caught.value.hint


@pytest.mark.parametrize("block", [2 * MIB, NOTED_BYTES], ids=["read again", "noted"])
def test_memory_does_not_grow_with_the_file(azure: Any, tmp_path: Path, block: int) -> None:
    size = 96 * MIB
    (tmp_path / "model.bin").write_bytes(bytes(size))
    (item,) = hashed(tree_of(tmp_path))
    code, said = child(azure, tmp_path, item, concurrency=4, block=block)
    assert code == 0, said
    sent, grown = map(int, said.split())
    assert sent == size
    # One block, 4 pieces of 256 KiB, and what the client and TLS need for each connection.
    assert grown < block + 16 * MIB


def large(folder: Path) -> tuple[Tree, ManifestEntry]:
    """A file whose blocks are recorded while it is hashed: eight complete ones and a short one."""
    (folder / "model.bin").write_bytes(noise(MIB) * 64 + b"the end")
    tree = tree_of(folder)
    (item,) = hashed(tree)
    assert item.blocks is not None and len(item.blocks) == 9
    return tree, item


def blocks_put(azure: Any) -> list[int]:
    """The statuses of the requests that sent blocks."""
    found = azure.requests("comp=block&")
    return [one["status"] for one in found if one["method"] == "PUT"]


@pytest.mark.parametrize(
    ("crc64", "statuses"),
    # The first request is a test: it is refused if the service compares the checksum; otherwise one byte is
    # stored.
    [("compared", [400] + 9 * [201]), ("refused", [500] + 9 * [201]), ("ignored", 10 * [201])],
)
def test_a_service_is_asked_once_which_checksum_it_compares(
    azure: Any, tmp_path: Path, crc64: str, statuses: list[int]
) -> None:
    azure.set_account(crc64=crc64)
    tree, item = large(tmp_path)
    transfer = to(azure, block_bytes=NOTED_BYTES)
    moved = transfer.put(tree, [item], PREFIX)
    assert moved == TransferResult(sent=item.bytes)
    assert blocks_put(azure) == statuses
    assert_whole(azure, tree, (item,))
    azure.forget_requests()
    transfer.put(tree, [item], f"{PREFIX}0")
    assert blocks_put(azure) == 9 * [201]


@pytest.mark.parametrize("answer", ["status", "drop"])
def test_a_question_that_is_not_answered_is_not_asked_again(azure: Any, tmp_path: Path, answer: str) -> None:
    tree, item = large(tmp_path)
    azure.fault(answer, match="comp=block&", headers={"x-ms-error-code": "ServerBusy"})
    to(azure, block_bytes=NOTED_BYTES).put(tree, [item], PREFIX)
    assert len(blocks_put(azure)) == 10
    assert_whole(azure, tree, (item,))


@pytest.mark.parametrize("block", [MIB, NOTED_BYTES], ids=["read again", "noted"])
@pytest.mark.parametrize("crc64", ["compared", "ignored"])
def test_damage_on_the_way_is_sent_again(azure: Any, tmp_path: Path, crc64: str, block: int) -> None:
    azure.set_account(crc64=crc64)
    tree, item = large(tmp_path)
    azure.fault("damage", match="comp=block&", nth=4, times=3)
    to(azure, block_bytes=block).put(tree, [item], PREFIX)
    assert sum(status == 400 for status in blocks_put(azure)) == 3 + (crc64 == "compared")
    assert_whole(azure, tree, (item,))


@pytest.mark.parametrize("crc64", ["compared", "ignored"])
def test_a_large_file_that_is_not_the_hashed_one_is_not_committed(
    azure: Any, tmp_path: Path, crc64: str
) -> None:
    """It was changed in place, so that neither its size nor its times show it."""
    azure.set_account(crc64=crc64)
    tree, item = large(tmp_path)
    with (tmp_path / "model.bin").open("r+b") as stream:
        stream.seek(3 * NOTED_BYTES + 5)
        stream.write(b"other")
    tree = tree_of(tmp_path)
    with pytest.raises(DataError, match="changed while it was sent"):
        to(azure, block_bytes=NOTED_BYTES).put(tree, [item], PREFIX)
    assert not azure.blobs(PREFIX)


@pytest.mark.parametrize("how", ["grows", "shrinks", "is replaced", "is gone"])
def test_a_large_file_that_changes_while_it_is_sent(azure: Any, tmp_path: Path, how: str) -> None:
    tree, item = large(tmp_path)
    path = tmp_path / "model.bin"

    def change(count: int) -> None:
        if how == "grows":
            with path.open("ab") as stream:
                stream.write(b"more")
        elif how == "shrinks":
            os.truncate(path, 6 * NOTED_BYTES)
        else:
            path.unlink(missing_ok=True)
            if how == "is replaced":
                path.write_bytes(bytes(item.bytes))

    says = "was deleted after it was listed" if how == "is gone" else "changed while it was"
    with pytest.raises(DataError, match=says):
        to(azure, block_bytes=NOTED_BYTES, concurrency=1).put(tree, [item], PREFIX, change)
    assert not azure.blobs(PREFIX)


def copied(azure: Any, files: dict[str, bytes], **where: Any) -> tuple[Tree, tuple[ManifestEntry, ...]]:
    source = BlobSource(azure.seed(files, "runs/r1", **where), retry_seconds=600)
    tree = Tree(source, source.scan())
    return tree, listed_files(tree, {path: path for path in tree.files}).items


CHECKPOINT = {"model.bin": noise(3 * MIB + 1), "config.json": b"{}", "empty": b"", "ä #?%'.txt": b"odd"}
WHOLE = sum(map(len, CHECKPOINT.values()))


def through(azure: Any) -> int:
    return sum(one["bytes_in"] + one["bytes_out"] for one in azure.requests(".blob."))


def test_in_one_account_no_byte_comes_through_here(azure: Any) -> None:
    tree, items = copied(azure, CHECKPOINT, container="runs-container")
    azure.forget_requests()
    moved = to(azure).put(tree, items, PREFIX, metadata={"identity": "abc"})
    assert moved == TransferResult(copied=WHOLE)
    assert through(azure) < 100_000
    assert_whole(azure, tree, items)
    found = azure.metadata(f"{PREFIX}/model.bin")
    assert found == {"identity": "abc", "source_etag": tree.entry("model.bin").stamp}
    azure.forget_requests()
    assert to(azure).put(tree, items, PREFIX) == TransferResult()
    assert puts(azure) == []


def test_a_hash_that_is_known_goes_with_the_copy(azure: Any) -> None:
    tree, _ = copied(azure, CHECKPOINT)
    items = tuple(replace(item, etag=tree.entry(item.source).stamp) for item in hashed(tree))
    assert to(azure).put(tree, items, PREFIX) == TransferResult(copied=WHOLE)
    assert (
        azure.metadata(f"{PREFIX}/model.bin")["sha256"] == hashlib.sha256(CHECKPOINT["model.bin"]).hexdigest()
    )


@pytest.mark.parametrize("one_request", [server_copy.ONE_REQUEST_BYTES, MIB])
def test_between_accounts_no_byte_comes_through_here(
    azure: Any, one_request: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_copy, "ONE_REQUEST_BYTES", one_request)
    monkeypatch.setattr(server_copy, "COPY_BLOCK_BYTES", MIB)
    account = azure.new_account(containers=["runs"])
    tree, items = copied(azure, CHECKPOINT, account=account, container="runs")
    azure.forget_requests()
    assert to(azure).put(tree, items, PREFIX) == TransferResult(copied=WHOLE)
    assert through(azure) < 100_000
    assert_whole(azure, tree, items)
    assert to(azure).put(tree, items, PREFIX) == TransferResult()


def test_a_sas_is_the_second_way(azure: Any) -> None:
    account = azure.new_account(containers=["runs"])
    tree, items = copied(azure, CHECKPOINT, account=account, container="runs")
    refused = {"status": 409, "headers": {"x-ms-error-code": "CannotVerifyCopySource"}, "times": 0}
    # Only the answer 201 identifies Put Blob From URL; a Copy Blob request looks the same.
    azure.fault("status", match="PUT .*config", **{**refused, "times": 1})
    azure.forget_requests()
    moved = to(azure, concurrency=1).put(tree, items, PREFIX)
    assert moved == TransferResult(copied=WHOLE)
    assert azure.requests("comp=userdelegationkey")
    assert_whole(azure, tree, items)


def test_where_no_copy_is_let_through_the_bytes_come_through_here(azure: Any) -> None:
    account = azure.new_account(containers=["runs"])
    tree, items = copied(azure, CHECKPOINT, account=account, container="runs")
    azure.set_account(copy_scope="PrivateLink")
    moved = to(azure).put(tree, items, PREFIX)
    assert (moved.sent, moved.copied) == (WHOLE, 0)
    assert len(moved.warnings) == 1
    assert "were sent through this program" in moved.warnings[0]
    assert "sig=" not in moved.warnings[0]
    assert_whole(azure, tree, items)
    assert azure.metadata(f"{PREFIX}/config.json")["source_etag"] == tree.entry("config.json").stamp
    assert to(azure).put(tree, items, PREFIX) == TransferResult()


def test_what_comes_through_here_is_read_while_it_is_sent(
    azure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several ranges of a blob are fetched at a time, bound to its ETag, and are returned in order."""
    monkeypatch.setattr(server_copy, "ONE_REQUEST_BYTES", MIB)
    files = {"model.bin": noise(12 * MIB + 5), **{f"part-{n}.json": noise(100, n) for n in range(12)}}
    account = azure.new_account(containers=["runs"])
    tree, items = copied(azure, files, account=account, container="runs")
    azure.set_account(copy_scope="PrivateLink")
    azure.fault("stall", match="GET .*/runs/runs/r1/", seconds=0.3, times=0)
    azure.forget_requests()
    moved = to(azure).put(tree, items, PREFIX)
    assert (moved.sent, moved.copied) == (sum(map(len, files.values())), 0)
    assert_whole(azure, tree, items)
    reads = [one for one in azure.requests("/runs/runs/r1/") if one["method"] == "GET"]
    for name, most in (("model.bin", block_reader.AHEAD), ("part-", 4)):
        spans = [(one["time"], one["time"] + one["seconds"]) for one in reads if name in one["path"]]
        at_once = [sum(begin <= moment < end for begin, end in spans) for moment, _ in spans]
        assert 1 < max(at_once) <= most, (name, at_once)


def test_a_blob_that_changes_while_it_comes_through_here(azure: Any) -> None:
    account = azure.new_account(containers=["runs"])
    tree, items = copied(azure, {"model.bin": noise(12 * MIB)}, account=account, container="runs")
    azure.set_account(copy_scope="PrivateLink")

    def change(count: int) -> None:
        azure.seed({"model.bin": noise(12 * MIB, 2)}, "runs/r1", account=account, container="runs")

    with pytest.raises(DataError, match="changed while it was read"):
        to(azure, concurrency=1).put(tree, items, PREFIX, change)
    assert not azure.blobs(PREFIX)


def test_of_a_large_copy_next_to_nothing_comes_through_here(azure: Any) -> None:
    """64 MiB, copied within the account and between two accounts: only requests, no data."""
    for account in (azure.account, azure.new_account(containers=["runs"])):
        tree, items = copied(azure, {"model.bin": bytes(64 * MIB)}, account=account, container="runs")
        azure.forget_requests()
        assert to(azure).put(tree, items, f"{PREFIX}-{account}") == TransferResult(copied=64 * MIB)
        assert through(azure) < 100_000


def test_another_tenant(azure: Any) -> None:
    account = azure.new_account(containers=["runs"], other_tenant=True)
    uri = azure.seed(CHECKPOINT, "runs/r1", account=account, container="runs")
    with pytest.raises(NotAllowed) as caught:
        BlobSource(uri).scan()
    assert "AZURE_TENANT_ID" in caught.value.hint


@pytest.mark.parametrize("polls", [1, 3])
def test_a_copy_that_takes_its_time(azure: Any, polls: int) -> None:
    azure.set_account(copy_pending_polls=polls)
    tree, items = copied(azure, CHECKPOINT)
    assert to(azure).put(tree, items, PREFIX) == TransferResult(copied=WHOLE)
    assert_whole(azure, tree, items)


@pytest.mark.parametrize("outcome", ["failed", "aborted"])
def test_a_copy_that_fails_is_sent(azure: Any, outcome: str) -> None:
    azure.set_account(copy_pending_polls=1, copy_outcome=outcome)
    tree, items = copied(azure, CHECKPOINT)
    moved = to(azure).put(tree, items, PREFIX)
    assert moved.sent + moved.copied == WHOLE
    assert outcome in moved.warnings[0]
    assert_whole(azure, tree, items)


def test_a_copy_that_stands_still_is_given_up(azure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_copy, "STALL_SECONDS", 1.0)
    azure.set_account(copy_pending_polls=1000)
    tree, items = copied(azure, {"model.bin": noise(1000)})
    moved = to(azure).put(tree, items, PREFIX)
    assert moved.sent == 1000
    assert "made no progress" in moved.warnings[0]
    assert_whole(azure, tree, items)


def test_the_answer_to_a_copy_is_lost(azure: Any) -> None:
    azure.set_account(copy_pending_polls=2)
    tree, items = copied(azure, {"model.bin": noise(1000)})
    azure.fault("drop", match=f"PUT .*{PREFIX}", when="after")
    assert to(azure).put(tree, items, PREFIX) == TransferResult(copied=1000)
    assert_whole(azure, tree, items)


@pytest.mark.parametrize("same", [True, False])
def test_a_copy_of_a_killed_try_is_under_way(azure: Any, same: bool) -> None:
    """It is listed as pending with its size and metadata, and not trusted before it has ended."""
    azure.set_account(copy_pending_polls=4)
    tree, items = copied(azure, {"model.bin": noise(1000), "other.bin": noise(1000, 2)})
    entry = tree.entry("model.bin" if same else "other.bin")
    assert isinstance(tree.source, BlobSource)
    container = container_client(f"https://{azure.account}.blob.{blob_suffix()}", azure.container)
    blob = container.get_blob_client(f"{PREFIX}/model.bin")
    blob.start_copy_from_url(tree.source.url(entry), metadata={"source_etag": entry.stamp})
    listed = {one.name: one for one in container.list_blobs(PREFIX, include=["copy", "metadata"])}
    assert (listed[f"{PREFIX}/model.bin"].size, listed[f"{PREFIX}/model.bin"].copy.status) == (
        1000,
        "pending",
    )
    assert to(azure).put(tree, items, PREFIX).copied == 2000
    assert_whole(azure, tree, items)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_source_that_changed_is_not_copied(azure: Any, elsewhere: bool) -> None:
    where = {"account": azure.new_account(containers=["runs"]), "container": "runs"} if elsewhere else {}
    tree, items = copied(azure, CHECKPOINT, **where)
    azure.seed({"model.bin": noise(3 * MIB + 1, 5)}, "runs/r1", **where)
    with pytest.raises(DataError, match="changed while it was read"):
        to(azure).put(tree, items, PREFIX)
    assert f"{PREFIX}/model.bin" not in azure.blobs(PREFIX)


def test_a_source_that_is_gone(azure: Any) -> None:
    tree, items = copied(azure, CHECKPOINT)
    azure.blob_service().get_blob_client(azure.container, "runs/r1/model.bin").delete_blob()
    with pytest.raises(DataError, match="changed while it was read"):
        to(azure).put(tree, items, PREFIX)


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_trouble_while_copying_passes(azure: Any, trouble: str, elsewhere: bool) -> None:
    where = {"account": azure.new_account(containers=["runs"]), "container": "runs"} if elsewhere else {}
    tree, items = copied(azure, CHECKPOINT, **where)
    azure.fault(match=f"PUT .*{PREFIX}", **TROUBLE[trouble])
    assert to(azure).put(tree, items, PREFIX) == TransferResult(copied=WHOLE)
    assert azure.faults()[0]["acted"]
    assert_whole(azure, tree, items)


def test_block_sizes_and_ids() -> None:
    assert block_size(10, 4 * MIB) == 4 * MIB
    assert block_size(50_000 * 4 * MIB, 4 * MIB) == 4 * MIB
    assert block_size(50_000 * 4 * MIB + 1, 4 * MIB) == 5 * MIB
    assert block_size(190 << 40, 4 * MIB) * 50_000 >= 190 << 40
    names = {block_id(offset, "f" * 64) for offset in (0, MIB, 190 << 40)}
    assert {len(name) for name in names} == {64}
    assert len(names) == 3


@pytest.mark.parametrize(
    ("text", "size"),
    [("8MiB", 8 * MIB), ("8m", 8 * MIB), ("1024K", MIB), ("4194304", 4 * MIB), ("100 MiB", 100 * MIB)],
)
def test_block_size_of_the_flag(text: str, size: int) -> None:
    assert option_values.block_size(text) == size


@pytest.mark.parametrize("text", ["", "8GiB", "0", "1023K", "101MiB", "-8MiB", "8.5MiB", "MiB", "9" * 30])
def test_block_size_of_the_flag_refused(text: str) -> None:
    with pytest.raises(UsageError, match="1MiB to 100MiB"):
        option_values.block_size(text)


def test_concurrency_of_the_flag() -> None:
    assert option_values.concurrency("64") == 64
    for text in ("0", "65", "x", "", "-1", "1.5"):
        with pytest.raises(UsageError, match="1 to 64"):
            option_values.concurrency(text)
