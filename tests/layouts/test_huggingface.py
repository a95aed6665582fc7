"""Hugging Face runs: real ones of transformers 5.23 and peft 0.21, complete, copied, resumed and damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.layouts.base import Run
from aml_mirror.layouts.huggingface.layout import HuggingFace
from aml_mirror.layouts.huggingface.saved_files import describe
from aml_mirror.sources.tree import Tree
from builders.saved import safetensors, write_bytes, write_json
from builders.torch_zip import save

MakeTree = Callable[[Path], Tree]
RUNS = Path(__file__).parents[1] / "data" / "runs"
TRAINING_ONLY = {"optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json", "training_args.bin"}


@pytest.fixture
def best_reloaded(tmp_path: Path) -> Path:
    """A real run: save_total_limit=2, load_best_model_at_end, then save_model() into the root."""
    return shutil.copytree(RUNS / "huggingface_best_reloaded", tmp_path / "run")


def read(tree: MakeTree, folder: Path) -> Run:
    found = HuggingFace().find(tree(folder))
    assert found == [""]
    return HuggingFace().read(tree(folder))


def paths(run: Run) -> list[str]:
    return [checkpoint.path for checkpoint in run.checkpoints]


def make(folder: Path, step: int, seed: int | None = None, best: str | None = None, **state: object) -> None:
    """A checkpoint as the Trainer leaves it."""
    checkpoint = folder / f"checkpoint-{step}"
    safetensors(checkpoint / "model.safetensors", step if seed is None else seed)
    write_json(checkpoint / "config.json", {"model_type": "gpt2"})
    write_bytes(checkpoint / "optimizer.pt")
    write_bytes(checkpoint / "training_args.bin")
    values = {"global_step": step, "best_model_checkpoint": best, "log_history": [], **state}
    write_json(checkpoint / "trainer_state.json", values)


def test_final_best_and_the_root_that_looks_final(tree: MakeTree, best_reloaded: Path) -> None:
    run = read(tree, best_reloaded)
    assert paths(run) == ["checkpoint-40", "checkpoint-10"]
    assert [(item.step, item.role) for item in run.checkpoints] == [(40, "final"), (10, "periodic")]
    assert run.best is not None
    assert (run.best.path, run.best.step, run.best.role) == ("checkpoint-10", 10, "best")
    final = run.checkpoints[0]
    assert final.files == tuple(
        f"checkpoint-40/{name}" for name in ("config.json", "generation_config.json", "model.safetensors")
    )
    assert final.weights == ("checkpoint-40/model.safetensors",)
    assert {path.rpartition("/")[2] for path, _ in final.left_out} == TRAINING_ONLY
    assert run.logs == ["checkpoint-40/trainer_state.json"]
    assert run.params["training_args"]["learning_rate"] == 0.01
    assert run.params["config"]["n_embd"] == 16


def test_only_the_best_is_left(tree: MakeTree, best_reloaded: Path) -> None:
    """save_total_limit=1 deletes the last checkpoint at the end, so the model of step 40 does not exist."""
    shutil.copy(best_reloaded / "checkpoint-40/trainer_state.json", best_reloaded / "trainer_state.json")
    shutil.rmtree(best_reloaded / "checkpoint-40")
    run = read(tree, best_reloaded)
    assert paths(run) == ["checkpoint-10"]
    assert "training ended at step 40" in run.warnings[0]


def test_the_root_is_the_best_and_all_that_is_left(tree: MakeTree, best_reloaded: Path) -> None:
    shutil.copy(best_reloaded / "checkpoint-40/trainer_state.json", best_reloaded / "trainer_state.json")
    for step in (10, 40):
        shutil.rmtree(best_reloaded / f"checkpoint-{step}")
    run = read(tree, best_reloaded)
    assert [(item.path, item.step) for item in run.checkpoints] == [(".", 10)]
    assert run.best is not None
    assert run.best.path == "."


def test_the_best_folder_is_gone(tree: MakeTree, best_reloaded: Path) -> None:
    shutil.rmtree(best_reloaded / "checkpoint-10")
    run = read(tree, best_reloaded)
    assert paths(run) == ["checkpoint-40", "."]
    assert run.best is not None
    assert (run.best.path, run.best.step) == (".", 10)
    assert run.warnings == []


def test_the_best_checkpoint_is_damaged(tree: MakeTree, best_reloaded: Path) -> None:
    """The root has the same model. It is never the final one, but is used if everything else is damaged."""
    shutil.copy(best_reloaded / "checkpoint-40/trainer_state.json", best_reloaded / "trainer_state.json")
    with (best_reloaded / "checkpoint-10/model.safetensors").open("r+b") as stream:
        stream.truncate(100)
    run = read(tree, best_reloaded)
    assert [(item.path, item.step) for item in run.checkpoints] == [
        ("checkpoint-40", 40),
        ("checkpoint-10", 10),
        (".", 10),
    ]
    assert run.best is not None
    assert run.best.path == "checkpoint-10"


def test_without_its_arguments_the_root_is_compared(tree: MakeTree, best_reloaded: Path) -> None:
    for path in best_reloaded.glob("**/training_args.bin"):
        path.unlink()
    assert paths(read(tree, best_reloaded)) == ["checkpoint-40", "checkpoint-10"]
    safetensors(best_reloaded / "model.safetensors")
    assert paths(read(tree, best_reloaded)) == ["checkpoint-40", ".", "checkpoint-10"]


def test_the_root_is_newer_than_every_checkpoint(tree: MakeTree, tmp_path: Path) -> None:
    make(tmp_path, 20)
    make(tmp_path, 40)
    safetensors(tmp_path / "model.safetensors", 45)
    write_json(tmp_path / "config.json", {})
    write_json(tmp_path / "trainer_state.json", {"global_step": 45})
    write_json(tmp_path / "all_results.json", {})
    write_bytes(tmp_path / "runs/Jan01/events.out.tfevents.1.vm.1.0")
    write_bytes(tmp_path / "train.log")
    run = read(tree, tmp_path)
    assert [(item.path, item.step, item.role) for item in run.checkpoints] == [
        (".", 45, "final"),
        ("checkpoint-40", 40, "periodic"),
        ("checkpoint-20", 20, "periodic"),
    ]
    assert run.checkpoints[0].files == ("config.json", "model.safetensors")
    assert run.logs == ["trainer_state.json"]


def test_the_root_without_a_state_is_the_end_where_the_plan_allows_it(tree: MakeTree, tmp_path: Path) -> None:
    make(tmp_path, 40, max_steps=45, stateful_callbacks={"TrainerControl": {}})
    safetensors(tmp_path / "model.safetensors", 45)
    run = read(tree, tmp_path)
    # No file has its step: 45 is only the planned end.
    assert (run.checkpoints[0].path, run.checkpoints[0].step) == (".", None)
    assert "no file says at which step" in run.warnings[0] and not run.undecided
    # Not if it may have stopped early, nor if checkpoints of later steps should exist.
    for more in (
        {"max_steps": 45, "stateful_callbacks": {"EarlyStoppingCallback": {}}},
        {"max_steps": 100, "save_steps": 40},
    ):
        make(tmp_path, 40, **more)
        run = read(tree, tmp_path)
        assert [(item.path, item.step) for item in run.checkpoints] == [("checkpoint-40", 40), (".", None)]
        assert "checkpoint-40 (step 40)" in run.undecided


def test_the_root_equal_to_the_last_checkpoint_is_no_other_one(tree: MakeTree, tmp_path: Path) -> None:
    make(tmp_path, 20)
    make(tmp_path, 40)
    shutil.copy(tmp_path / "checkpoint-40/model.safetensors", tmp_path)
    write_json(tmp_path / "trainer_state.json", {"global_step": 40})
    assert paths(read(tree, tmp_path)) == ["checkpoint-40", "checkpoint-20"]
    # It replaces the last one if that is damaged.
    with (tmp_path / "checkpoint-40/model.safetensors").open("r+b") as stream:
        stream.truncate(60)
    assert paths(read(tree, tmp_path)) == ["checkpoint-40", ".", "checkpoint-20"]


def test_a_root_older_than_the_last_checkpoint(tree: MakeTree, tmp_path: Path) -> None:
    make(tmp_path, 20)
    make(tmp_path, 60)
    safetensors(tmp_path / "model.safetensors", 40)
    write_json(tmp_path / "trainer_state.json", {"global_step": 40})
    assert paths(read(tree, tmp_path)) == ["checkpoint-60", ".", "checkpoint-20"]


def test_only_the_root(tree: MakeTree, tmp_path: Path) -> None:
    safetensors(tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", {})
    write_bytes(tmp_path / "training_args.bin")
    run = read(tree, tmp_path)
    assert [(item.path, item.step, item.role) for item in run.checkpoints] == [(".", None, "final")]
    assert run.best is None


@pytest.mark.parametrize("name", ["final", "final_model", "Final-Checkpoint", "last"])
def test_the_model_saved_into_a_folder_at_the_end(tree: MakeTree, tmp_path: Path, name: str) -> None:
    # transformers before 4.46 saved no checkpoint at the last step, unless save_steps included it.
    make(tmp_path, 20)
    make(tmp_path, 40, max_steps=45, stateful_callbacks={"TrainerControl": {}})
    safetensors(tmp_path / name / "model.safetensors", 45)
    write_bytes(tmp_path / name / "training_args.bin")
    run = read(tree, tmp_path)
    assert [(item.path, item.step, item.role) for item in run.checkpoints] == [
        (name, None, "final"),
        ("checkpoint-40", 40, "periodic"),
        ("checkpoint-20", 20, "periodic"),
    ]
    # Newer releases save the same model as a checkpoint, too.
    make(tmp_path, 45)
    assert paths(read(tree, tmp_path)) == ["checkpoint-45", "checkpoint-40", "checkpoint-20"]


def test_the_step_of_a_folder_at_the_end_is_that_of_the_roots_state(tree: MakeTree, tmp_path: Path) -> None:
    make(tmp_path, 40)
    safetensors(tmp_path / "final/model.safetensors", 45)
    write_json(tmp_path / "trainer_state.json", {"global_step": 45})
    assert [(item.path, item.step) for item in read(tree, tmp_path).checkpoints] == [
        ("final", 45),
        ("checkpoint-40", 40),
    ]


def test_a_folder_at_the_end_that_holds_the_best_is_not_the_end(tree: MakeTree, best_reloaded: Path) -> None:
    folder = best_reloaded / "final"
    folder.mkdir()
    for name in ("model.safetensors", "config.json", "training_args.bin"):
        (best_reloaded / name).rename(folder / name)
    run = read(tree, best_reloaded)
    assert paths(run) == ["checkpoint-40", "checkpoint-10"]
    assert run.best is not None and run.best.path == "checkpoint-10"


def test_the_run_is_around_the_only_folder(tree: MakeTree, tmp_path: Path) -> None:
    safetensors(tmp_path / "out/final/model.safetensors")
    write_bytes(tmp_path / "out/final/training_args.bin")
    write_bytes(tmp_path / "out/runs/Jan01/events.out.tfevents.1.vm.1.0")
    assert HuggingFace().find(tree(tmp_path)) == ["out"]
    assert paths(HuggingFace().read(tree(tmp_path).below("out"))) == ["final"]


def test_adapters(tree: MakeTree) -> None:
    run = read(tree, RUNS / "huggingface_peft")
    assert paths(run) == ["checkpoint-40", "checkpoint-30"]
    assert run.checkpoints[0].weights == ("checkpoint-40/adapter_model.safetensors",)
    assert "checkpoint-40/adapter_config.json" in run.checkpoints[0].files
    assert run.params["adapter_config"]["r"] == 2


@pytest.mark.parametrize(
    ("field", "best"),
    [
        ({"best_model_checkpoint": "/gone/machine/out/checkpoint-100"}, "checkpoint-100"),
        ({"best_model_checkpoint": "out\\checkpoint-100\\"}, "checkpoint-100"),
        ({"best_global_step": 100}, "checkpoint-100"),
        ({"best_model_checkpoint": "/x/checkpoint-7"}, None),
        ({"best_model_checkpoint": 5, "best_global_step": True}, None),
        ({"best_model_checkpoint": "/"}, None),
        ({}, None),
    ],
)
def test_best(tree: MakeTree, tmp_path: Path, field: dict[str, object], best: str | None) -> None:
    for step in (20, 100):
        make(tmp_path, step)
    state = tmp_path / "checkpoint-100/trainer_state.json"
    write_json(state, {**json.loads(state.read_text()), **field})
    run = read(tree, tmp_path)
    assert (run.best.path if run.best else None) == best


def test_best_is_read_from_the_newest_whole_state(tree: MakeTree, tmp_path: Path) -> None:
    make(tmp_path, 20, best="a/checkpoint-20")
    make(tmp_path, 40, best="a/checkpoint-40")
    make(tmp_path, 60, best="a/checkpoint-20")
    (tmp_path / "checkpoint-60/trainer_state.json").write_text('{"global_step": 60, ')
    run = read(tree, tmp_path)
    assert run.best is not None
    assert run.best.path == "checkpoint-40"
    assert run.logs == ["checkpoint-40/trainer_state.json"]
    assert "truncated" in run.checkpoints[0].problem


def test_steps_are_numbers(tree: MakeTree, tmp_path: Path) -> None:
    for step in (9, 30, 120):
        make(tmp_path, step)
    assert paths(read(tree, tmp_path)) == ["checkpoint-120", "checkpoint-30", "checkpoint-9"]


def test_a_save_that_had_not_ended(tree: MakeTree, tmp_path: Path) -> None:
    for step in (10, 20, 30):
        make(tmp_path, step)
    (tmp_path / "checkpoint-30/trainer_state.json").unlink()
    (tmp_path / "checkpoint-30/optimizer.pt").unlink()
    write_bytes(tmp_path / "tmp-checkpoint-40/model.safetensors")
    run = read(tree, tmp_path)
    assert paths(run)[:3] == ["tmp-checkpoint-40", "checkpoint-30", "checkpoint-20"]
    assert "temporary" in run.checkpoints[0].problem
    assert "trainer_state.json" in run.checkpoints[1].problem
    assert run.checkpoints[2].problem == ""


def test_weights_alone_are_enough_where_no_checkpoint_has_more(tree: MakeTree, tmp_path: Path) -> None:
    for step in (10, 20):
        safetensors(tmp_path / f"checkpoint-{step}/model.safetensors", step)
        write_json(tmp_path / f"checkpoint-{step}/config.json", {})
    assert [item.problem for item in read(tree, tmp_path).checkpoints] == ["", ""]


def test_weights_or_configuration_lost(tree: MakeTree, tmp_path: Path) -> None:
    for step in (10, 20, 30):
        make(tmp_path, step)
    (tmp_path / "checkpoint-30/model.safetensors").unlink()
    (tmp_path / "checkpoint-20/config.json").unlink()
    problems = [item.problem for item in read(tree, tmp_path).checkpoints]
    assert "no weights" in problems[0]
    assert "config.json" in problems[1]
    assert problems[2] == ""


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards(tree: MakeTree, tmp_path: Path, suffix: str) -> None:
    make(tmp_path, 10)
    make(tmp_path, 20)
    folder, stem = tmp_path / "checkpoint-20", "model" if suffix == "safetensors" else "pytorch_model"
    (folder / "model.safetensors").unlink()
    names = [f"{stem}-{number:05}-of-00003.{suffix}" for number in (1, 2, 3)]
    for name in names:
        safetensors(folder / name)
    index = folder / f"{stem}.{suffix}.index.json"
    write_json(index, {"weight_map": {f"layer{n}": name for n, name in enumerate(names)}})
    run = read(tree, tmp_path)
    assert run.checkpoints[0].problem == ""
    assert run.checkpoints[0].weights == tuple(f"checkpoint-20/{name}" for name in names)
    assert f"checkpoint-20/{index.name}" in run.checkpoints[0].files

    (folder / names[1]).unlink()
    assert names[1] in read(tree, tmp_path).checkpoints[0].problem
    safetensors(folder / names[1])
    index.write_text("{")
    assert "damaged" in read(tree, tmp_path).checkpoints[0].problem
    index.unlink()
    problem = read(tree, tmp_path).checkpoints[0].problem
    assert "index" in problem
    assert "missing" in problem


def test_fsdp_and_deepspeed(tree: MakeTree, tmp_path: Path) -> None:
    make(tmp_path, 10)
    folder = tmp_path / "checkpoint-10"
    for name in (
        "pytorch_model_fsdp_0/__0_0.distcp",
        "pytorch_model_fsdp_0/.metadata",
        "optimizer_0/__0_0.distcp",
    ):
        write_bytes(folder / name)
    for name in ("global_step10/mp_rank_00_model_states.pt", "latest", "zero_to_fp32.py", "rng_state_1.pth"):
        write_bytes(folder / name)
    run = read(tree, tmp_path)
    assert run.checkpoints[0].files == ("checkpoint-10/config.json", "checkpoint-10/model.safetensors")
    # The shards are the weights if there is nothing else.
    (folder / "model.safetensors").unlink()
    final = read(tree, tmp_path).checkpoints[0]
    assert final.problem == ""
    assert final.weights == (
        "checkpoint-10/pytorch_model_fsdp_0/.metadata",
        "checkpoint-10/pytorch_model_fsdp_0/__0_0.distcp",
    )
    (folder / "pytorch_model_fsdp_0/.metadata").unlink()
    assert ".metadata" in read(tree, tmp_path).checkpoints[0].problem
    shutil.rmtree(folder / "pytorch_model_fsdp_0")
    assert "zero_to_fp32" in read(tree, tmp_path).checkpoints[0].problem


def test_a_pipeline_saved_in_parts(tree: MakeTree, tmp_path: Path) -> None:
    make(tmp_path, 10)
    safetensors(tmp_path / "checkpoint-20/unet/diffusion_pytorch_model.safetensors")
    write_json(tmp_path / "checkpoint-20/scheduler/scheduler_config.json", {})
    write_bytes(tmp_path / "checkpoint-20/scheduler.bin")
    write_bytes(tmp_path / "checkpoint-20/runs/events.out.tfevents.1.vm.1.0")
    found = read(tree, tmp_path).checkpoints[0]
    assert found.files == (
        "checkpoint-20/scheduler/scheduler_config.json",
        "checkpoint-20/unet/diffusion_pytorch_model.safetensors",
    )


@pytest.mark.parametrize("name", ["checkpoint-30.tmp", "checkpoint-30-incomplete", ".tmp_checkpoint-30"])
def test_names_of_half_copies(tree: MakeTree, tmp_path: Path, name: str) -> None:
    make(tmp_path, 10)
    safetensors(tmp_path / name / "model.safetensors")
    found = read(tree, tmp_path).checkpoints
    assert [(item.step, item.problem == "") for item in found] == [(30, False), (10, True)]


def test_a_single_save_that_had_not_ended(tree: MakeTree, tmp_path: Path) -> None:
    make(tmp_path, 10)
    (tmp_path / "checkpoint-10/trainer_state.json").unlink()
    assert "trainer_state.json" in read(tree, tmp_path).checkpoints[0].problem


def accelerate(folder: Path, step: int) -> Path:
    """A checkpoint as Accelerator.save_state of accelerate 1.15 writes it, with its files in order of
    writing.
    """
    checkpoint = folder / f"checkpoint-{step}"
    safetensors(checkpoint / "model.safetensors", step)
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl", "random_states_1.pkl"):
        save(checkpoint / name, {"step": step})
    return checkpoint


def test_what_accelerate_saved(tree: MakeTree, tmp_path: Path) -> None:
    for step in (500, 1000):
        accelerate(tmp_path, step)
    run = read(tree, tmp_path)
    assert [(item.step, item.role, item.problem) for item in run.checkpoints] == [
        (1000, "final", ""),
        (500, "periodic", ""),
    ]
    assert run.checkpoints[0].files == ("checkpoint-1000/model.safetensors",)
    assert len(run.checkpoints[0].left_out) == 4
    assert run.warnings == []
    # Scripts save the model once more at the end of training. Nothing states the step.
    safetensors(tmp_path / "model.safetensors", 1234)
    run = read(tree, tmp_path)
    assert paths(run) == ["checkpoint-1000", ".", "checkpoint-500"]
    assert "no file says its step" in run.undecided and run.choices == [".", "checkpoint-1000"]
    # One of them as the source.
    alone = HuggingFace().read(tree(tmp_path / "checkpoint-500"))
    assert [(item.path, item.step, item.problem) for item in alone.checkpoints] == [(".", 500, "")]


@pytest.mark.parametrize("last", ["model.safetensors", "optimizer.bin", "scheduler.bin"])
def test_accelerate_had_not_ended(tree: MakeTree, tmp_path: Path, last: str) -> None:
    """The second process writes its random states while the first still writes the model."""
    accelerate(tmp_path, 500)
    names = ["model.safetensors", "optimizer.bin", "scheduler.bin", "random_states_0.pkl"]
    checkpoint = accelerate(tmp_path, 1000)
    for name in names[names.index(last) + 1 :]:
        (checkpoint / name).unlink()
    run = read(tree, tmp_path)
    assert [(item.step, item.problem == "") for item in run.checkpoints] == [(1000, False), (500, True)]


def test_a_trainers_save_that_was_cut_is_not_accelerates(tree: MakeTree, tmp_path: Path) -> None:
    """With FSDP the Trainer's optimizer has accelerate's file name."""
    checkpoint = tmp_path / "checkpoint-10"
    safetensors(checkpoint / "model.safetensors")
    for name in ("training_args.bin", "optimizer.bin", "scheduler.pt", "rng_state_0.pth"):
        write_bytes(checkpoint / name)
    assert "trainer_state.json" in read(tree, tmp_path).checkpoints[0].problem
    # A script may store accelerate's random states next to it.
    write_bytes(checkpoint / "random_states_0.pkl")
    assert "trainer_state.json" in read(tree, tmp_path).checkpoints[0].problem
    accelerate(tmp_path, 20)
    make(tmp_path, 30)
    problems = {item.step: item.problem for item in read(tree, tmp_path).checkpoints}
    assert "trainer_state.json" in problems[20]


def test_accelerate_with_deepspeed(tree: MakeTree, tmp_path: Path) -> None:
    """RDT: its own hook saves the model, with EMA weights next to it and DeepSpeed's shards in
    pytorch_model/.
    """
    checkpoint = tmp_path / "checkpoint-20000"
    write_json(checkpoint / "config.json", {"model_type": "rdt"})
    for name in (
        *("pytorch_model.bin", "scheduler.bin", "random_states_0.pkl"),
        *(
            "pytorch_model/mp_rank_00_model_states.pt",
            "pytorch_model/zero_pp_rank_0_mp_rank_00_optim_states.pt",
        ),
    ):
        save(checkpoint / name, {})
    for name in ("latest", "zero_to_fp32.py"):
        write_bytes(checkpoint / name)
    safetensors(checkpoint / "ema/model.safetensors")
    (final,) = read(tree, tmp_path).checkpoints
    assert (final.step, final.problem) == (20000, "")
    assert final.files == tuple(
        f"checkpoint-20000/{name}" for name in ("config.json", "ema/model.safetensors", "pytorch_model.bin")
    )
    assert len(final.left_out) == 6


def test_processors_and_custom_code_are_kept(tree: MakeTree, tmp_path: Path) -> None:
    make(tmp_path, 10)
    kept = (
        "tokenizer.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "modeling_x.py",
        "chat_template.jinja",
    )
    for name in kept:
        write_bytes(tmp_path / "checkpoint-10" / name)
    files = read(tree, tmp_path).checkpoints[0].files
    assert {f"checkpoint-10/{name}" for name in kept} <= set(files)


def test_a_run_some_folders_down_and_its_own_parts(tree: MakeTree, tmp_path: Path) -> None:
    run = tmp_path / "a/b"
    make(run, 10)
    safetensors(run / "final/model.safetensors")
    write_bytes(run / "final/training_args.bin")
    assert HuggingFace().find(tree(tmp_path)) == ["a/b"]
    make(tmp_path / "a/c", 10)
    assert HuggingFace().find(tree(tmp_path)) == ["a/b", "a/c"]
    # One checkpoint as the source.
    found = HuggingFace().read(tree(run / "checkpoint-10"))
    assert [(item.path, item.step) for item in found.checkpoints] == [(".", 10)]


def test_what_is_no_run_of_a_trainer(tree: MakeTree, tmp_path: Path) -> None:
    safetensors(tmp_path / "base_model/model.safetensors")
    write_json(tmp_path / "base_model/config.json", {"model_type": "gpt2"})
    write_bytes(tmp_path / "run/checkpoint-10/policy.pt")
    write_bytes(tmp_path / "data/checkpoint-10/notes.txt")
    assert HuggingFace().find(tree(tmp_path)) == []
    # A saved model and nothing else.
    assert HuggingFace().find(tree(tmp_path / "base_model")) == [""]
    write_json(tmp_path / "base_model/config.json", {"type": "act"})
    assert HuggingFace().find(tree(tmp_path / "base_model")) == []
    write_json(tmp_path / "base_model/config.json", {"model_type": "gpt2"})
    safetensors(tmp_path / "base_model/other/model.safetensors")
    assert HuggingFace().find(tree(tmp_path / "base_model")) == []


def test_a_checkpoint_behind_a_link_counts_once(tree: MakeTree, tmp_path: Path) -> None:
    make(tmp_path, 10)
    (tmp_path / "checkpoint-20").symlink_to("checkpoint-10")
    assert paths(read(tree, tmp_path)) == ["checkpoint-10"]
    make(tmp_path / "store", 30)
    (tmp_path / "checkpoint-30").symlink_to("store/checkpoint-30")
    assert paths(read(tree, tmp_path)) == ["store/checkpoint-30", "checkpoint-10"]


def test_damaged_small_files(tree: MakeTree, tmp_path: Path) -> None:
    make(tmp_path, 10)
    for name in ("config.json", "trainer_state.json", "training_args.bin"):
        (tmp_path / "checkpoint-10" / name).write_bytes(b"PK\x03\x04}" + b"\xff" * 40)
    (tmp_path / "trainer_state.json").write_text("[1]")
    run = read(tree, tmp_path)
    assert paths(run) == ["checkpoint-10"]
    (tmp_path / "checkpoint-10/trainer_state.json").write_bytes(b"")
    assert "trainer_state.json" in read(tree, tmp_path).checkpoints[0].problem


@pytest.mark.parametrize("in_root", [False, True])
def test_each_file_that_only_training_needs_is_left_out(
    tree: MakeTree, tmp_path: Path, in_root: bool
) -> None:
    names = {
        *("optimizer.pt", "optimizer.bin", "optimizer_1.bin", "critic-optimizer.pt", "scheduler.pt"),
        *("scheduler.bin", "scheduler_1.bin", "scaler.pt", "rng_state.pth", "rng_state_0.pth"),
        *("random_states_0.pkl", "training_args.bin", "trainer_state.json", "latest", "zero_to_fp32.py"),
        *("sampler.bin", "sampler_1.bin", "dl_state_dict.bin", "user_content.pt", "trainer_log.jsonl"),
        *("events.out.tfevents.1.h", "train.log", "wandb_config.json"),
    }
    kinds = ("png", "jpg", "jpeg", "svg", "mp4", "gif", "csv", "jsonl", "out", "err", "sh", "lock")
    of_root = {
        *(f"{what}_results.json" for what in ("all", "train", "eval", "test", "predict")),
        *(f"x.{kind}" for kind in kinds),
        ".gitattributes",
    }
    folder = tmp_path if in_root else tmp_path / "checkpoint-10"
    safetensors(folder / "model.safetensors")
    for name in ("config.json", *names, *of_root):
        write_bytes(folder / name, b"{}")
    for name in ("global_step10/shard.pt", "pytorch_model/shard.pt"):
        write_bytes(folder / name)
    found = describe(tree(tmp_path), "." if in_root else "checkpoint-10", 10, "periodic")
    prefix = "" if in_root else "checkpoint-10/"
    kept = {path.removeprefix(prefix) for path in found.files}
    left = {path.removeprefix(prefix) for path, _ in found.left_out}
    assert kept == {"config.json", "model.safetensors"} | (set() if in_root else of_root)
    # Only the files of a model saved in the root are listed.
    shards = {"global_step10/shard.pt", "pytorch_model/shard.pt"}
    assert left == (names | of_root if in_root else names | shards)
