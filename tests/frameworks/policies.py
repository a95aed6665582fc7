"""Small policies of real frameworks: trained on the CPU, and later loaded as ``aml-mirror pull`` says.

    python policies.py make FOLDER         # each framework's run in FOLDER/NAME, and FOLDER/outputs.json
    python policies.py load PULLED.json    # {NAME: lines that load it}; prints {NAME: outputs}

It runs in a separate environment (``make test-frameworks``). A case defines how to make a run, what must
exist before the lines are executed (the task's environment or a runner, which no checkpoint contains), and
how to get the policy's answers to fixed observations.
"""

# mypy: ignore-errors
# ruff: noqa: E501 - one statement a line

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

Names = dict[str, Any]


class Case:
    """One framework."""

    def make(self, run: Path) -> Names:
        """Train into a folder, and return what :meth:`answer` needs."""
        raise NotImplementedError

    def prepare(self) -> Names:
        """Return the names that the lines use and do not define."""
        return {}

    def answer(self, names: Names) -> Any:
        """Return what the loaded policy computes, as numbers."""
        raise NotImplementedError


def observations(width: int, rows: int = 4) -> Any:
    import numpy as np

    return np.random.default_rng(7).normal(size=(rows, width)).astype(np.float32)


class StableBaselines3(Case):
    """PPO behind VecNormalize, as RL Zoo saves it."""

    def _env(self) -> Any:
        from stable_baselines3.common.env_util import make_vec_env

        return make_vec_env("Pendulum-v1", seed=1)

    def make(self, run: Path) -> Names:
        from stable_baselines3 import PPO
        from stable_baselines3.common.callbacks import CheckpointCallback
        from stable_baselines3.common.vec_env import VecNormalize

        env = VecNormalize(self._env())
        policy = PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, device="cpu", seed=1)
        policy.learn(64, CheckpointCallback(32, str(run), save_vecnormalize=True))
        # The callback saved before the last update.
        policy.save(run / "rl_model_64_steps.zip")
        env.save(str(run / "rl_model_vecnormalize_64_steps.pkl"))
        return {"policy": policy, "env": env}

    def prepare(self) -> Names:
        return {"env": self._env()}

    def answer(self, names: Names) -> Any:
        seen = names["env"].normalize_obs(observations(3))
        return names["policy"].predict(seen, deterministic=True)[0]


class RslRl(Case):
    """PPO of the rsl_rl runner, on a task of eight points."""

    def _runner(self, folder: Path | None) -> Any:
        import torch
        from rsl_rl.env import VecEnv
        from rsl_rl.runners import OnPolicyRunner
        from tensordict import TensorDict

        class Reach(VecEnv):
            num_envs, num_actions, max_episode_length, device, cfg = 8, 2, 50, "cpu", {}

            def __init__(self) -> None:
                self.episode_length_buf = torch.zeros(8, dtype=torch.long)
                self.at = torch.randn(8, 4)

            def get_observations(self) -> Any:
                return TensorDict({"policy": self.at}, batch_size=[8])

            def step(self, actions: Any) -> Any:
                self.at = self.at * 0.9 + actions.repeat(1, 2) * 0.1
                reward = -self.at.pow(2).sum(1)
                return self.get_observations(), reward, torch.zeros(8, dtype=torch.long), {}

        torch.manual_seed(1)
        network = {"class_name": "MLPModel", "hidden_dims": [16], "obs_normalization": True}
        gauss = {"class_name": "GaussianDistribution", "init_std": 1.0}
        config = {
            "algorithm": {"class_name": "PPO"}, "actor": {**network, "distribution_cfg": gauss},
            "critic": dict(network), "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
            "num_steps_per_env": 8, "save_interval": 1, "logger": "tensorboard",
        }  # fmt: skip
        return OnPolicyRunner(Reach(), config, str(folder) if folder else None, "cpu")

    def make(self, run: Path) -> Names:
        runner = self._runner(run)
        runner.learn(3)
        return {"runner": runner}

    def prepare(self) -> Names:
        return {"runner": self._runner(None)}

    def answer(self, names: Names) -> Any:
        import torch
        from tensordict import TensorDict

        policy = names["runner"].get_inference_policy("cpu")
        with torch.inference_mode():
            return policy(TensorDict({"policy": torch.from_numpy(observations(4))}, batch_size=[4])).numpy()


