"""Weights that no layout lists: never a part of a model, and proposed with a path that a user can load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.core.errors import DataError
from aml_mirror.layouts import explicit_checkpoint, find_run
from aml_mirror.layouts.explicit_path import to_name
from aml_mirror.sources.tree import Tree
from builders.saved import safetensors, write_bytes, write_json
from builders.torch_zip import save

MakeTree = Callable[[Path], Tree]


def sharded(folder: Path, suffix: str = ".safetensors", stem: str = "model", count: int = 3) -> list[str]:
    names = [f"{stem}-{number:05}-of-{count:05}{suffix}" for number in range(1, count + 1)]
    for number, name in enumerate(names):
        if suffix == ".safetensors":
            safetensors(folder / name, number)
        else:
            save(folder / name, {}, b"%d" % number)
    index = f"{stem}{suffix}.index.json"
    write_json(folder / index, {"weight_map": {f"w{at}": name for at, name in enumerate(names)}})
    return [*names, index]


@pytest.mark.parametrize(("suffix", "stem"), [(".safetensors", "model"), (".bin", "pytorch_model")])
def test_a_shard_is_never_taken_alone(tree: MakeTree, tmp_path: Path, suffix: str, stem: str) -> None:
    names = sharded(tmp_path / "vla", suffix, stem)
    write_json(tmp_path / "vla/dataset_statistics.json", {})
    safetensors(tmp_path / "vla/other.safetensors")
    found = explicit_checkpoint(tree(tmp_path), f"vla/{names[1]}")
    assert found and not found.problem
    assert found.path == f"vla/{names[0]}"
    assert found.weights == tuple(f"vla/{name}" for name in names[:3])
    assert set(found.files) == {f"vla/{name}" for name in (*names, "dataset_statistics.json")}
    (tmp_path / "vla" / names[2]).unlink()
    found = explicit_checkpoint(tree(tmp_path), f"vla/{names[1]}")
    assert found and "is missing" in found.problem
    (tmp_path / "vla" / names[3]).unlink()
    found = explicit_checkpoint(tree(tmp_path), f"vla/{names[1]}")
    assert found and "index" in found.problem


def test_shards_that_no_index_covers_are_counted(tree: MakeTree, tmp_path: Path) -> None:
    safetensors(tmp_path / "model-1-of-2.safetensors")
    found = explicit_checkpoint(tree(tmp_path), "model-1-of-2.safetensors")
    assert found and found.problem == "it has only 1 of its 2 shards"


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("__0_0.distcp", ["__0_0.distcp", "__1_0.distcp", ".metadata"]),
        ("model_rank_0.pt", ["model_rank_0.pt", "model_rank_1.pt"]),
    ],
)
def test_of_other_parts_the_folder_is_taken(
    tree: MakeTree, tmp_path: Path, name: str, names: list[str]
) -> None:
    for each in names:
        write_bytes(tmp_path / "model" / each)
    found = explicit_checkpoint(tree(tmp_path), f"model/{name}")
    assert found
    assert (found.path, set(found.files)) == ("model", {f"model/{each}" for each in names})


@pytest.mark.parametrize(
    ("paths", "proposed"),
    [
        (["policy.safetensors"], "policy.safetensors"),
        # These are loaded by their folder.
        (["config.json", "model.safetensors", "policy_preprocessor.json"], "."),
        (["a/encoder.safetensors", "a/decoder.safetensors"], "a"),
        # Other weights are deeper in the folder, so it would be more than one model.
        (["config.json", "model.safetensors", "teacher/model.safetensors"], "model.safetensors"),
        # Order: names of a model, names of an end, the largest number, the later date.
        (["a/encoder.pt", "b/policy.pt"], "b/policy.pt"),
        (["a/policy.pt", "b/policy_last.pt"], "b/policy_last.pt"),
        (["ckpt/20260101T000000/agent.pt", "ckpt/20260102T000000/agent.pt"], "ckpt/20260102T000000/agent.pt"),
        (["ep9-rank0.pt", "ep10-rank0.pt", "config.yaml"], "ep10-rank0.pt"),
        (["a/encoder.pt", "a/model_last.pt"], "a/model_last.pt"),
        (["run_9/x.pt", "run_10/x.pt"], "run_10/x.pt"),
        (["data/a.pt", "exported/deep/b.pt"], "exported/deep/b.pt"),
        (["data/a.pt"], "data/a.pt"),
        (["notes.txt"], ""),
    ],
)
def test_what_a_person_is_told_to_name(
    tree: MakeTree, tmp_path: Path, paths: list[str], proposed: str
) -> None:
    for path in paths:
        (safetensors if path.endswith(".safetensors") else write_bytes)(tmp_path / path)
    assert to_name(tree(tmp_path))[:1] == [proposed][: bool(proposed)]
    assert not proposed or explicit_checkpoint(tree(tmp_path), proposed)


def test_the_error_names_the_folder_of_a_sharded_model(tree: MakeTree, tmp_path: Path) -> None:
    sharded(tmp_path / "vla+image_aug")
    sharded(tmp_path / "vla+cut")
    (tmp_path / "vla+cut/model-00003-of-00003.safetensors").unlink()
    with pytest.raises(DataError) as caught:
        find_run(tree(tmp_path))
    assert "--checkpoint 'vla+image_aug'" in caught.value.hint
    # Truncated files are named if there is nothing else, and the mirror says what is missing.
    write_bytes(tmp_path / "vla+image_aug/model-00001-of-00003.safetensors", b"")
    assert to_name(tree(tmp_path)) in (["vla+image_aug"], ["vla+cut"])


@pytest.mark.parametrize("names", [("language_model", "action_head"), ("unet", "vae", "text_encoder")])
def test_a_hint_never_proposes_a_part_of_a_model(tree, tmp_path, names):
    for number, name in enumerate(names):
        safetensors(tmp_path / "out" / name / "weights.safetensors", number)
        write_json(tmp_path / "out" / name / "config.json", {})
    write_json(tmp_path / "out/config.json", {})
    assert to_name(tree(tmp_path)) == ["out"]
    assert to_name(tree(tmp_path / "out")) == ["."]
