"""The rl_games layout against runs of rl_games 1.6.5 (PPO), ended by max_epochs and by max_frames."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aml_mirror.layouts.rl_games import RlGames
from builders.torch_zip import cut, save

RUNS = Path(__file__).parents[1] / "data" / "runs"
LAYOUT = RlGames()


def test_a_run_that_ended_at_max_epochs(tree):
    assert LAYOUT.find(tree(RUNS / "rl_games")) == [""]
    run = LAYOUT.read(tree(RUNS / "rl_games"))
    assert [(item.path, item.step, item.role) for item in run.checkpoints] == [
        # Written at the end of training, where the reward is an array. Its brackets became underscores.
        ("nn/last_CartPole_ep_25_rew__22.073727_.pth", 25, "final"),
        ("nn/last_CartPole_ep_25_rew_22.073727.pth", 25, "periodic"),
        ("nn/last_CartPole_ep_20_rew_20.636364.pth", 20, "periodic"),
        ("nn/last_CartPole_ep_15_rew_19.755787.pth", 15, "periodic"),
    ]
    assert (run.best.path, run.best.step) == ("nn/CartPole.pth", 22)
    assert run.params["agent"]["params"]["config"]["name"] == "CartPole"


def test_a_run_that_ended_at_max_frames(tree):
    """Frames and epochs cannot be compared, but the contents of the files can. The name contains a space."""
    run = LAYOUT.read(tree(RUNS / "rl_games_frames"))
    assert [(item.path, item.step) for item in run.checkpoints] == [
        ("nn/last_Cart Pole_frame_3072_rew__21.958057_.pth", 3072),
        ("nn/last_Cart Pole_ep_20_rew_20.636364.pth", 20),
        ("nn/last_Cart Pole_ep_5_rew_21.078627.pth", 5),
    ]
    assert (run.best.path, run.best.step) == ("nn/Cart Pole.pth", 2816)


def test_a_run_that_was_resumed_after_max_frames(tree, tmp_path):
    save(tmp_path / "nn" / "last_a_frame_5000_rew__1.0_.pth", {"epoch": 50, "frame": 5000})
    save(tmp_path / "nn" / "last_a_ep_60_rew_1.5.pth", {"epoch": 60, "frame": 6000})
    run = LAYOUT.read(tree(tmp_path))
    assert [item.step for item in run.checkpoints] == [60, 5000]


def test_a_cut_file_keeps_its_place(tree, tmp_path):
    shutil.copytree(RUNS / "rl_games_frames", tmp_path / "run")
    cut(tmp_path / "run" / "nn" / "last_Cart Pole_frame_3072_rew__21.958057_.pth")
    run = LAYOUT.read(tree(tmp_path / "run"))
    assert [item.step for item in run.checkpoints] == [3072, 20, 5]
    assert run.checkpoints[0].path.endswith("frame_3072_rew__21.958057_.pth")


def test_every_name_that_rl_games_gives(tree, tmp_path):
    for epoch, name in enumerate(
        (
            "last_a_ep_9_rew_-inf.pth",
            "last_a_ep_10_rew_-1.5.pth",
            "last_a_ep_11_rew__ 1.5 -2.0 _.pth",
            "last_aep=12rew=3.5.pth",
            "last_a_custom_stop_ep_13.pth",
            # The score to win was reached: no "last_", and the last file that is written.
            "a_ep_14_rew_99.0.pth",
        ),
        start=9,
    ):
        save(tmp_path / "nn" / name, {"model": {}, "epoch": epoch, "frame": epoch * 100})
    save(tmp_path / "nn" / "a.pth", {"model": {}, "epoch": 14, "frame": 1400})
    save(tmp_path / "nn" / "last_a_ep_14_rew_99.0.pth", {"model": {}, "epoch": 14, "frame": 1400})
    run = LAYOUT.read(tree(tmp_path))
    assert [item.step for item in run.checkpoints] == [14, 14, 13, 12, 11, 10, 9]
    assert run.checkpoints[0].path == "nn/a_ep_14_rew_99.0.pth"
    assert (run.best.path, run.best.step) == ("nn/a.pth", 14)


@pytest.mark.parametrize("end", ["last_a_ep_9_rew_-inf.pth", "last_a_ep_9_rew__ 1.5 _.pth", "last_aep=9.pth"])
def test_of_one_epoch_what_was_written_at_the_end_comes_first(tree, tmp_path, end):
    for name in (end, "last_a_ep_9_rew_99.5.pth", "last_a_ep_8_rew_1.0.pth"):
        epoch = 8 if "_8_" in name else 9
        save(tmp_path / "nn" / name, {"model": {}, "epoch": epoch, "frame": epoch * 100})
    assert LAYOUT.read(tree(tmp_path)).checkpoints[0].path == f"nn/{end}"


def test_a_name_that_says_it_is_the_end_is_not_the_best(tree, tmp_path):
    # Next to numbered files only the file with their name is the best.
    save(tmp_path / "nn" / "final.pth", {"model": {}, "epoch": 7, "frame": 700})
    assert LAYOUT.read(tree(tmp_path)).best is None
    (tmp_path / "nn" / "final.pth").rename(tmp_path / "nn" / "b.pth")
    assert LAYOUT.read(tree(tmp_path)).best.path == "nn/b.pth"


def test_a_name_with_numbers_in_it(tree, tmp_path):
    save(tmp_path / "nn" / "last_keep_2_ep_30_rew_1.0.pth", {"epoch": 30, "frame": 3})
    save(tmp_path / "nn" / "last_keep_2_ep_4_rew_1.0.pth", {"epoch": 4, "frame": 1})
    save(tmp_path / "nn" / "keep_2.pth", {"epoch": 7, "frame": 2})
    run = LAYOUT.read(tree(tmp_path))
    assert [item.step for item in run.checkpoints] == [30, 4]
    assert (run.best.path, run.best.step) == ("nn/keep_2.pth", 7)


def test_others_nn_folders_are_not_claimed(tree, tmp_path):
    save(tmp_path / "a" / "nn" / "weights.pth", {"state_dict": {}, "epoch": 3})
    assert LAYOUT.find(tree(tmp_path)) == []
    save(tmp_path / "b" / "nn" / "x.pth", {"model": {}, "epoch": 3, "last_mean_rewards": 1.0})
    assert LAYOUT.find(tree(tmp_path)) == ["b"]


def test_only_the_best_was_kept(tree, tmp_path):
    save(tmp_path / "nn" / "x.pth", {"model": {}, "epoch": 3, "frame": 30, "last_mean_rewards": 1.0})
    run = LAYOUT.read(tree(tmp_path))
    assert run.checkpoints == []
    assert (run.best.path, run.best.step) == ("nn/x.pth", 3)
    assert "best" in run.warnings[0]


def ase(folder: Path, *steps: int, latest: int) -> None:
    """A run of ASE's own training loop: the latest has the plain name, the others have eight digits."""
    for step in steps:
        save(
            folder / "nn" / f"Humanoid_{step:08}.pth", {"epoch": step, "frame": step, "last_mean_rewards": 1}
        )
    save(folder / "nn" / "Humanoid.pth", {"epoch": latest, "frame": latest, "last_mean_rewards": 1})