class Skrl(Case):
    """PPO of skrl, with its trainer and its running scaler of observations."""

    def _agent(self, folder: str, steps: int) -> Any:
        import gymnasium
        import torch
        from skrl.agents.torch.ppo import PPO, PPO_CFG
        from skrl.envs.wrappers.torch import wrap_env
        from skrl.memories.torch import RandomMemory
        from skrl.models.torch import DeterministicMixin, GaussianMixin, Model
        from skrl.resources.preprocessors.torch import RunningStandardScaler

        class Policy(GaussianMixin, Model):
            def __init__(self, **spaces: Any) -> None:
                Model.__init__(self, **spaces)
                GaussianMixin.__init__(self)
                self.net = torch.nn.Linear(self.num_observations, self.num_actions)
                self.log_std = torch.nn.Parameter(torch.zeros(self.num_actions))

            def compute(self, inputs: Any, role: str = "") -> Any:
                return self.net(inputs["observations"]), {"log_std": self.log_std}

        class Value(DeterministicMixin, Model):
            def __init__(self, **spaces: Any) -> None:
                Model.__init__(self, **spaces)
                DeterministicMixin.__init__(self)
                self.net = torch.nn.Linear(self.num_observations, 1)

            def compute(self, inputs: Any, role: str = "") -> Any:
                return self.net(inputs["observations"]), {}

        torch.manual_seed(1)
        env = wrap_env(gymnasium.make("Pendulum-v1"), verbose=False)
        spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
        on_cpu = {**spaces, "device": "cpu"}
        config = PPO_CFG(
            rollouts=16, learning_epochs=1, mini_batches=1,
            observation_preprocessor=RunningStandardScaler,
            observation_preprocessor_kwargs={"size": env.observation_space, "device": "cpu"},
        )  # fmt: skip
        config.experiment.directory, config.experiment.experiment_name = folder, "run"
        config.experiment.write_interval = config.experiment.checkpoint_interval = steps
        models = {"policy": Policy(**on_cpu), "value": Value(**on_cpu)}
        memory = RandomMemory(memory_size=16, num_envs=1, device="cpu")
        agent = PPO(models=models, memory=memory, cfg=config, **on_cpu)
        return agent, env

    def make(self, run: Path) -> Names:
        from skrl.trainers.torch import SequentialTrainer

        agent, env = self._agent(str(run), 32)
        options = {"timesteps": 64, "headless": True, "disable_progressbar": True}
        SequentialTrainer(cfg=options, env=env, agents=agent).train()
        return {"agent": agent}

    def prepare(self) -> Names:
        agent, _ = self._agent("/nowhere", 0)
        # Its trainer does this. It names the parts of a checkpoint.
        agent.init()
        return {"agent": agent}

    def answer(self, names: Names) -> Any:
        import torch

        agent = names["agent"]
        with torch.inference_mode():
            seen = agent._observation_preprocessor(torch.from_numpy(observations(3)))
            return agent.policy.compute({"observations": seen})[0].numpy()


class Transformers(Case):
    """A classifier trained by transformers' Trainer."""

    def make(self, run: Path) -> Names:
        import torch
        from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

        torch.manual_seed(1)
        config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=16)  # fmt: skip
        model = BertForSequenceClassification(config)
        rows = [{"input_ids": torch.arange(4) + i, "labels": torch.tensor(i % 2)} for i in range(4)]
        options = TrainingArguments(str(run), max_steps=2, save_steps=1, logging_steps=1, use_cpu=True, report_to=[])  # fmt: skip
        Trainer(model, options, train_dataset=rows).train()
        return {"model": model}

    def answer(self, names: Names) -> Any:
        import torch

        with torch.inference_mode():
            return names["model"].eval()(torch.tensor([[1, 2, 3, 4]])).logits.numpy()


