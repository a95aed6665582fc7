"""The registered bytes are the trained bytes: each kind of file is changed at each stage, in each way.

A cell changes one file in the source or in the storage. The test knows the truth without the program: the
trained bytes and the changed bytes. ``verify`` and a repeated mirror with hashing (``mirror --hash``) must
report the same. Then ``repair`` restores what was mirrored if the source still has the bytes. If not, it says
so and writes nothing. `make test-truth` runs every cell, `make test` a sample. Both print the table that
tests/azure/README.md explains.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from azure.core.exceptions import ResourceNotFoundError

from azure_emulator.client import Azure
from builders import matrix
from builders.runs import huggingface_run, write_weights
from mirroring import Mirroring, complete_versions, points_of, runs_of, wait_until_asked

TITLE = "what verify, the next run and repair say of a file that was changed"
WHOLE = os.environ.get("TRUTH") == "all"
POINTS = 5
CHANGES = ("changed", "cut", "longer", "replaced", "deleted")
# Kind of file -> what the names of its blobs contain.
STORED = {
    "checkpoint blob": "/model/model.safetensors",
    "manifest": "/mirror/reach/manifest.json",
    "model card": "/mirror/reach/MODEL_CARD.md",
    "stored log": "/mirror/reach/tensorboard/",
    "state of the logs": "/mirror/reach.logs-",
    "list of stored files": "/mirror/reach.stored-",
    "second copies": "/mirror/reach.copies",
}
SOURCE = ("source checkpoint", "source log")
# The requests before which a mirror pauses while a file is changed: the version, and the last check.
HELD = {
    "all is sent": r"PUT https://management[^?]*/versions/1\?",
    "the run is finished": r"/runs/update",
}


def changed(data: bytes, how: str) -> bytes:
    """Other bytes, of the same length unless the change is one of the length."""
    at = len(data) // 2
    return {
        "changed": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        "cut": data[: at or 1],
        "longer": data + b" and more",
        "replaced": bytes(reversed(data)),
    }[how]


class Stored:
    """One blob of the version, and its state after the change."""

    def __init__(self, azure: Azure, kind: str) -> None:
        names = [name for name in azure.blobs("aml-mirror/") if STORED[kind] in name]
        if kind == "state of the logs" and len(names) > 1:
            # Those of earlier updates stay. The version's tag names the current one.
            digest = azure.models()["reach"]["1"]["tags"]["mirror.logs"].split(":")[1]
            names = [name for name in names if digest in name]
        (name,) = names
        self._blob = azure.blob_service().get_blob_client(azure.container, name)
        self.before = self._blob.download_blob().readall()
        self.after: bytes | None = None

    def touch(self, how: str) -> None:
        """Change it as anybody with write access to the storage can."""
        if how == "deleted":
            self._blob.delete_blob()
            return
        self.after = changed(self.before, how)
        kept = self._blob.get_blob_properties().metadata
        self._blob.upload_blob(self.after, overwrite=True, metadata=kept)

    @property
    def is_damaged(self) -> bool:
        """Whether it is still in its changed state."""
        try:
            return bool(self._blob.download_blob().readall() == self.after)
        except ResourceNotFoundError:
            return True


def trained(run: Path) -> dict[str, bytes]:
    return {
        name: (run / "checkpoint-20" / name).read_bytes() for name in ("model.safetensors", "config.json")
    }


def registered(azure: Azure, number: str = "1") -> dict[str, bytes]:
    """Path -> bytes of the files of a version."""
    prefix = str(azure.models()["reach"][number]["modelUri"]).partition("/paths/")[2]
    return {name.removeprefix(prefix): azure.read(name) for name in azure.blobs(prefix)}


def assert_said(mirroring: Mirroring, run: Path, is_sound: bool) -> None:
    """``verify`` and the next run agree with the truth."""
    code = 0 if is_sound else 65
    found = mirroring("verify", "reach:1", "--json", code=code)
    if not is_sound:
        assert "aml-mirror repair reach:1" in found.out + found.err
    looked = mirroring.mirror(run, "reach", "--hash", code=code).json
    assert looked["outcome"] == ("already-mirrored" if is_sound else "failed")


def judge(azure: Azure, mirroring: Mirroring, run: Path, stored: Stored, kind: str) -> str:
    """Compare the reports with the truth, repair, and compare again; return the result."""
    if not stored.is_damaged or kind == "second copies":
        assert_said(mirroring, run, is_sound=True)
        return "sound"
    assert_said(mirroring, run, is_sound=False)
    assert mirroring("repair", "reach:1", "--json").json["outcome"] == "repaired"
    assert registered(azure) == trained(run)
    assert_said(mirroring, run, is_sound=True)
    return "65, repaired"


def sample(cells: list[tuple[str, ...]], every: int, first: int = 0) -> list[tuple[str, ...]]:
    return cells if WHOLE else cells[first::every]


AFTERWARDS = [(kind, how) for kind in STORED for how in CHANGES]
DURING = [
    (stage, kind, how) for stage in HELD for kind in STORED for how in CHANGES if kind != "second copies"
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-7", steps=(20,), points=POINTS)


def grow(run: Path, points: int) -> None:
    """Let the training log more."""
    longer = huggingface_run(run.parent / f"longer-{points}", steps=(20,), points=points)
    events, more = (next((folder / "runs").rglob("events*")) for folder in (run, longer))
    assert more.read_bytes().startswith(events.read_bytes())
    events.write_bytes(more.read_bytes())
    shutil.rmtree(longer)


# One version per kind of file. The sample has one version for all kinds.
GROUPS = [
    (grown, cells)
    for grown in (False, True)
    for cells in (
        [[cell for cell in AFTERWARDS if cell[0] == kind] for kind in STORED]
        if WHOLE
        else [AFTERWARDS[6 * grown :: 12]]
    )
]


@pytest.mark.parametrize(("grown", "cells"), GROUPS)
def test_changed_after_the_mirror(
    azure: Azure,
    mirroring: Mirroring,
    run: Path,
    request: pytest.FixtureRequest,
    grown: bool,
    cells: list[tuple[str, str]],
) -> None:
    """One version for all cells: each is repaired before the next."""
    mirroring.mirror(run, "reach")
    if grown:
        grow(run, POINTS + 3)
        assert mirroring.mirror(run, "reach").json["outcome"] == "updated"
    stage = "mirrored, its log grew" if grown else "mirrored"
    for kind, how in cells:
        stored = Stored(azure, kind)
        stored.touch(how)
        outcome = judge(azure, mirroring, run, stored, kind)
        matrix.note(request, TITLE, f"{stage}: {kind}", how, outcome)


@pytest.mark.parametrize(("stage", "kind", "how"), sample(DURING, 25, 5))
def test_changed_during_the_mirror(
    azure: Azure,
    mirroring: Mirroring,
    run: Path,
    request: pytest.FixtureRequest,
    stage: str,
    kind: str,
    how: str,
) -> None:
    azure.fault("stall", match=HELD[stage], seconds=60)
    process = mirroring.start("--source", run, "--model-name", "reach")
    while not azure.faults()[0]["acted"]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    stored = Stored(azure, kind)
    stored.touch(how)
    azure.clear_faults()
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert json.loads(out)["outcome"] == "mirrored"
    if kind == "checkpoint blob":
        # The last check found it and sent it again.
        assert not stored.is_damaged
    assert registered(azure) == trained(run)
    outcome = judge(azure, mirroring, run, stored, kind)
    matrix.note(request, TITLE, f"{stage}: {kind}", how, outcome)


# --- the source ------------------------------------------------------------------------------------------


def touch_source(run: Path, kind: str, how: str) -> None:
    path = run / "checkpoint-20" / "model.safetensors"
    if kind == "source log":
        path = next((run / "runs").rglob("events*"))
        if how == "longer":
            grow(run, POINTS + 3)
            return
    if how == "deleted":
        path.unlink()
    elif how == "replaced" and kind == "source checkpoint":
        write_weights(path, seed=99)
    else:
        path.write_bytes(changed(path.read_bytes(), how))


def next_run(azure: Azure, mirroring: Mirroring, run: Path, kind: str, how: str) -> str:
    """Mirror a run whose source was changed. The report must match the stored bytes."""
    done = mirroring.mirror(run, "reach", code=None)
    outcome = str(done.json["outcome"])
    numbers = sorted(complete_versions(azure, "reach"))
    if outcome == "mirrored":
        assert numbers == ["1", "2"], "another checkpoint is another version"
        assert registered(azure, "2") == trained(run)
        assert mirroring("verify", "reach:2", "--json").json["outcome"] == "verified"
    else:
        assert numbers == ["1"]
    if outcome == "updated":
        (found,) = runs_of(azure, "reach")
        last = POINTS + 3 if how == "longer" else POINTS
        assert points_of(azure, found.info.run_id, "train/loss") == list(range(1, last + 1))
    if outcome == "failed":
        assert done.code == 65, done.err
        assert kind != "source log" or "the beginning of" in done.json["error"]
        return "65"
    return outcome


EXPECTED: dict[tuple[str, str], str] = {
    # A safetensors file of another length is not complete. Other bytes of the same length make another file.
    ("source checkpoint", "changed"): "mirrored",
    ("source checkpoint", "cut"): "65",
    ("source checkpoint", "longer"): "65",
    ("source checkpoint", "replaced"): "mirrored",
    ("source checkpoint", "deleted"): "65",
    ("source log", "changed"): "65",
    ("source log", "cut"): "65",
    ("source log", "longer"): "updated",
    ("source log", "replaced"): "65",
    ("source log", "deleted"): "updated",
}


@pytest.mark.parametrize(("kind", "how"), sample([(kind, how) for kind in SOURCE for how in CHANGES], 4, 2))
def test_the_source_changed_after_the_mirror(
    azure: Azure, mirroring: Mirroring, run: Path, request: pytest.FixtureRequest, kind: str, how: str
) -> None:
    mirroring.mirror(run, "reach")
    before = trained(run)
    touch_source(run, kind, how)
    # The registered bytes are those from that time.
    assert mirroring("verify", "reach:1", "--json").json["outcome"] == "verified"
    outcome = next_run(azure, mirroring, run, kind, how)
    assert outcome == EXPECTED[kind, how]
    assert registered(azure) == before
    assert mirroring("verify", "reach:1", "--json").json["outcome"] == "verified"
    repaired = ""
    if kind == "source checkpoint" and how in ("changed", "cut"):
        Stored1(azure).touch("changed")
        refused = mirroring("repair", "reach:1", code=65)
        assert "no longer has the bytes" in refused.err or "checkpoint" in refused.err
        repaired = "; repair 65"
    matrix.note(request, TITLE, f"mirrored: {kind}", how, outcome + repaired)


class Stored1(Stored):
    """The blob of the checkpoint in version 1, if there are other versions."""

    def __init__(self, azure: Azure) -> None:
        prefix = str(azure.models()["reach"]["1"]["modelUri"]).partition("/paths/")[2]
        self._blob = azure.blob_service().get_blob_client(azure.container, f"{prefix}model.safetensors")
        self.before = self._blob.download_blob().readall()
        self.after = None


@pytest.mark.parametrize(("kind", "how"), sample([(kind, how) for kind in SOURCE for how in CHANGES], 6, 3))
def test_the_source_changed_during_the_mirror(
    azure: Azure, mirroring: Mirroring, run: Path, request: pytest.FixtureRequest, kind: str, how: str
) -> None:
    """Changed before the checkpoint is sent: the registered bytes are the ones from before or after the
    change.
    """
    before = trained(run)
    azure.fault("stall", match="runs/create", seconds=60)
    process = mirroring.start("--source", run, "--model-name", "reach")
    wait_until_asked(azure, process, "runs/create")
    touch_source(run, kind, how)
    azure.clear_faults()
    out, _ = process.communicate(timeout=600)
    first = json.loads(out)["outcome"] if process.returncode == 0 else str(process.returncode)
    assert process.returncode in (0, 65)
    if process.returncode == 0:
        assert registered(azure) == before
        assert mirroring("verify", "reach:1", "--json").json["outcome"] == "verified"
    else:
        assert not complete_versions(azure, "reach")
    again = mirroring.mirror(run, "reach", code=None)
    for number in complete_versions(azure, "reach"):
        assert registered(azure, number) in (before, trained(run)), number
        assert mirroring("verify", f"reach:{number}", "--json").json["outcome"] == "verified"
    matrix.note(request, TITLE, f"being mirrored: {kind}", how, f"{first}, {again.json['outcome']}")