def test_ase_writes_the_latest_under_the_plain_name(tree, tmp_path):
    ase(tmp_path, 1000, 2000, latest=2000)
    assert LAYOUT.find(tree(tmp_path)) == [""]
    run = LAYOUT.read(tree(tmp_path))
    assert [(item.path, item.step, item.role) for item in run.checkpoints] == [
        ("nn/Humanoid.pth", 2000, "final"),
        ("nn/Humanoid_00002000.pth", 2000, "periodic"),
        ("nn/Humanoid_00001000.pth", 1000, "periodic"),
    ]
    assert run.best is None
    assert run.warnings == []


def test_a_cut_or_a_stale_latest_of_ase_keeps_its_place(tree, tmp_path):
    ase(tmp_path, 1000, 2000, latest=1500)
    assert [item.step for item in LAYOUT.read(tree(tmp_path)).checkpoints] == [2000, 1500, 1000]
    cut(tmp_path / "nn" / "Humanoid.pth")
    assert [item.step for item in LAYOUT.read(tree(tmp_path)).checkpoints] == [None, 2000, 1000]


def test_beside_what_rl_games_itself_writes_the_plain_name_is_the_best(tree, tmp_path):
    ase(tmp_path, 1000, latest=900)
    save(tmp_path / "nn" / "last_Humanoid_ep_1000_rew_1.0.pth", {"epoch": 1000, "frame": 1000})
    run = LAYOUT.read(tree(tmp_path))
    assert [item.path for item in run.checkpoints] == ["nn/last_Humanoid_ep_1000_rew_1.0.pth"]
    assert (run.best.path, run.best.step) == ("nn/Humanoid.pth", 900)


def test_files_of_two_names_are_of_two_trainings(tree, tmp_path):
    for name in ("last_Ant_ep_100_rew_1.5", "last_Ant_ep_200_rew_2.5", "last_Humanoid_ep_50_rew_1.0"):
        save(tmp_path / f"nn/{name}.pth", {"epoch": int(name.split("_ep_")[1].split("_")[0]), "frame": 1})
    run = LAYOUT.read(tree(tmp_path))
    assert set(run.choices) == {"nn/last_Ant_ep_200_rew_2.5.pth", "nn/last_Humanoid_ep_50_rew_1.0.pth"}
    assert "2 trainings" in run.undecided


def test_a_plain_file_of_another_name_is_not_the_best(tree, tmp_path: Path) -> None:
    for name, epoch in (("last_Ant_ep_100_rew_1.0", 100), ("Humanoid", 50)):
        save(tmp_path / f"nn/{name}.pth", {"epoch": epoch, "last_mean_rewards": 1.0}, b"%d" % epoch)
    found = LAYOUT.read(tree(tmp_path))
    assert found.best is None and "nn/Humanoid.pth does not have the name" in found.warnings[0]