class Adapter(Case):
    """LoRA on a base model that is not part of the run."""

    def make(self, run: Path) -> Names:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModel, BertConfig, BertModel

        torch.manual_seed(1)
        config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=16)  # fmt: skip
        base = run.parent / "base-model"
        BertModel(config).save_pretrained(base)
        lora = LoraConfig(r=2, target_modules=["query"], init_lora_weights=False)
        model = get_peft_model(AutoModel.from_pretrained(base), lora)
        model.save_pretrained(run / "checkpoint-2")
        (run / "checkpoint-2" / "trainer_state.json").write_text('{"global_step": 2, "log_history": []}')
        return {"model": model}

    def answer(self, names: Names) -> Any:
        import torch

        with torch.inference_mode():
            return names["model"].eval()(torch.tensor([[1, 2, 3, 4]])).pooler_output.numpy()


class Brax(Case):
    """PPO's networks in Brax's own checkpoints (Orbax), as MuJoCo Playground writes them.

    Not trained, because the training of Brax 0.14.2 calls functions that JAX 0.10 removed. The configuration
    names an initializer, because Brax cannot read its own configuration without one.
    """

    def make(self, run: Path) -> Names:
        from functools import partial

        import jax
        from brax.training import networks as names
        from brax.training.acme import running_statistics, specs
        from brax.training.agents.ppo import checkpoint, networks

        start = names.KERNEL_INITIALIZER["lecun_uniform"]
        factory = partial(networks.make_ppo_networks, mean_kernel_init_fn=start)
        net = factory(4, 2, running_statistics.normalize)
        config = checkpoint.network_config(4, 2, True, factory)
        seen = running_statistics.init_state(specs.Array((4,), jax.numpy.dtype("float32")))
        seen = running_statistics.update(seen, jax.numpy.asarray(observations(4, 32)) * 3 + 1)
        (run / "checkpoints").mkdir()
        for step in (10, 20):
            keys = jax.random.split(jax.random.PRNGKey(step))
            params = (seen, net.policy_network.init(keys[0]), net.value_network.init(keys[1]))
            checkpoint.save((run / "checkpoints").resolve(), step, params, config)
        return {"policy": networks.make_inference_fn(net)(params, deterministic=True)}

    def answer(self, names: Names) -> Any:
        import jax

        return names["policy"](jax.numpy.asarray(observations(4)), jax.random.PRNGKey(0))[0]


class Lightning(Case):
    """A module of a user's own."""

    def _module(self) -> Any:
        import lightning
        import torch

        class YourModule(lightning.LightningModule):
            def __init__(self, width: int) -> None:
                super().__init__()
                self.save_hyperparameters()
                self.layer = torch.nn.Linear(width, 2)

            def training_step(self, batch: Any, index: int) -> Any:
                return self.layer(torch.ones(1, 4)).sum()

            def configure_optimizers(self) -> Any:
                return torch.optim.Adam(self.parameters())

        return YourModule

    def make(self, run: Path) -> Names:
        import lightning
        import torch

        model = self._module()(4)
        trainer = lightning.Trainer(max_epochs=1, default_root_dir=run, accelerator="cpu", enable_progress_bar=False)  # fmt: skip
        trainer.fit(model, torch.utils.data.DataLoader([0, 1]))
        return {"model": model}

    def prepare(self) -> Names:
        return {"YourModule": self._module()}

    def answer(self, names: Names) -> Any:
        import torch

        with torch.inference_mode():
            return names["model"].cpu().layer(torch.from_numpy(observations(4))).numpy()


