"""OpenPI runs: checkpoints of Orbax 0.11.13 and 0.12.8 and of torch, written as OpenPI writes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.layouts import find_runs
from aml_mirror.layouts.base import Run
from aml_mirror.layouts.openpi import OpenPi
from aml_mirror.sources.tree import Tree
from builders.saved import safetensors, write_bytes, write_json

MakeTree = Callable[[Path], Tree]
RUNS = Path(__file__).parents[1] / "data" / "runs"
NORM_STATS = "assets/physical-intelligence/libero/norm_stats.json"


@pytest.fixture
def jax(tmp_path: Path) -> Path:
    return shutil.copytree(RUNS / "openpi_jax/checkpoints/pi0_libero/my_exp", tmp_path / "run")


@pytest.fixture
def torch(tmp_path: Path) -> Path:
    return shutil.copytree(RUNS / "openpi_torch/checkpoints/pi0_libero/exp1", tmp_path / "run")


def read(tree: MakeTree, folder: Path) -> Run:
    assert OpenPi().find(tree(folder)) == [""]
    return OpenPi().read(tree(folder))


def steps(run: Run) -> list[tuple[int | None, bool]]:
    return [(item.step, item.problem == "") for item in run.checkpoints]


def test_jax(tree: MakeTree, jax: Path) -> None:
    run = read(tree, jax)
    assert steps(run) == [(99, True), (80, True)]
    final = run.checkpoints[0]
    assert (final.path, final.role) == ("99", "final")
    assert {f"99/{NORM_STATS}", "99/_CHECKPOINT_METADATA", "99/params/_METADATA"} <= set(final.files)
    assert not any(path.startswith("99/train_state/") for path in final.files)
    assert all(path.startswith("99/train_state/") for path, _ in final.left_out)
    assert len(final.left_out) == 10
    assert len(final.weights) == 7
    assert "99/params/manifest.ocdbt" in final.weights
    assert sum("/ocdbt.process_0/d/" in path for path in final.weights) == 4
    assert run.params == {"asset_id": "physical-intelligence/libero"}
    assert run.best is None


def test_torch(tree: MakeTree, torch: Path) -> None:
    run = read(tree, torch)
    assert steps(run) == [(99, True), (90, True)]
    final = run.checkpoints[0]
    assert final.files == (f"99/{NORM_STATS}", "99/model.safetensors")
    assert final.weights == ("99/model.safetensors",)
    assert [path for path, _ in final.left_out] == ["99/metadata.pt", "99/optimizer.pt"]
    assert run.params["config"]["batch_size"] == 32
    assert run.params["config"]["exp_name"] == "exp1"


@pytest.mark.parametrize("name", ["120.orbax-checkpoint-tmp", "120.orbax-checkpoint-tmp-1795504429635"])
def test_a_temporary_folder_of_orbax(tree: MakeTree, jax: Path, name: str) -> None:
    shutil.copytree(jax / "99", jax / name)
    run = read(tree, jax)
    assert steps(run) == [(120, False), (99, True), (80, True)]
    assert "temporary" in run.checkpoints[0].problem


def test_a_temporary_folder_of_torch(tree: MakeTree, torch: Path) -> None:
    (torch / "99").rename(torch / "tmp_99")
    assert steps(read(tree, torch)) == [(99, False), (90, True)]


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("params/_METADATA", "_METADATA"),
        ("params/manifest.ocdbt", "manifest.ocdbt"),
        ("params/d", "params/d"),
        ("params/ocdbt.process_0", "ocdbt.process_0"),
        ("params", "no weights"),
        ("assets", "assets"),
    ],
)
def test_a_part_is_lost(tree: MakeTree, jax: Path, lost: str, says: str) -> None:
    path = jax / "99" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    run = read(tree, jax)
    assert steps(run) == [(99, False), (80, True)]
    assert says in run.checkpoints[0].problem


@pytest.mark.parametrize("pattern", ["params/manifest.ocdbt", "params/d/*"])
def test_a_cut_store(tree: MakeTree, jax: Path, pattern: str) -> None:
    (path,) = (jax / "99").glob(pattern)
    path.write_bytes(path.read_bytes()[:-1])
    run = read(tree, jax)
    assert steps(run) == [(99, False), (80, True)]
    assert "truncated" in run.checkpoints[0].problem


def test_a_file_of_the_store_is_lost_or_cut(tree: MakeTree, jax: Path) -> None:
    """The index says which data files must exist, and their lengths."""
    store = jax / "99/params/ocdbt.process_0/d"
    largest = max(store.iterdir(), key=lambda path: path.stat().st_size)
    data = largest.read_bytes()
    for kept, says in ((data[: len(data) // 2], "is truncated"), (None, "is missing")):
        largest.unlink()
        if kept is not None:
            largest.write_bytes(kept)
        final = read(tree, jax).checkpoints[0]
        assert largest.name in final.problem
        assert says in final.problem


@pytest.mark.parametrize("pattern", ["params/manifest.ocdbt", "params/d/*"])
def test_a_damaged_index(tree: MakeTree, jax: Path, pattern: str) -> None:
    (path,) = (jax / "99").glob(pattern)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "damaged" in read(tree, jax).checkpoints[0].problem


def test_a_save_that_had_not_ended(tree: MakeTree, jax: Path) -> None:
    path = jax / "99/_CHECKPOINT_METADATA"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "commit_timestamp_nsecs": None}))
    assert steps(read(tree, jax)) == [(99, False), (80, True)]
    path.write_text("{")
    assert steps(read(tree, jax)) == [(99, False), (80, True)]
    path.unlink()
    assert steps(read(tree, jax)) == [(99, True), (80, True)]
    (jax / "99/params").rename(jax / "99/params.orbax-checkpoint-tmp-5")
    assert steps(read(tree, jax)) == [(99, False), (80, True)]


def test_a_part_that_was_being_saved(tree: MakeTree, jax: Path) -> None:
    write_bytes(jax / "99/params/ocdbt.process_1.orbax-checkpoint-tmp-5/d/x")
    run = read(tree, jax)
    assert steps(run) == [(99, False), (80, True)] and "temporary folder" in run.checkpoints[0].problem


def test_the_marker_of_object_storage(tree: MakeTree, tmp_path: Path) -> None:
    run = shutil.copytree(RUNS / "openpi_jax_committed", tmp_path / "run")
    shutil.copytree(run / "99", run / "120")
    assert steps(read(tree, run)) == [(120, True), (99, True)]
    (run / "120/commit_success.txt").unlink()
    found = read(tree, run)
    assert steps(found) == [(120, False), (99, True)]
    assert "commit_success.txt" in found.checkpoints[0].problem


def test_without_ocdbt(tree: MakeTree, tmp_path: Path) -> None:
    for name in ("_METADATA", "params.w/.zarray", "params.w/0.0"):
        write_bytes(tmp_path / "10/params" / name, b"{}")
    write_json(tmp_path / "10" / NORM_STATS, {})
    final = read(tree, tmp_path).checkpoints[0]
    assert final.problem == ""
    assert "10/params/params.w/0.0" in final.weights


def test_where_the_root_is(tree: MakeTree) -> None:
    assert OpenPi().find(tree(RUNS / "openpi_jax")) == ["checkpoints/pi0_libero/my_exp"]
    # One step as the source: the folder's name is its step.
    found = tree(RUNS / "openpi_torch/checkpoints/pi0_libero/exp1/90")
    assert OpenPi().find(found) == [""]
    assert [(item.path, item.step) for item in OpenPi().read(found).checkpoints] == [(".", 90)]


def test_what_is_no_run_of_openpi(tree: MakeTree, tmp_path: Path) -> None:
    safetensors(tmp_path / "a/100/model.safetensors")
    write_bytes(tmp_path / "b/100/default/manifest.ocdbt")
    write_bytes(tmp_path / "c/100/params/weights.bin")
    safetensors(tmp_path / "d/100/model.safetensors")
    write_json(tmp_path / "d/100/trainer_state.json", {})
    write_json(tmp_path / "d/100" / NORM_STATS, {})
    write_json(tmp_path / "assets/pi0/libero/norm_stats.json", {})
    assert OpenPi().find(tree(tmp_path)) == []


@pytest.mark.parametrize("beside", ["_CHECKPOINT_METADATA", "train_state/_METADATA", NORM_STATS])
def test_what_tells_openpi_from_others(tree: MakeTree, tmp_path: Path, beside: str) -> None:
    write_bytes(tmp_path / "10/params/manifest.ocdbt")
    assert OpenPi().find(tree(tmp_path)) == []
    write_bytes(tmp_path / "10" / beside, b"{}")
    assert OpenPi().find(tree(tmp_path)) == [""]


@pytest.mark.parametrize("deleted", [("train_state",), ("train_state", "assets")])
def test_without_the_state_of_the_training(tree: MakeTree, jax: Path, deleted: tuple[str, ...]) -> None:
    for step in ("80", "99"):
        for name in deleted:
            shutil.rmtree(jax / step / name)
    assert steps(read(tree, jax)) == [(99, True), (80, True)]


def test_a_composite_of_orbax_with_other_items(tree: MakeTree, jax: Path) -> None:
    """Any script may save parameters next to other items. Its optimizer is not part of OpenPI's policy."""
    for step in ("80", "99"):
        shutil.rmtree(jax / step / "assets")
        (jax / step / "train_state").rename(jax / step / "opt_state")
        write_bytes(jax / step / "meta/metadata", b"{}")
    assert OpenPi().find(tree(jax)) == []
    assert OpenPi().find(tree(jax / "99")) == []
    (found,) = find_runs(tree(jax.parent))
    assert found.layout.name == "generic"
    run = found.read(tree(jax.parent))
    assert [item.step for item in run.checkpoints] == [99, 80]
    assert not [path for path in run.checkpoints[0].files if "/opt_state/" in path]
    assert {reason for _, reason in run.checkpoints[0].left_out} == {"optimizer state"}


def test_torch_without_what_only_training_needs(tree: MakeTree, torch: Path) -> None:
    for path in torch.glob("*/*.pt"):
        path.unlink()
    assert steps(read(tree, torch)) == [(99, True), (90, True)]


def test_torch_without_weights(tree: MakeTree, torch: Path) -> None:
    shutil.rmtree(torch / "90")
    (torch / "99/model.safetensors").unlink()
    run = read(tree, torch)
    assert "no weights" in run.checkpoints[0].problem


def test_a_step_of_a_run_that_was_stopped_at_once(tree: MakeTree, torch: Path) -> None:
    shutil.rmtree(torch / "90")
    (torch / "99").rename(torch / "tmp_99")
    assert steps(read(tree, torch)) == [(99, False)]


def test_steps_are_numbers(tree: MakeTree, torch: Path) -> None:
    shutil.copytree(torch / "99", torch / "1000")
    assert [step for step, _ in steps(read(tree, torch))] == [1000, 99, 90]
