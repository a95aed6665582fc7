"""An earlier release and this one in the same workspace: each recognises and completes the other's work.

``tests/data/releases/aml_mirror-0.1.0.tar.xz`` is the package of the wheel that was built from the last
commit before versions got their present folders (30dc362). It is kept here because CI clones without history.
It runs unchanged, with the same clients; only the package differs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import tarfile
from pathlib import Path

import pytest
from filelock import FileLock

from azure_emulator.client import Azure
from builders.forks import CLIENTS, Forks, forks
from builders.program import ABSENT, clean_environment
from builders.runs import huggingface_run
from mirroring import Done, Mirroring, assert_exactly_once, complete_versions, files_of, wait_until_asked
from stages import STAGES

POINTS = 250
ARCHIVE = Path(__file__).parent.parent / "data" / "releases" / "aml_mirror-0.1.0.tar.xz"
OLD_FORM = re.compile(r".*/aml-mirror/run-7/checkpoint-20/[0-9a-f]{64}/")
NEW_FORM = re.compile(r".*/aml-mirror/run-7/checkpoint-20/sha256-[0-9a-f]{64}/model/")


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder above the earlier package. It is created once for all workers, which share one fork server
    for it.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "earlier"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            with tarfile.open(ARCHIVE) as archive:
                archive.extractall(folder, filter="data")
    return folder


class Earlier(Mirroring):
    """Calls of the earlier release."""

    def __init__(self, azure: Azure, folder: Path, package: Path) -> None:
        super().__init__(azure, folder)
        self.package = package

    def _forks(self) -> Forks:
        def environment() -> dict[str, str]:
            path = os.pathsep.join([str(self.package), ABSENT])
            return clean_environment(**self.azure.control.scope("main").env(), PYTHONPATH=path)

        return forks(CLIENTS, environment, entry="aml_mirror.cli")


@pytest.fixture
def earlier(azure: Azure, tmp_path: Path, package: Path) -> Earlier:
    folder = tmp_path / "earlier"
    folder.mkdir()
    found = Earlier(azure, folder, package)
    assert found("--version").out == "aml-mirror 0.1.0\n"
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-7", points=POINTS)


def uri(azure: Azure, model: str = "reach", number: str = "1") -> str:
    """The path of a version."""
    return str(azure.models()[model][number]["modelUri"])


def assert_all_read_it(run: Path, *programs: Mirroring) -> None:
    """Each release knows the run as mirrored, reports it as complete, and verifies every byte."""
    for program in programs:
        again = program.mirror(run, "reach").json
        assert (again["outcome"], again["model_version"]) == ("already-mirrored", "1")
        told = program("status", "--run-id", "run-7", "--model-name", "reach", "--json").json
        assert [item["version"] for item in told["versions"]] == ["1"]
        assert (told["incomplete"], told["missing"]) == ([], None)
        done = program("verify", "reach:1", "--json").json
        assert (done["outcome"], done["checked_by"]["sha256"]) == ("verified", 2)


def test_the_last_part_of_a_path_is_model(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    receipt = mirroring.mirror(run, "reach").json
    mirroring.mirror(run, "grasp", "--experiment", "reach")
    path = uri(azure)
    assert NEW_FORM.fullmatch(path), path
    assert path.endswith(f"{receipt['manifest_sha256']}/model/")
    # Both models have the same bytes in one folder, and their own files in another.
    assert uri(azure, "grasp") == path
    above = path.partition("/paths/")[2].removesuffix("model/")
    for model in ("reach", "grasp"):
        own = {
            name.removeprefix(f"{above}mirror/{model}/") for name in azure.blobs(f"{above}mirror/{model}/")
        }
        wanted = {"manifest.json", "provenance.intoto.json", "safety.json", "receipt.json", "MODEL_CARD.md"}
        assert own >= wanted
        assert json.loads(azure.read(f"{above}mirror/{model}/receipt.json"))["model_name"] == model
    assert files_of(azure, azure.models()["reach"]["1"]).keys() == {"model.safetensors", "config.json"}


def test_what_the_earlier_release_registered(
    azure: Azure, mirroring: Mirroring, earlier: Earlier, run: Path
) -> None:
    earlier.mirror(run, "reach")
    assert OLD_FORM.fullmatch(uri(azure))
    assert_all_read_it(run, mirroring, earlier)
    done = mirroring("backfill", "--source", run.parent, "--model-name", "reach", "--match", "run-7")
    assert '"already-mirrored"' in done.out, done.out
    assert list(azure.models()["reach"]) == ["1"]


def test_the_earlier_release_reads_what_this_one_registers(
    azure: Azure, mirroring: Mirroring, earlier: Earlier, run: Path
) -> None:
    mirroring.mirror(run, "reach")
    assert_all_read_it(run, earlier, mirroring)
    assert_exactly_once(azure, "reach", run, POINTS)


@pytest.mark.parametrize("first", ["earlier", "this"])
def test_side_by_side(azure: Azure, mirroring: Mirroring, earlier: Earlier, run: Path, first: str) -> None:
    one, other = (earlier, mirroring) if first == "earlier" else (mirroring, earlier)
    azure.fault("stall", match=r"PUT .*/model.safetensors", seconds=3)
    process = one.start("--source", run, "--model-name", "reach")
    wait_until_asked(azure, process, "/model.safetensors")
    assert other.mirror(run, "reach").json["outcome"] == "already-mirrored"
    assert process.wait(600) == 0
    assert_exactly_once(azure, "reach", run, POINTS)


AT = [
    ("log-batch", "before"),
    ("checkpoint", "after"),
    ("version", "before"),
    ("version", "after"),
    ("finish", "after"),
]


@pytest.mark.parametrize(("stage", "when"), AT)
@pytest.mark.parametrize("first", ["earlier", "this"])
def test_either_completes_what_the_other_began(
    azure: Azure, mirroring: Mirroring, earlier: Earlier, run: Path, first: str, stage: str, when: str
) -> None:
    """The folder of a registered version wins. Where nothing is registered, each release uses its own."""
    one, other = (earlier, mirroring) if first == "earlier" else (mirroring, earlier)
    azure.set_workspace(metric_rows="kept")
    azure.fault("kill", match=STAGES[stage], when=when)
    stopped: Done = one.mirror(run, "reach", code=None)
    assert stopped.code == -signal.SIGKILL, stopped.err
    azure.clear_faults()
    registered = uri(azure) if azure.models().get("reach") else ""
    assert other.mirror(run, "reach").code == 0
    assert_exactly_once(azure, "reach", run, POINTS)
    form = {"earlier": OLD_FORM, "this": NEW_FORM}[
        first if registered else "this" if first == "earlier" else "earlier"
    ]
    assert form.fullmatch(uri(azure)), uri(azure)
    assert_all_read_it(run, mirroring, earlier)


def test_the_earlier_release_deletes_nothing_of_this_one(
    azure: Azure, mirroring: Mirroring, earlier: Earlier, run: Path
) -> None:
    """The earlier release deletes everything from its folder that is not in the manifest. Neither folder
    contains the other.
    """
    mirroring.mirror(run, "reach")
    before = files_of(azure, azure.models()["reach"]["1"])
    earlier.mirror(run, "grasp", "--experiment", "reach")
    mirroring.mirror(run, "place", "--experiment", "reach")
    assert files_of(azure, azure.models()["reach"]["1"]) == before
    assert files_of(azure, azure.models()["grasp"]["1"]) == before
    weights = (run / "checkpoint-20" / "model.safetensors").read_bytes()
    assert before["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    for model in ("reach", "grasp", "place"):
        assert mirroring("verify", f"{model}:1", "--json").json["outcome"] == "verified"


def test_a_version_in_another_folder_is_not_ours(azure: Azure, mirroring: Mirroring, run: Path) -> None:
    """Tags and properties are not enough: the folder must match run, checkpoint and manifest."""
    mirroring.mirror(run, "reach")
    version = complete_versions(azure, "reach")["1"]
    place = "azureml://datastores/workspaceblobstore/paths/elsewhere/model/"
    azure.seed_versions(
        "grasp", 1, tags=version["tags"], properties=version["properties"], modelUri=place
    )  # fmt: skip
    receipt = mirroring.mirror(run, "grasp").json
    assert (receipt["outcome"], receipt["model_version"]) == ("mirrored", "2")
    refused = mirroring("verify", "grasp:1", code=65)
    assert "was not made by aml-mirror: its path is" in refused.err
