"""LeRobot runs: a real one of lerobot 0.4.4 (two of its five steps), complete, copied and damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.layouts.base import Run
from aml_mirror.layouts.lerobot import LeRobot
from aml_mirror.pipeline.completeness import judge
from aml_mirror.sources.tree import Tree
from builders.saved import safetensors, write_bytes, write_json

MakeTree = Callable[[Path], Tree]
RUNS = Path(__file__).parents[1] / "data" / "runs"
PREPROCESSOR_STATE = "policy_preprocessor_step_3_normalizer_processor.safetensors"


@pytest.fixture
def act(tmp_path: Path) -> Path:
    """Steps 40 and 50 of a real run, with checkpoints/last pointing at 000050."""
    return shutil.copytree(RUNS / "lerobot_act", tmp_path / "run", symlinks=True)


def read(tree: MakeTree, folder: Path) -> Run:
    assert LeRobot().find(tree(folder)) == [""]
    return LeRobot().read(tree(folder))


def steps(run: Run) -> list[tuple[int | None, bool]]:
    return [(item.step, item.problem == "") for item in run.checkpoints]


def repoint(run: Path, target: str) -> None:
    (run / "checkpoints/last").unlink()
    (run / "checkpoints/last").symlink_to(target)


def add_step(run: Path, step: str) -> Path:
    folder = shutil.copytree(run / "checkpoints/000050", run / "checkpoints" / step)
    write_json(folder / "training_state/training_step.json", {"step": int(step)})
    return folder


def test_a_whole_run(tree: MakeTree, act: Path) -> None:
    run = read(tree, act)
    final = run.checkpoints[0]
    assert (final.path, final.step, final.role) == ("checkpoints/000050/pretrained_model", 50, "final")
    assert [path.removeprefix(final.path + "/") for path in final.files] == [
        "config.json",
        "model.safetensors",
        "policy_postprocessor.json",
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
        "policy_preprocessor.json",
        PREPROCESSOR_STATE,
        "train_config.json",
    ]
    assert final.weights == (final.path + "/model.safetensors",)
    left = {path for path, _ in final.left_out}
    assert final.path + "/train_config.json" not in left
    assert "checkpoints/000050/training_state/training_step.json" in left
    assert run.best is None
    assert run.params["seed"] == 1000
    assert steps(run) == [(50, True), (40, True)]


def test_what_last_has_not_reached_was_being_saved(tree: MakeTree, act: Path) -> None:
    repoint(act, "000040")
    run = read(tree, act)
    assert steps(run) == [(50, False), (40, True)]
    assert "still being saved" in run.checkpoints[0].problem


def test_a_last_below_several_whole_checkpoints_is_an_old_copy(tree: MakeTree, tmp_path: Path) -> None:
    for step in (2000, 4000, 6000):
        folder = tmp_path / f"checkpoints/{step:06d}"
        safetensors(folder / "pretrained_model/model.safetensors", step)
        write_json(folder / "pretrained_model/config.json", {})
        write_json(folder / "training_state/training_step.json", {"step": step})
    shutil.copytree(tmp_path / "checkpoints/002000", tmp_path / "checkpoints/last")
    run = read(tree, tmp_path)
    assert [(item.step, item.problem) for item in run.checkpoints] == [(6000, ""), (4000, ""), (2000, "")]
    assert "last points to step 2000" in run.warnings[0]
    # The second one was complete before the third was started.
    (tmp_path / "checkpoints/006000/training_state/training_step.json").unlink()
    run = read(tree, tmp_path)
    assert [bool(item.problem) for item in run.checkpoints] == [True, False, False]
    assert "last points to step 2000" in run.warnings[0]


@pytest.mark.parametrize("target", ["000060", "last", "../../..", "/tmp", "000050/training_state"])
def test_a_last_of_no_use(tree: MakeTree, act: Path, target: str) -> None:
    repoint(act, target)
    run = read(tree, act)
    assert steps(run) == [(50, True), (40, True)]
    assert any("which is not a checkpoint; the link was not used" in warning for warning in run.warnings) == (
        target == "000050/training_state"
    )


def test_a_link_below_several_whole_checkpoints_is_an_old_one(tree: MakeTree, act: Path) -> None:
    """The link moves with each save: one step behind is normal, two behind means that it was lost."""
    add_step(act, "000060")
    repoint(act, "000050")
    assert steps(read(tree, act)) == [(60, False), (50, True), (40, True)]
    repoint(act, "000040")
    run = read(tree, act)
    assert steps(run) == [(60, True), (50, True), (40, True)]
    assert "last points to step 40, but there are 2 checkpoints of later steps" in run.warnings[0]


def test_without_last_the_state_tells(tree: MakeTree, act: Path) -> None:
    (act / "checkpoints/last").unlink()
    (act / "checkpoints/000050/training_state/training_step.json").unlink()
    run = read(tree, act)
    assert steps(run) == [(50, False), (40, True)]
    assert "training_step.json" in run.checkpoints[0].problem


def test_the_target_of_last_is_believed(tree: MakeTree, act: Path) -> None:
    shutil.rmtree(act / "checkpoints/000050/training_state")
    assert steps(read(tree, act)) == [(50, True), (40, True)]


def test_shards(tree: MakeTree, act: Path) -> None:
    model = act / "checkpoints/000050/pretrained_model"
    (model / "model.safetensors").unlink()
    (act / "checkpoints/000040/pretrained_model/model.safetensors").unlink()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name in names:
        safetensors(model / name)
    assert "index" in read(tree, act).checkpoints[0].problem
    write_json(model / "model.safetensors.index.json", {"weight_map": dict(enumerate(names))})
    final = read(tree, act).checkpoints[0]
    assert (final.problem, len(final.weights)) == ("", 2)
    (model / names[0]).unlink()
    assert names[0] in read(tree, act).checkpoints[0].problem


def test_no_state_anywhere_is_a_copy_of_the_policies(tree: MakeTree, act: Path) -> None:
    (act / "checkpoints/last").unlink()
    for state in act.glob("checkpoints/*/training_state"):
        shutil.rmtree(state)
    assert steps(read(tree, act)) == [(50, True), (40, True)]


def test_last_as_a_folder(tree: MakeTree, act: Path) -> None:
    """cp -L and object storage turn the link into a copy, which is not another checkpoint."""
    (act / "checkpoints/last").unlink()
    shutil.copytree(act / "checkpoints/000040", act / "checkpoints/last")
    # A copy does not move. The checkpoint has everything that the copy has.
    run = read(tree, act)
    assert steps(run) == [(50, True), (40, True)] and "last points to step 40" in run.warnings[0]
    write_bytes(act / "checkpoints/000040/training_state/optimizer_state.safetensors")
    assert steps(read(tree, act)) == [(50, False), (40, True)]
    shutil.rmtree(act / "checkpoints/000050")
    shutil.rmtree(act / "checkpoints/000040")
    run = read(tree, act)
    assert [(item.path, item.step) for item in run.checkpoints] == [("checkpoints/last/pretrained_model", 40)]
    shutil.rmtree(act / "checkpoints/last/training_state")
    assert [(item.path, item.step) for item in read(tree, act).checkpoints] == [
        ("checkpoints/last/pretrained_model", None)
    ]


def test_steps_are_numbers(tree: MakeTree, act: Path) -> None:
    add_step(act, "1000000")
    add_step(act, "000100")
    repoint(act, "1000000")
    assert [step for step, _ in steps(read(tree, act))] == [1000000, 100, 50, 40]


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", "weights"),
        (PREPROCESSOR_STATE, PREPROCESSOR_STATE),
        ("policy_preprocessor.json", "policy_preprocessor.json"),
    ],
)
def test_a_part_of_the_policy_is_lost(tree: MakeTree, act: Path, lost: str, says: str) -> None:
    (act / "checkpoints/000050/pretrained_model" / lost).unlink()
    run = read(tree, act)
    assert steps(run) == [(50, False), (40, True)]
    assert says in run.checkpoints[0].problem


def test_a_temporary_folder(tree: MakeTree, act: Path) -> None:
    shutil.copytree(act / "checkpoints/000050", act / "checkpoints/000060.tmp")
    assert steps(read(tree, act)) == [(60, False), (50, True), (40, True)]


def test_adapters(tree: MakeTree, act: Path) -> None:
    for folder in act.glob("checkpoints/0*/pretrained_model"):
        (folder / "model.safetensors").unlink()
        safetensors(folder / "adapter_model.safetensors")
        write_json(folder / "adapter_config.json", {})
    final = read(tree, act).checkpoints[0]
    assert final.problem == ""
    assert final.weights == ("checkpoints/000050/pretrained_model/adapter_model.safetensors",)
    assert "checkpoints/000050/pretrained_model/adapter_config.json" in final.files


def test_shards_of_fsdp(tree: MakeTree, act: Path) -> None:
    model = act / "checkpoints/000050/pretrained_model"
    for name in (".metadata", "__0_0.distcp"):
        write_bytes(model / "pytorch_model_fsdp_0" / name)
    final = read(tree, act).checkpoints[0]
    assert not any("fsdp" in path for path in final.files)
    assert sum("fsdp" in path for path, _ in final.left_out) == 2
    (model / "model.safetensors").unlink()
    (act / "checkpoints/000040/pretrained_model/model.safetensors").unlink()
    final = read(tree, act).checkpoints[0]
    assert final.problem == ""
    assert len(final.weights) == 2
    (model / "pytorch_model_fsdp_0/.metadata").unlink()
    assert ".metadata" in read(tree, act).checkpoints[0].problem


def test_averaged_weights_are_there_to_be_asked_for(tree: MakeTree, act: Path) -> None:
    shutil.copytree(
        act / "checkpoints/000050/pretrained_model", act / "checkpoints/000050/pretrained_model_ema"
    )
    run = read(tree, act)
    assert [item.path.rpartition("/")[2] for item in run.checkpoints] == [
        "pretrained_model",
        "pretrained_model",
        "pretrained_model_ema",
    ]
    assert run.checkpoints[2].step == 50
    assert not any("_ema" in path for path in run.checkpoints[0].files)
    assert "pretrained_model_ema" in run.warnings[0]


def test_algorithm_networks_are_left_out(tree: MakeTree, act: Path) -> None:
    safetensors(act / "checkpoints/000050/algorithm/model.safetensors")
    final = read(tree, act).checkpoints[0]
    assert any(path.endswith("algorithm/model.safetensors") for path, _ in final.left_out)


def test_where_the_root_is(tree: MakeTree, act: Path) -> None:
    nested = tree(act.parent)
    assert LeRobot().find(nested) == ["run"]
    # The folder of checkpoints, one step, or one policy as the source.
    for folder, path, step in (
        ("checkpoints", "000050/pretrained_model", 50),
        ("checkpoints/000050", "pretrained_model", 50),
        ("checkpoints/000050/pretrained_model", ".", None),
    ):
        found = tree(act / folder)
        assert LeRobot().find(found) == [""]
        final = LeRobot().read(found).checkpoints[0]
        assert (final.path, final.step, final.problem) == (path, step, "")
    shutil.copytree(act, act.parent / "other", symlinks=True)
    assert LeRobot().find(tree(act.parent)) == ["other", "run"]


def test_old_names(tree: MakeTree, tmp_path: Path) -> None:
    """lerobot 0.1: training_state.pth next to pretrained_model, which contains config.yaml."""
    folder = tmp_path / "checkpoints/005000"
    safetensors(folder / "pretrained_model/model.safetensors")
    write_json(folder / "pretrained_model/config.json", {})
    write_bytes(folder / "pretrained_model/config.yaml")
    write_bytes(folder / "training_state.pth")
    final = read(tree, tmp_path).checkpoints[0]
    assert [path for path, _ in final.left_out] == ["checkpoints/005000/training_state.pth"]
    assert len(final.files) == 3


def test_what_is_no_run_of_lerobot(tree: MakeTree, tmp_path: Path) -> None:
    safetensors(tmp_path / "checkpoints/000010/model.safetensors")
    write_bytes(tmp_path / "dataset/data/chunk-000/episode_000000.parquet")
    safetensors(tmp_path / "smolvla/pretrained_model/model.safetensors")
    write_json(tmp_path / "pi0/pretrained_model/config.json", {})
    write_json(tmp_path / "pi0/pretrained_model/train_config.json", {})
    assert LeRobot().find(tree(tmp_path)) == []


def test_damaged_small_files(tree: MakeTree, act: Path) -> None:
    model = act / "checkpoints/000050/pretrained_model"
    (model / "train_config.json").write_text("{")
    (model / "policy_postprocessor.json").write_text(json.dumps({"steps": [1, {"state_file": 3}]}))
    (model / "policy_preprocessor.json").write_text("[]")
    run = read(tree, act)
    assert steps(run)[0] == (50, True)
    assert any("train_config.json" in warning for warning in run.warnings)


@pytest.fixture
def only(act: Path) -> Path:
    """The real run with only its last step, as if save_freq were the length of the training."""
    shutil.rmtree(act / "checkpoints/000040")
    return act


def test_a_processor_without_its_state_where_there_is_one_checkpoint(tree: MakeTree, only: Path) -> None:
    assert steps(read(tree, only)) == [(50, True)]
    (only / "checkpoints/000050/pretrained_model" / PREPROCESSOR_STATE).unlink()
    run = read(tree, only)
    assert steps(run) == [(50, False)]
    assert PREPROCESSOR_STATE in run.checkpoints[0].problem
    assert "policy_preprocessor.json" in judge(tree(only), run.checkpoints[0])


def test_a_policy_without_its_configuration_where_there_is_one_checkpoint(tree: MakeTree, only: Path) -> None:
    (only / "checkpoints/000050/pretrained_model/config.json").unlink()
    run = read(tree, only)
    assert steps(run) == [(50, False)] and "config.json is missing" in run.checkpoints[0].problem


@pytest.mark.parametrize(("step", "is_asked"), [(40, False), (50, True), (60, True), (None, True)])
def test_another_policy_in_the_root(tree: MakeTree, act: Path, step: int | None, is_asked: bool) -> None:
    """The program asks which of the two is the end, unless one is known to be older."""
    shutil.copytree(act / "checkpoints/000050/pretrained_model", act / "pretrained_model")
    safetensors(act / "pretrained_model/model.safetensors", 9)
    if step is not None:
        write_json(act / "training_state/training_step.json", {"step": step})
    run = read(tree, act)
    choices = ["checkpoints/000050/pretrained_model", "pretrained_model"]
    assert (sorted(run.choices), bool(run.undecided)) == (choices if is_asked else [], is_asked)


@pytest.mark.parametrize("name", ["policy_preprocessor.json", "policy_postprocessor.json"])
def test_a_processor_without_a_byte(tree: MakeTree, only: Path, name: str) -> None:
    (only / "checkpoints/000050/pretrained_model" / name).write_bytes(b"")
    run = read(tree, only)
    assert name in judge(tree(only), run.checkpoints[0])
