"""Small runs of the frameworks that a declaration describes, with the names and keys of their saving code.

``python tests/builders/declared_runs.py FOLDER`` writes them; those in tests/data/runs were made in this
way. They are not runs of the frameworks: weights are a few bytes. Everything that matters to a layout is
written like in the code that each layout's docstring names.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from builders.runs import write_events
from builders.saved import write_bytes, write_json
from builders.torch_zip import save

_STATE = {"net.0.weight": 0, "net.0.bias": 1}


def weights(path: Path, seed: int, **more: Any) -> Path:
    """Write a torch.save file whose tensor depends on the seed."""
    return save(path, more or _STATE, tensor=bytes((seed + index) % 251 for index in range(64)))


def fasttd3(root: Path) -> None:
    for number, step in enumerate(("50000", "100000", "final")):
        weights(
            root / f"models/h1-walk-v0__FastTD3__1_{step}.pt",
            number,
            actor_state_dict=_STATE,
            qnet_state_dict=_STATE,
            qnet_target_state_dict=_STATE,
            obs_normalizer_state={"_mean": 0},
            critic_obs_normalizer_state=None,
            args={"seed": 1},
            global_step=50000 * min(number + 1, 2),
        )


def act(root: Path) -> None:
    for epoch in (0, 100, 200):
        weights(root / f"policy_epoch_{epoch}_seed_0.ckpt", epoch // 100)
    weights(root / "policy_last.ckpt", 7)
    weights(root / "policy_best.ckpt", 1)
    write_bytes(root / "dataset_stats.pkl", pickle.dumps({"qpos_mean": [0.0], "qpos_std": [1.0]}))


def tianshou(root: Path) -> None:
    folder = root / "log/Ant-v4/ppo/0/260102-030405"
    for epoch in (1, 2):
        weights(folder / f"checkpoint_{epoch}.pth", epoch, model=_STATE)
    weights(folder / "policy.pth", 1, model=_STATE, obs_rms={"mean": 0})
    write_events(folder / "events.out.tfevents.1760000000.host.1.0", [("test/reward", 2000, 1.5)])


def tdmpc2(root: Path) -> None:
    folder = root / "logs/walker-run/1/default"
    weights(folder / "models/final.pt", 3, model=_STATE)
    write_bytes(folder / "eval.csv", b"step,episode_reward\n0,1.5\n1000,20.0\n")


def protomotions(root: Path) -> None:
    for name, epoch in (("epoch_100", 100), ("epoch_200", 200), ("last", 250), ("score_based", 150)):
        weights(
            root / f"{name}.ckpt",
            epoch // 50,
            model=_STATE,
            epoch=epoch,
            step_count=epoch * 1000,
            run_start_time=1.5,
            best_evaluated_score=0.5,
        )
    weights(root / "env_0.ckpt", 9, motion_manager=_STATE)
    weights(root / "resolved_configs.pt", 1, agent=_STATE)
    weights(root / "resolved_configs_inference.pt", 2, agent=_STATE)


def prismatic(root: Path) -> None:
    for step, epoch, loss in ((1000, 1, "0.5000"), (2000, 3, "0.2500")):
        weights(root / f"checkpoints/step-{step:06d}-epoch-{epoch:02d}-loss={loss}.pt", epoch, model=_STATE)
    newest = root / "checkpoints/step-002000-epoch-03-loss=0.2500.pt"
    write_bytes(root / "checkpoints/latest-checkpoint.pt", newest.read_bytes())
    write_json(root / "config.json", {"vla": {"type": "prism-dinosiglip-224px"}})
    write_json(root / "dataset_statistics.json", {"bridge": {"action": {"mean": [0.0]}}})


def rllib(root: Path) -> None:
    trial = root / "PPO_2026/PPO_env_ab12_00000_0_lr=0.0001"
    for number in (0, 1):
        folder = trial / f"checkpoint_{number:06d}"
        write_json(folder / "rllib_checkpoint.json", {"type": "Algorithm", "version": "2.1"})
        learner = "learner_group/learner"
        for path in (
            "algorithm_state.pkl",
            "class_and_ctor_args.pkl",
            "env_runner/env_to_module_connector/000_MeanStdFilter/state.pkl",
            f"{learner}/state.pkl",
            f"{learner}/rl_module/default_policy/module_state.pkl",
        ):
            write_bytes(folder / path, pickle.dumps({"number": number, "path": path}))
    write_json(trial / "params.json", {"lr": 0.0001, "num_env_runners": 2})


def rlinf(root: Path) -> None:
    for number, name in enumerate(("global_step_500", "global_step_1000", "best_model")):
        folder = root / "libero_grpo/checkpoints" / name
        weights(folder / "actor/model_state_dict/full_weights.pt", number)
        write_bytes(folder / "actor/dcp_checkpoint/__0_0.distcp", bytes([number]) * 100)
        write_bytes(folder / "actor/dcp_checkpoint/.metadata", pickle.dumps({}))
        write_json(folder / "libero/norm_stats.json", {"norm_stats": {"state": {"mean": [0.0]}}})


def copied_store(root: Path) -> None:
    """Write the files of an OCDBT store, which Orbax makes: those of the OpenPI run in tests/data."""
    store = Path(__file__).parents[1] / "data/runs/openpi_jax/checkpoints/pi0_libero/my_exp/99/params"
    for path in store.rglob("*"):
        if path.is_file():
            write_bytes(root / path.relative_to(store), path.read_bytes())


def octo(root: Path) -> None:
    for step in (5000, 10000):
        copied_store(root / f"{step}/default")
    copied_store(root / "state/10000/default")
    write_json(root / "config.json", {"model": {"heads": {}}})
    write_json(root / "dataset_statistics.json", {"action": {"mean": [0.0]}})
    write_bytes(root / "example_batch.msgpack", b"\x80")


def brax(root: Path) -> None:
    folder = root / "logs/Go1JoystickFlatTerrain-20260102-030405/checkpoints"
    for step in (655360, 1310720):
        copied_store(folder / f"{step:012d}")
        write_json(folder / f"{step:012d}/ppo_network_config.json", {"action_size": 12})
    write_json(folder / "config.json", {"ctrl_dt": 0.02})


RUNS: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (
        fasttd3,
        act,
        tianshou,
        tdmpc2,
        protomotions,
        prismatic,
        rllib,
        rlinf,
        octo,
        brax,
    )
}


def main(folder: str) -> None:
    for name, write in RUNS.items():
        write(Path(folder, name))
    print(json.dumps(sorted(RUNS)))


if __name__ == "__main__":
    main(sys.argv[1])
