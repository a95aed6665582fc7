"""Files are read once: they are sent to a staging folder while they are hashed, and the service then copies
them to their target.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from azure.storage.blob import BlobBlock
from blake3 import blake3
from safetensors.numpy import save_file

from aml_mirror.core.errors import DataError
from aml_mirror.registries.azureml.read_once import remove_staged
from aml_mirror.sources.hashing import hash_files
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from aml_mirror.storage.azure_cloud import blob_suffix
from aml_mirror.storage.blob_client import container_client
from aml_mirror.transfer import staging_folder
from aml_mirror.transfer.one_pass import OnePass
from aml_mirror.transfer.requests import Requests
from aml_mirror.transfer.staging_folder import remove_staging_folder, staging_folders
from aml_mirror.transfer.transfer import Transfer
from azure_emulator.client import Azure
from builders import matrix
from builders.runs import huggingface_run
from mirroring import (
    Mirroring,
    assert_exactly_once,
    complete_versions,
    files_of,
    points_of,
    runs_of,
    wait_until_asked,
)
from this_process import here  # noqa: F401 - a fixture

MIB = 1 << 20
BLOCK = "--block-size=1MiB"
STAGING = "aml-mirror/.staging/"
WEIGHTS = "checkpoint-20/model.safetensors"


@pytest.fixture
def mirroring(azure: Azure, tmp_path: Path) -> Mirroring:
    return Mirroring(azure, tmp_path)


def large_run(root: Path, seed: int = 20, frozen: int = 0, name: str = "run-1") -> Path:
    """A run with a checkpoint of 6 MiB and a bit, of which ``frozen`` MiB are the same for all seeds."""
    run = huggingface_run(root / name, points=30)
    parts = {"backbone": (0, frozen), "head": (seed, 6 - frozen)}
    tensors = {
        part: np.random.default_rng(source).integers(0, 255, size * MIB, dtype=np.uint8)
        for part, (source, size) in parts.items()
        if size
    }
    save_file(tensors, run / WEIGHTS)
    return run


def blocks_sent(azure: Azure, where: str = "") -> int:
    """How many requests sent a block's bytes to paths that contain this text."""
    found = [one for one in azure.requests("comp=block&") if one["method"] == "PUT" and where in one["path"]]
    return sum(one["bytes_in"] > MIB // 2 for one in found)


def assert_nothing_is_staged(azure: Azure) -> None:
    assert azure.blobs(STAGING) == {}
    service = azure.blob_service().get_container_client(azure.container)
    assert not list(service.list_blobs(name_starts_with=STAGING, include=["uncommittedblobs"]))


def test_each_byte_is_sent_once_to_staging_and_moved_by_the_service(
    mirroring: Mirroring, azure: Azure, tmp_path: Path
) -> None:
    run = large_run(tmp_path)
    receipt = mirroring.mirror(run, "reach", BLOCK).json
    assert_exactly_once(azure, "reach", run, 30)
    assert_nothing_is_staged(azure)
    assert blocks_sent(azure) == blocks_sent(azure, STAGING) == 7 - 1
    size = sum((run / "checkpoint-20" / name).stat().st_size for name in ("model.safetensors", "config.json"))
    events = next((run / "runs").rglob("events*")).stat().st_size
    assert (receipt["bytes_sent"], receipt["bytes_copied"], receipt["bytes_reused"]) == (size + events, 0, 0)
    azure.forget_requests()
    assert mirroring.mirror(run, "reach", BLOCK).json["outcome"] == "already-mirrored"
    assert not azure.requests(".blob.")


# The requests where the mirror of a large run is killed, in order.
STAGES = {
    "staging block": r"PUT https://[^?]*/\.staging/[^?]*\?.*comp=block&",
    "staging commit": r"PUT https://[^?]*/\.staging/[^?]*\?.*comp=blocklist",
    "move": r"PUT https://[^?]*/model/model\.safetensors",
    "block list": r"PUT https://[^?]*\.blocks-",
    "version": r"PUT https://management.*/versions/",
    "removal": r"DELETE https://[^?]*/\.staging/",
}
WHOLE = os.environ.get("KILL") == "all"
CELLS = [
    ("staging block", "after", True),
    ("staging commit", "after", False),
    ("move", "after", False),
    ("version", "after", True),
    ("removal", "before", False),
]
if WHOLE:
    CELLS = [
        (stage, moment, reuse) for stage in STAGES for moment in matrix.MOMENTS for reuse in (False, True)
    ]


@pytest.mark.parametrize(("stage", "moment", "reuse"), CELLS)
def test_killed_while_files_are_staged_or_moved(
    mirroring: Mirroring,
    azure: Azure,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    stage: str,
    moment: str,
    reuse: bool,
) -> None:
    azure.set_workspace(metric_rows="kept")
    run = large_run(tmp_path, frozen=4)
    earlier = mirror_earlier(mirroring, large_run(tmp_path, 1, 4, "run-0"), "reach") if reuse else {}
    nth = {"staging block": 3}.get(stage, 1)
    again = killed_and_run_again(mirroring, run, "run-1", "reach", earlier, moment, STAGES[stage], nth)
    assert again is not None, "the mirror has no such request"
    matrix.note(request, "killed, read once", stage, moment, again)
    if stage == "staging block":
        # Four of the seven blocks are copied from an earlier version. Of the rest, the block whose request
        # completed has arrived; blocks that were sent at the same time may have arrived or not.
        assert blocks_sent(azure) <= (2 if reuse else 6 - (moment == "after"))
    elif stage in ("staging commit", "move"):
        assert blocks_sent(azure) == 0


if WHOLE:

    @pytest.mark.parametrize("reuse", [False, True])
    @pytest.mark.parametrize("part", matrix.PARTS)
    def test_killed_at_any_request(
        mirroring: Mirroring,
        azure: Azure,
        tmp_path: Path,
        request: pytest.FixtureRequest,
        part: int,
        reuse: bool,
    ) -> None:
        """In one workspace, with a separate model and run id for each."""
        azure.set_workspace(metric_rows="kept")
        run, older = large_run(tmp_path, frozen=4), large_run(tmp_path, 1, 4, "run-0")
        if reuse:
            mirror_earlier(mirroring, older, "count")
        azure.forget_requests()
        mirroring.mirror(run, "count", BLOCK, "--run-id", "count")
        total = len(azure.requests())
        assert total >= 40
        for at in matrix.sample(total, 0, part):
            name = f"m-{at.number}-{at.moment}"
            earlier = mirror_earlier(mirroring, older, name) if reuse else {}
            again = killed_and_run_again(mirroring, run, name, name, earlier, at.moment, "", at.number)
            row = f"request {at.number:02}" + (", blocks reused" if reuse else "")
            matrix.note(request, "killed at any request, read once", row, at.moment, again or "not reached")


def mirror_earlier(mirroring: Mirroring, run: Path, model: str) -> dict[str, Any]:
    """Mirror the version whose blocks can be reused; return the existing versions."""
    mirroring.mirror(run, model, BLOCK)
    return complete_versions(mirroring.azure, model)


def killed_and_run_again(
    mirroring: Mirroring,
    run: Path,
    run_id: str,
    model: str,
    earlier: dict[str, Any],
    moment: str,
    match: str,
    nth: int,
) -> str | None:
    """Kill a mirror at a request and run it again; return the outcome, or None if the request was not
    reached.
    """
    azure = mirroring.azure
    azure.forget_requests()
    azure.fault("kill", match=match, nth=nth, when=moment)
    first = mirroring.mirror(run, model, BLOCK, "--run-id", run_id, code=None)
    azure.clear_faults()
    if not [one for one in azure.requests() if "closed" in one["faults"]]:
        assert first.code == 0, first.err
        return None
    assert first.code == -signal.SIGKILL, first.err
    azure.forget_requests()
    again = mirroring.mirror(run, model, BLOCK, "--run-id", run_id).json
    assert_one_more_version(azure, run, earlier, model, run_id)
    assert_nothing_is_staged(azure)
    return str(again["outcome"])


def assert_one_more_version(
    azure: Azure, run: Path, earlier: dict[str, Any], model: str = "reach", run_id: str = ""
) -> None:
    """One run, and one more version, complete and with every byte."""
    found = complete_versions(azure, model)
    assert azure.models()[model].keys() == found.keys()
    ((number, version),) = [(number, found[number]) for number in found.keys() - earlier.keys()]
    runs = [one for one in runs_of(azure, model) if one.data.tags["osmo.run_id"] == (run_id or run.name)]
    assert [one.info.status for one in runs] == ["FINISHED"]
    assert runs[0].data.tags["mirror.model_version"] == number
    assert points_of(azure, runs[0].info.run_id, "train/loss") == list(range(1, 31))
    folder = (run / WEIGHTS).parent
    assert files_of(azure, version) == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "config.json")
    }


