"""The RSL-RL layout against a run of rsl-rl-lib 5.5.1."""

from __future__ import annotations

import shutil
from pathlib import Path

from aml_mirror.layouts.rsl_rl import RSL_RL
from builders.torch_zip import cut, save

RUN = Path(__file__).parents[1] / "data" / "runs" / "rsl_rl"
LAYOUT = RSL_RL


def test_the_highest_iteration_is_the_end_and_nothing_is_best(tree):
    assert LAYOUT.find(tree(RUN)) == [""]
    run = LAYOUT.read(tree(RUN))
    assert [(item.path, item.step, item.role) for item in run.checkpoints] == [
        ("model_219.pt", 219, "final"),
        ("model_200.pt", 200, "periodic"),
        ("model_50.pt", 50, "periodic"),
        ("model_0.pt", 0, "periodic"),
    ]
    assert run.best is None


def test_what_a_play_script_exports_is_no_checkpoint_and_no_companion(tree):
    assert (RUN / "exported" / "policy.pt").is_file()
    run = LAYOUT.read(tree(RUN))
    assert run.checkpoints[0].files == run.checkpoints[0].weights == ("model_219.pt",)
    assert all("exported" not in item.path for item in run.checkpoints)


def test_isaac_labs_configuration_is_read_and_diffs_are_not(tree, tmp_path):
    run = tmp_path / "logs" / "rsl_rl" / "ant" / "2026-01-01_00-00-00"
    shutil.copytree(RUN, run)
    (run / "params").mkdir()
    (run / "params" / "agent.yaml").write_text("seed: 42\nclip: !!python/tuple [-1, 1]\n")
    (run / "params" / "env.yaml").write_text("sim:\n  dt: 0.005\n")
    (run / "run.json").write_text('{"library": "rsl_rl", "task": "Isaac-Ant-v0"}')
    (run / "git").mkdir()
    (run / "git" / "IsaacLab.diff").write_text("model_999.pt")
    whole = tree(tmp_path)
    assert LAYOUT.find(whole) == ["logs/rsl_rl/ant/2026-01-01_00-00-00"]
    found = LAYOUT.read(whole.below("logs/rsl_rl/ant/2026-01-01_00-00-00"))
    assert found.params == {
        "agent": {"seed": 42, "clip": [-1, 1]},
        "env": {"sim": {"dt": 0.005}},
        "run": {"library": "rsl_rl", "task": "Isaac-Ant-v0"},
    }
    assert found.warnings == []


def test_a_broken_configuration_is_a_warning(tree, tmp_path):
    shutil.copytree(RUN, tmp_path / "run")
    (tmp_path / "run" / "params").mkdir()
    (tmp_path / "run" / "params" / "agent.yaml").write_text("a: [1,")
    found = LAYOUT.read(tree(tmp_path / "run"))
    assert found.checkpoints[0].step == 219
    assert len(found.warnings) == 1
    assert "params/agent.yaml" in found.warnings[0]


def test_files_numbered_alike_by_others_are_not_claimed(tree, tmp_path):
    save(tmp_path / "a" / "model_10.pt", {"state_dict": {"criterion": 1}, "epoch": 10})
    assert LAYOUT.find(tree(tmp_path)) == []
    save(tmp_path / "b" / "model_10.pt", {"model_state_dict": {}, "iter": 10, "infos": None})
    assert LAYOUT.find(tree(tmp_path)) == ["b"]


def test_a_run_whose_newest_file_is_cut_is_still_found_by_an_older_one(tree, tmp_path):
    save(tmp_path / "model_20.pt", {"model_state_dict": {}, "iter": 20, "infos": None})
    cut(save(tmp_path / "model_100.pt", {"model_state_dict": {}, "iter": 100, "infos": None}))
    assert LAYOUT.find(tree(tmp_path)) == [""]
    assert [item.step for item in LAYOUT.read(tree(tmp_path)).checkpoints] == [100, 20]


def test_a_copy_of_a_run_inside_a_run_is_part_of_it(tree, tmp_path):
    save(tmp_path / "model_1.pt", {"iter": 1, "infos": None})
    save(tmp_path / "backup" / "model_9.pt", {"iter": 9, "infos": None})
    assert LAYOUT.find(tree(tmp_path)) == [""]
    assert [item.step for item in LAYOUT.read(tree(tmp_path)).checkpoints] == [1]
