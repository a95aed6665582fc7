"""Parts of a policy, trainings that differ only in their folders' contents, and weights of no checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aml_mirror.core.errors import DataError, UsageError
from aml_mirror.layouts import find_run
from aml_mirror.layouts.generic.policy_parts import kind_of
from aml_mirror.pipeline.select import choose
from builders.numbered_runs import groot, lerobot, plain, planned, rsl_rl, torch_file, tree_of, write_numbered
from builders.runs import write_events
from builders.saved import safetensors, write_bytes, write_json

EVENTS = "events.out.tfevents.1760000000.host.1.0"


def final(root: Path):
    tree, run, _ = planned(root)
    (chosen,) = choose(tree, run, "final")
    return run, chosen.checkpoint


def require_asked(root: Path, *names: str) -> None:
    """Check that the program stops and names each candidate with the option that selects it."""
    with pytest.raises(UsageError) as raised:
        final(root)
    for name in names:
        assert f"--checkpoint {name}" in (raised.value.hint or ""), raised.value.hint


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("encoder_200", "part"),
        ("policy_encoder_200", "part"),
        ("vae_policy_200", "policy"),
        ("actor_critic_200", "policy"),
        ("ActorCritic_200", "policy"),
        ("critic1_best", "part"),
        ("reward_model_200", "part"),
        ("model_200_reward_20.5", ""),
        ("model_200_value_loss_0.5", ""),
        ("worldModel_9", "part"),
        ("student_9", "policy"),
        ("model_200", ""),
        ("reach_target_200", ""),
        ("latent_model_last", "part"),
        ("latents_9", ""),
    ],
)
def test_what_a_name_says(name, kind):
    assert kind_of(name) == kind


PARTS = [
    "checkpoints/encoder_{}.pt",
    "ckpts/vae_epoch_{}.pt",
    "checkpoints/tokenizer_{}.pt",
    "models/reward_model_{}.pt",
    "checkpoints/pick_cube_dynamics_{}.pth.tar",
    "weights/critic_{}.safetensors",
    "step_{}/vae.pt",
    "step_{}/vision_tower/model.safetensors",
    "critic_training/model_{}.pt",
    "reward_classifier/checkpoints/{}/model.pt",
    "actuator_net_step_{}.ckpt",
]


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_policy_is_no_final_policy(tmp_path, name):
    for step in (100, 200):
        path = tmp_path / name.format(step)
        safetensors(path, step) if path.suffix == ".safetensors" else plain(path, step)
    try:
        _, checkpoint = final(tmp_path)
    except UsageError as error:
        assert "200" in (error.hint or "")
        return
    except DataError as error:
        assert "--checkpoint" in (error.hint or "")
        return
    pytest.fail(f"{checkpoint.path} is called {checkpoint.role}")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["checkpoints/policy_{}.pt", "checkpoints/critic_{}.pt"], "checkpoints/policy_200.pt"),
        (["step_{}/actor.pt", "step_{}/critic.pt", "step_{}/encoder.pt"], "step_200"),
        (["asymmetric_critic_v2/model_{}.pt"], "model_200.pt"),
        (["checkpoints/actor_critic_{}.pt"], "checkpoints/actor_critic_200.pt"),
    ],
)
def test_a_policy_with_its_parts_is_one(tmp_path, names, expected):
    for name in names:
        write_numbered(tmp_path, name, [100, 200])
    _, checkpoint = final(tmp_path)
    assert (checkpoint.path, checkpoint.role) == (expected, "final")


def test_an_end_that_is_a_part_is_asked_about(tmp_path):
    """Mobile ALOHA's train_latent_model.py saves these next to the policy."""
    for name in ("latent_model_epoch_0_seed_0", "latent_model_last", "latent_model_best"):
        plain(tmp_path / f"{name}.ckpt", len(name))
    require_asked(tmp_path, "latent_model_last.ckpt")


ROUNDS = {
    "logs": ["iter{}/model.pt", "iter{}/" + EVENTS],
    "checkpoints": ["iter{}/checkpoints/policy_9.pt"],
    "ends": ["epoch_{}/model_final.pt"],
    "another seed": ["iter_{}/model.pt", "iter_{}/config.yaml"],
}


@pytest.mark.parametrize("name", ROUNDS)
def test_rounds_of_training_are_several_trainings(tmp_path, name):
    for number in (1, 2):
        for item in ROUNDS[name]:
            path = tmp_path / item.format(number)
            if "tfevents" in item:
                write_events(path, [("loss", 1, 0.5)])
            elif path.suffix == ".yaml":
                write_bytes(path, f"seed: {number}\nlr: 0.1\n".encode())
            else:
                plain(path, number)
    with pytest.raises(UsageError) as raised:
        final(tmp_path)
    assert "2" in raised.value.message + (raised.value.hint or "")


def test_rounds_of_one_training_are_its_checkpoints(tmp_path):
    for number in (1, 2):
        plain(tmp_path / f"iter_{number}/model.pt", number)
        write_bytes(tmp_path / f"iter_{number}/config.yaml", b"seed: 1\n")
    _, checkpoint = final(tmp_path)
    assert (checkpoint.path, checkpoint.step) == ("iter_2", 2)