def contents(azure: Azure) -> tuple[Any, set[str]]:
    """The versions, and the paths of all blobs but the lock on version numbers.

    A mirror that is woken may still release that lock, if nobody else has needed it.
    """
    blobs = azure.blobs("aml-mirror/")
    return azure.models()["reach"], {path for path in blobs if not path.startswith("aml-mirror/numbers/")}


def stopped(mirroring: Mirroring, run: Path, match: str, nth: int = 1) -> None:
    """Freeze a mirror at a request, let another finish, wake it: nothing changes any more."""
    azure = mirroring.azure
    azure.fault("stall", match=match, nth=nth, seconds=60)
    process = mirroring.start("--source", run, "--model-name", "reach", BLOCK)
    deadline = time.monotonic() + 600
    while not any(fault["acted"] for fault in azure.faults()) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGSTOP)
    azure.clear_faults()
    try:
        mirroring.mirror(run, "reach", BLOCK)
        before = contents(azure)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    process.communicate(timeout=600)
    assert process.returncode in (0, 75), process.returncode
    assert contents(azure) == before


@pytest.mark.parametrize("stage", STAGES if os.environ.get("STOPS") == "all" else ["staging block", "move"])
def test_a_mirror_that_was_frozen_while_it_staged_or_moved_changes_nothing(
    mirroring: Mirroring, azure: Azure, tmp_path: Path, stage: str
) -> None:
    """Longer than its lease lasts. Without a lease, a staging folder would be shared."""
    azure.set_workspace(metric_rows="kept")
    run = large_run(tmp_path)
    stopped(mirroring, run, STAGES[stage])
    assert_one_more_version(azure, run, {})
    assert_nothing_is_staged(azure)