class RlGames(Case):
    """PPO of rl_games on CartPole."""

    def _runner(self, run: Path) -> Any:
        import gymnasium
        from rl_games.common import env_configurations, vecenv
        from rl_games.torch_runner import Runner

        class One(vecenv.IVecEnv):
            def __init__(self, name: str, count: int, **options: Any) -> None:
                self.env = gymnasium.make_vec("CartPole-v1", count)
                self.count = count

            def reset(self) -> Any:
                return self.env.reset(seed=1)[0]

            def step(self, actions: Any) -> Any:
                import numpy as np

                seen, reward, ended, cut, _ = self.env.step(np.asarray(actions))
                return seen, reward.astype("float32"), ended | cut, {}

            def get_number_of_agents(self) -> int:
                return 1

            def get_env_info(self) -> Any:
                return {
                    "observation_space": self.env.single_observation_space,
                    "action_space": self.env.single_action_space,
                }

        vecenv.register("one", One)
        env_configurations.register("carts", {"vecenv_type": "one", "env_creator": lambda **_: None})
        network = {
            "name": "actor_critic", "separate": False, "space": {"discrete": {}},
            "mlp": {"units": [8], "activation": "elu", "initializer": {"name": "default"}},
        }  # fmt: skip
        config = {
            "name": "carts", "env_name": "carts", "train_dir": str(run.parent), "full_experiment_name": run.name,
            "device": "cpu", "reward_shaper": {"scale_value": 1.0}, "normalize_input": True,
            "normalize_advantage": True, "gamma": 0.99, "tau": 0.95, "learning_rate": 1e-3, "lr_schedule": None, "grad_norm": 1.0,
            "entropy_coef": 0.0, "truncate_grads": True, "e_clip": 0.2, "clip_value": True, "num_actors": 4,
            "horizon_length": 16, "minibatch_size": 64, "mini_epochs": 1, "critic_coef": 1, "max_epochs": 2,
            "save_best_after": 0, "save_frequency": 1, "score_to_win": 1e9, "torch_compile": False, "ppo": True, "device_name": "cpu",
            "player": {"games_num": 1, "use_vecenv": True},
        }  # fmt: skip
        params = {
            "seed": 1, "algo": {"name": "a2c_discrete"}, "model": {"name": "discrete_a2c"},
            "network": network, "config": config,
        }  # fmt: skip
        runner = Runner()
        runner.load({"params": params})
        return runner

    def make(self, run: Path) -> Names:
        runner = self._runner(run)
        runner.run({"train": True, "play": False})
        newest = max((run / "nn").glob("last_*.pth"), key=lambda path: path.stat().st_mtime_ns)
        player = runner.create_player()
        player.restore(str(newest))
        return {"player": player}

    def prepare(self) -> Names:
        return {"player": self._runner(Path("run")).create_player()}

    def answer(self, names: Names) -> Any:
        import torch

        player = names["player"]
        seen = torch.from_numpy(observations(4))
        given = {"is_train": False, "prev_actions": None, "obs": seen, "rnn_states": None}
        with torch.inference_mode():
            return player.model(given)["logits"].numpy()


class Onnx(Case):
    """A policy that a training exported."""

    def make(self, run: Path) -> Names:
        import numpy as np
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper, save

        weight = numpy_helper.from_array(np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32), "w")
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])]
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        graph = helper.make_graph([node], "policy", inputs, outputs, [weight])
        opset = helper.make_opsetid("", 17)
        save(helper.make_model(graph, opset_imports=[opset], ir_version=9), run / "policy_final.onnx")
        return {"policy": onnxruntime.InferenceSession(str(run / "policy_final.onnx"))}

    def answer(self, names: Names) -> Any:
        return names["policy"].run(None, {"x": observations(4)})[0]


class Safetensors(Case):
    """Weights alone."""

    suffix = ".safetensors"

    def make(self, run: Path) -> Names:
        import torch

        torch.manual_seed(1)
        state = torch.nn.Linear(4, 2).state_dict()
        self.save(state, run / f"policy_final{self.suffix}")
        return {"state": state}

    def save(self, state: Any, path: Path) -> None:
        from safetensors.torch import save_file

        save_file(state, path)

    def answer(self, names: Names) -> Any:
        import torch

        net = torch.nn.Linear(4, 2)
        net.load_state_dict(names["state"])
        with torch.inference_mode():
            return net(torch.from_numpy(observations(4))).numpy()


class Torch(Safetensors):
    """Weights saved by torch.save."""

    suffix = ".pt"

    def save(self, state: Any, path: Path) -> None:
        import torch

        torch.save(state, path)


class Jit(Case):
    """TorchScript."""

    def make(self, run: Path) -> Names:
        import torch

        torch.manual_seed(1)
        policy = torch.jit.script(torch.nn.Linear(4, 2))
        torch.jit.save(policy, run / "policy_final.jit")
        return {"policy": policy}

    def answer(self, names: Names) -> Any:
        import torch

        with torch.inference_mode():
            return names["policy"](torch.from_numpy(observations(4))).numpy()