@pytest.mark.parametrize("differs", [True, False])
def test_configurations_that_contradict_are_of_two_trainings(tmp_path, differs):
    write_numbered(tmp_path, "checkpoints/{:06d}", [5000, 10000], lerobot)
    for step in (5000, 10000):
        task = "place" if differs and step == 10000 else "pick"
        config = {"seed": 1, "dataset": {"repo_id": f"lab/{task}"}, "resume": step > 5000}
        write_json(tmp_path / f"checkpoints/{step:06d}/pretrained_model/train_config.json", config)
    if differs:
        require_asked(tmp_path, "checkpoints/010000/pretrained_model", "checkpoints/005000/pretrained_model")
    else:
        assert final(tmp_path)[1].step == 10000


def test_configurations_of_groot(tmp_path):
    write_numbered(tmp_path, "checkpoint-{}", [100, 200], groot)
    for step in (100, 200):
        write_bytes(
            tmp_path / f"checkpoint-{step}/experiment_cfg/conf.yaml", f"training:\n  seed: {step}\n".encode()
        )
    require_asked(tmp_path, "checkpoint-200", "checkpoint-100")


@pytest.mark.parametrize(
    ("beside", "named"),
    [
        ("critic_training/critic_300.pt", True),
        ("reward/reward_model.pt", True),
        ("encoder_9.safetensors", True),
        ("critic/model.safetensors", True),
        ("checkpoints/critic/critic_9.pt", True),
        ("exported/policy.pt", False),
        ("2026-01-02_03-04-05.onnx", False),
        ("logs/critic_300.pt", False),
        ("data/episode_9.pt", False),
        ("ema/model_200.pt", False),
    ],
)
@pytest.mark.parametrize("framework", ["rsl_rl", "generic"])
def test_weights_in_no_checkpoint_are_named(tmp_path, beside, named, framework):
    save, name = (rsl_rl, "model_{}.pt") if framework == "rsl_rl" else (plain, "checkpoints/policy_{}.pt")
    write_numbered(tmp_path, name, [100, 200], save)
    path = tmp_path / beside
    safetensors(path, 1) if path.suffix == ".safetensors" else plain(path, 1)
    tree = tree_of(tmp_path)
    found = find_run(tree)
    assert (found.root, found.layout.name) == ("", framework)
    run = found.read(tree)
    told = [warning for warning in run.warnings if "in no checkpoint of this run" in warning]
    if framework == "generic" and beside == "ema/model_200.pt" and run.undecided:
        return
    assert bool(told) == named, run.warnings
    if named:
        (chosen,) = choose(tree, run, beside)
        assert chosen.checkpoint.path == beside
    assert next(iter(choose(tree, run, "final"))).checkpoint.step == 200


@pytest.mark.parametrize(
    "folder",
    [
        ".aim/x",
        ".cometml-runs",
        ".guild/runs/abc",
        "swanlog/run-1/files",
        "dvclive",
        "mlartifacts/0/a/artifacts",
    ],
)
@pytest.mark.parametrize("framework", ["rsl_rl", "generic"])
def test_what_a_tracker_keeps_is_no_run(tmp_path, folder, framework):
    save, name = (rsl_rl, "model_{}.pt") if framework == "rsl_rl" else (plain, "checkpoints/policy_{}.pt")
    write_numbered(tmp_path, name, [100], save)
    write_numbered(tmp_path / folder, name, [200], save)
    run, checkpoint = final(tmp_path)
    assert checkpoint.step == 100 and not run.undecided


@pytest.mark.parametrize("place", ["checkpoints/", ""])
@pytest.mark.parametrize(
    ("name", "plain_name"), [("policy_{}.pt", "policy.pt"), ("go2_model_epoch_{}.pt", "go2_model.pt")]
)
def test_the_name_without_a_number_is_asked_about(tmp_path, place, name, plain_name):
    write_numbered(tmp_path, f"checkpoints/{name}", [100, 200])
    plain(tmp_path / place / plain_name, 7)
    require_asked(tmp_path, place + plain_name, "checkpoints/" + name.format(200))


@pytest.mark.parametrize("step", [100, 200])
def test_a_copy_under_the_name_without_a_number_is_not(tmp_path, step):
    write_numbered(tmp_path, "checkpoints/policy_{}.pt", [100, 200])
    shutil.copy(tmp_path / f"checkpoints/policy_{step}.pt", tmp_path / "checkpoints/policy.pt")
    assert final(tmp_path)[1].step == 200


@pytest.mark.parametrize(("step", "expected"), [(150, "model_200.pt"), (250, "model.pt")])
def test_a_step_in_the_file_tells_whether_the_name_without_a_number_is_newer(tmp_path, step, expected):
    for name, own in (("model_100", 100), ("model_200", 200), ("model", step)):
        torch_file(tmp_path / f"checkpoints/{name}.pt", own, 0, iteration=own)
    assert final(tmp_path)[1].path == f"checkpoints/{expected}"


@pytest.mark.parametrize(("step", "warned"), [(100, False), (150, True)])
def test_a_best_one_of_a_later_step_is_said(tmp_path, step, warned):
    torch_file(tmp_path / "nn/last_Ant_ep_100_rew_5.pth", 100, 0, epoch=100, frame=1, model={})
    torch_file(tmp_path / "nn/Ant.pth", step, 1, epoch=step, frame=2, model={})
    run, checkpoint = final(tmp_path)
    assert checkpoint.step == 100
    assert any("training continued" in warning for warning in run.warnings) == warned