def test_one_run_into_two_models_at_once(mirroring: Mirroring, azure: Azure, tmp_path: Path) -> None:
    """Each has its own staging folder, and neither reads, writes or removes the other's files."""
    run = large_run(tmp_path)
    azure.fault("stall", match=STAGES["move"], seconds=2)
    process = mirroring.start("--source", run, "--model-name", "reach", BLOCK)
    wait_until_asked(azure, process, "/model/model.safetensors")
    other = mirroring.mirror(run, "grasp", BLOCK).json
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    first = json.loads(out.splitlines()[-1])
    # Its checkpoint, and the version's own files.
    for one in (first, other):
        assert 0 < one["bytes_sent"] - one["bytes"] < 64 << 10
    assert (first["bytes_copied"], other["bytes_copied"]) == (0, 0)
    staged = {one["path"].partition(STAGING)[2][:64] for one in azure.requests(".staging/")}
    assert len(staged - {""}) == 2
    for model in ("reach", "grasp"):
        assert_exactly_once(azure, model, run, 30)
    assert_nothing_is_staged(azure)


def test_what_somebody_planted_in_staging_is_not_taken(
    mirroring: Mirroring, azure: Azure, tmp_path: Path
) -> None:
    """Block ids do not prove bytes: each block that this attempt did not send is compared while it is
    moved.
    """
    run = large_run(tmp_path)
    azure.fault("kill", match=STAGES["staging commit"])
    mirroring.mirror(run, "reach", BLOCK, code=None)
    azure.clear_faults()
    service = azure.blob_service().get_container_client(azure.container)
    (staged,) = service.list_blobs(name_starts_with=STAGING, include=["uncommittedblobs"])
    blob = service.get_blob_client(staged.name)
    _, blocks = blob.get_block_list("uncommitted")
    weights = (run / WEIGHTS).read_bytes()
    ids = sorted(one.id for one in blocks)
    assert len(ids) == 7
    blob.commit_block_list([])
    for number, name in enumerate(ids):
        data = weights[number * MIB : (number + 1) * MIB]
        blob.stage_block(name, bytes(len(data)) if number == 2 else data)
    blob.commit_block_list([BlobBlock(name) for name in ids])
    azure.forget_requests()
    receipt = mirroring.mirror(run, "reach", BLOCK).json
    assert_exactly_once(azure, "reach", run, 30)
    assert_nothing_is_staged(azure)
    # Blocks that the service compared and accepted before it refused need not be sent again.
    assert receipt["bytes_sent"] > MIB


