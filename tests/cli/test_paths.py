"""Paths as a shell completes them: --checkpoint as a path below --source, relative to the working
directory.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.program import Call
from builders.runs import huggingface_run


@pytest.mark.parametrize(
    "checkpoint",
    [
        "checkpoint-10",
        "runs/ppo/checkpoint-10",
        "runs/ppo/checkpoint-10/",
        "./runs/ppo/checkpoint-10",
        "{cwd}/runs/ppo/checkpoint-10",
        "alias/checkpoint-10",
        "runs/ppo/checkpoint-10/model.safetensors",
    ],
)
def test_a_checkpoint_below_the_source(aml_mirror: Call, tmp_path: Path, checkpoint: str) -> None:
    huggingface_run(tmp_path / "runs" / "ppo", steps=(10, 20), points=3)
    (tmp_path / "alias").symlink_to("runs/ppo")
    words = ("plan", "runs/ppo", "--checkpoint", checkpoint.format(cwd=tmp_path), "--json")
    if checkpoint.endswith(".safetensors"):
        assert "is part of the checkpoint checkpoint-10" in aml_mirror(*words, cwd=tmp_path, code=64).err
    else:
        assert aml_mirror(*words, cwd=tmp_path).json["checkpoint"]["path"] == "checkpoint-10"


@pytest.mark.parametrize(
    "checkpoint", ["checkpoint-10", "a/run-1/checkpoint-10", "outer/a/run-1/checkpoint-10"]
)
def test_a_checkpoint_of_a_run_below_the_source(aml_mirror: Call, tmp_path: Path, checkpoint: str) -> None:
    huggingface_run(tmp_path / "outer" / "a" / "run-1", steps=(10, 20), points=3)
    plan = aml_mirror("plan", "outer", "--checkpoint", checkpoint, "--json", cwd=tmp_path).json
    assert (plan["run_root"], plan["checkpoint"]["path"]) == ("a/run-1", "checkpoint-10")


def test_what_is_in_the_run_under_this_name_wins(aml_mirror: Call, tmp_path: Path) -> None:
    """It means ``ppo/checkpoint-10`` below the run, not the run's own checkpoint of that name."""
    run = huggingface_run(tmp_path / "ppo", steps=(10, 20), points=3)
    (run / "ppo").mkdir()
    (run / "ppo" / "x.pt").write_bytes((run / "checkpoint-10" / "model.safetensors").read_bytes())
    said = aml_mirror("plan", "ppo", "--checkpoint", "ppo/x.pt", cwd=tmp_path, code=None)
    assert "ppo/x.pt" in said.out + said.err


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("finl", "did you mean final?"),
        ("bset", "did you mean best?"),
        ("checkpoint-21", "did you mean checkpoint-20?"),
        ("elsewhere/checkpoint-10", "no checkpoint has the path elsewhere/checkpoint-10"),
    ],
)
def test_a_checkpoint_that_is_not_there(aml_mirror: Call, tmp_path: Path, wanted: str, said: str) -> None:
    huggingface_run(tmp_path / "run", steps=(10, 20), points=3)
    huggingface_run(tmp_path / "elsewhere", steps=(10, 20), points=3)
    assert said in aml_mirror("plan", "run", "--checkpoint", wanted, cwd=tmp_path, code=64).err