class Flax(Case):
    """Parameters of a Flax module, serialized by Flax."""

    def _net(self) -> Any:
        import flax.linen as nn

        return nn.Dense(2)

    def make(self, run: Path) -> Names:
        import jax
        from flax import serialization

        state = self._net().init(jax.random.PRNGKey(1), observations(4))
        self.save(state, run, serialization)
        return {"state": state}

    def save(self, state: Any, run: Path, serialization: Any) -> None:
        (run / "policy_final.msgpack").write_bytes(serialization.to_bytes(state))

    def answer(self, names: Names) -> Any:
        return self._net().apply(names["state"], observations(4))


class Orbax(Flax):
    """The same in Orbax's checkpoints by step."""

    def save(self, state: Any, run: Path, serialization: Any) -> None:
        import orbax.checkpoint

        with orbax.checkpoint.StandardCheckpointer() as checkpointer:
            for step in (1, 2):
                checkpointer.save((run / "checkpoints" / f"{step}").resolve(), state)


class Keras(Case):
    """Keras on JAX."""

    def make(self, run: Path) -> Names:
        import keras

        keras.utils.set_random_seed(1)
        policy = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        policy.save(run / "policy_final.keras")
        return {"policy": policy}

    def answer(self, names: Names) -> Any:
        import numpy as np

        return np.asarray(names["policy"](observations(4)))


class Rllib(Case):
    """PPO of Ray RLlib."""

    def make(self, run: Path) -> Names:
        import ray
        from ray.rllib.algorithms.ppo import PPOConfig

        os.environ.setdefault("RAY_raylet_start_wait_time_s", "600")
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
        config = PPOConfig().environment("CartPole-v1").env_runners(num_env_runners=0)
        config.training(train_batch_size_per_learner=64, minibatch_size=64, num_epochs=1)
        policy = config.build_algo()
        policy.train()
        policy.save_to_path(str(run.resolve() / "checkpoint_000000"))
        (run / "params.json").write_text('{"env": "CartPole-v1"}')
        return {"policy": policy}

    def answer(self, names: Names) -> Any:
        import torch

        with torch.inference_mode():
            given = {"obs": torch.from_numpy(observations(4))}
            return names["policy"].get_module().forward_inference(given)["action_dist_inputs"].numpy()


CASES: dict[str, Case] = {
    "stable_baselines3": StableBaselines3(),
    "rsl_rl": RslRl(),
    "skrl": Skrl(),
    "rl_games": RlGames(),
    "huggingface": Transformers(),
    "adapter": Adapter(),
    "brax": Brax(),
    "lightning": Lightning(),
    "rllib": Rllib(),
    "onnx": Onnx(),
    "safetensors": Safetensors(),
    "torch": Torch(),
    "jit": Jit(),
    "msgpack": Flax(),
    "orbax": Orbax(),
    "keras": Keras(),
}


def _numbers(case: Case, names: Names) -> Any:
    import numpy as np

    return np.asarray(case.answer(names), dtype=float).tolist()


def _made(case: Case, folder: Path, lines: list[str]) -> Any:
    folder.mkdir(parents=True)
    return _numbers(case, case.make(folder))


def _loaded(case: Case, folder: Path, lines: list[str]) -> Any:
    names = case.prepare()
    # The program's lines, exactly as it printed them.
    exec("\n".join(lines), names)
    return _numbers(case, names)


def main() -> int:
    """Make or load the cases. If a case raises, the exception is its result."""
    what, given = sys.argv[1], Path(sys.argv[2]).resolve()
    todo = json.loads(given.read_text()) if what == "load" else {name: [] for name in sys.argv[3:] or CASES}
    answers: dict[str, Any] = {}
    for name, lines in todo.items():
        try:
            answers[name] = (_loaded if what == "load" else _made)(CASES[name], given / name, lines)
        except Exception:  # noqa: BLE001 - each framework by itself
            answers[name] = traceback.format_exc()
    result = given / "outputs.json" if what == "make" else given.with_suffix(".outputs.json")
    result.write_text(json.dumps(answers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