@pytest.mark.parametrize("refuses", ["the copy", "the copy and its blocks"])
def test_what_the_service_does_not_move_is_sent(
    mirroring: Mirroring, azure: Azure, tmp_path: Path, refuses: str
) -> None:
    run = large_run(tmp_path)
    azure.fault("status", match=STAGES["move"], status=403, times=1 if refuses == "the copy" else 5)
    receipt = mirroring.mirror(run, "reach", BLOCK).json
    assert_exactly_once(azure, "reach", run, 30)
    assert_nothing_is_staged(azure)
    assert (receipt["bytes_sent"] > 12 * MIB) == (refuses != "the copy")


def test_blocks_that_an_earlier_version_has_are_taken_from_there(
    mirroring: Mirroring, azure: Azure, tmp_path: Path
) -> None:
    mirroring.mirror(large_run(tmp_path, 1, 4, "run-0"), "reach", BLOCK)
    azure.forget_requests()
    run = large_run(tmp_path, 2, 4)
    receipt = mirroring.mirror(run, "reach", BLOCK).json
    ((_, first), (_, second)) = sorted(complete_versions(azure, "reach").items())
    assert_one_more_version(azure, run, {"1": first})
    # The file's header is in the first block of both. The last frozen block is not complete.
    assert receipt["bytes_reused"] == 4 * MIB
    assert receipt["bytes_sent"] < 3 * MIB
    # The block list has a pinned digest, and contains each block's digest.
    pinned = second["properties"]["blocks_sha256"]
    (name,) = [name for name in azure.blobs("aml-mirror/") if f".blocks-{pinned}" in name]
    data = azure.read(name)
    assert hashlib.sha256(data).hexdigest() == pinned
    (listed,) = json.loads(data)["files"]
    weights = (run / WEIGHTS).read_bytes()
    assert listed["blocks"] == "".join(
        blake3(weights[start : start + MIB]).hexdigest() for start in range(0, len(weights), MIB)
    )
    assert (listed["path"], listed["bytes"]) == ("model.safetensors", len(weights))
    # A list or bytes that somebody has changed do not count.
    mine = [name for name in azure.blobs("aml-mirror/") if name.endswith("/model/model.safetensors")]
    for blob in mine:
        azure.seed({blob: bytes(len(weights))})
    azure.forget_requests()
    third = large_run(tmp_path, 3, 4, "run-3")
    receipt = mirroring.mirror(third, "reach", BLOCK).json
    assert receipt["bytes_reused"] == 0
    assert receipt["bytes_sent"] > 6 * MIB
    assert_one_more_version(azure, third, {"1": first, "2": second})


@pytest.mark.usefixtures("here")
def test_stale_staging_goes_and_what_is_young_stays(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    root = "aml-mirror"
    azure.seed({f"{STAGING}old/a/b.bin": b"123", f"{STAGING}old/c": b"", "aml-mirror/run/x": b"1"})
    service = azure.blob_service().get_container_client(azure.container)
    service.get_blob_client(f"{STAGING}only-blocks/x").stage_block("a" * 64, b"12345")
    container = container_client(f"https://{azure.account}.blob.{blob_suffix()}", azure.container)
    requests = Requests(container, 60, lambda text: None)
    found = {folder.key: folder for folder in staging_folders(requests, root)}
    assert {key: (one.files, one.bytes, one.is_stale) for key, one in found.items()} == {
        "old": (2, 3, False),
        "only-blocks": (1, 0, False),
    }
    # A blob from a week ago proves nothing if another was written a moment ago.
    old = datetime.now(UTC) - timedelta(seconds=staging_folder.STALE_SECONDS + 60)
    real = Requests.listing

    def listing(self: Requests, prefix: str, *include: str) -> dict[str, Any]:
        found = real(self, prefix, *include)
        for path, blob in found.items():
            if path.endswith("b.bin"):
                blob.last_modified = old
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Requests, "listing", listing)
        remove_staged(requests, "reach", "another")
    assert len(staging_folders(requests, root)) == 2
    monkeypatch.setattr(staging_folder, "STALE_SECONDS", -1.0)
    remove_staged(requests, "reach", "another")
    assert staging_folders(requests, root) == []
    assert_nothing_is_staged(azure)
    assert list(azure.blobs("aml-mirror/")) == ["aml-mirror/run/x"]
    for name in ("aml-mirror", "aml-mirror/run", STAGING, "aml-mirror/.staging"):
        with pytest.raises(ValueError, match="not a staging folder"):
            remove_staging_folder(requests, name)


@pytest.mark.usefixtures("here")
def test_a_damaged_file_leaves_nothing_staged(azure: Azure, tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(bytes(5 * MIB))
    source = LocalSource(tmp_path)
    container = container_client(f"https://{azure.account}.blob.{blob_suffix()}", azure.container)

    class Damaged:
        def take(self, part: memoryview) -> None:
            return

        def ended(self) -> None:
            raise DataError("m.bin is damaged", "copy it again")

    reading = OnePass(Requests(container, 60, lambda text: None), f"{STAGING}key", 4, MIB)
    with pytest.raises(DataError, match="is damaged"):
        reading.hash_files(
            Tree(source, source.scan()), {"m.bin": "m.bin"}, lambda count: None, lambda path: Damaged()
        )
    assert_nothing_is_staged(azure)


@pytest.mark.usefixtures("here")
def test_each_byte_is_read_once(azure: Azure, tmp_path: Path) -> None:
    """Small files are opened once. The blocks of a large file are sent from the page cache."""
    for name, size in {"m.bin": 5 * MIB + 7, "a.json": 10, "b.json": 20}.items():
        (tmp_path / name).write_bytes(os.urandom(size))
    source = LocalSource(tmp_path)
    opened: list[str] = []
    real = source.open
    source.open = lambda entry: opened.append(entry.path) or real(entry)  # type: ignore[method-assign,func-returns-value]
    container = container_client(f"https://{azure.account}.blob.{blob_suffix()}", azure.container)
    transfer = Transfer(container, 4, MIB)
    tree = Tree(source, source.scan())
    reading = OnePass(Requests(container, 60, lambda text: None), f"{STAGING}key", 4, MIB)
    told: list[int] = []
    manifest = reading.hash_files(tree, {path: path for path in tree.files}, told.append, lambda path: None)
    assert sum(told) == manifest.bytes == 5 * MIB + 37
    assert manifest == hash_files(tree, {path: path for path in tree.files})
    opened.clear()
    moved = transfer.put(tree, manifest.items, "aml-mirror/x", staged=reading.staged)
    # Bytes that were read are sent from memory, or moved by the service.
    assert opened == []
    assert (reading.staged.sent, moved.sent, moved.copied) == (5 * MIB + 7, 30, 0)
    for name in tree.files:
        assert azure.read(f"aml-mirror/x/{name}") == (tmp_path / name).read_bytes()
