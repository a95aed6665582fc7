"""Write benign files with the newest frameworks, each as its own saving code writes it.

    python make_benign.py FOLDER

It runs in a separate environment (``make test-frameworks``). It skips frameworks that are not installed, and
names them on stderr.
"""

# ruff: noqa: E501 - one statement a line

from __future__ import annotations

import collections
import contextlib
import pickle
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

MAKERS: list[tuple[str, Callable[[Path], object]]] = []


def maker(function: Callable[[Path], object]) -> Callable[[Path], object]:
    """Register a function that writes files into a given folder."""
    MAKERS.append((function.__name__, function))
    return function


@maker
def torch_tensors(folder: Path) -> None:
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 4)).sum().backward()
    adam.step()
    torch.save(net.state_dict(), folder / "state_dict.pt")
    torch.save(
        {"model": net.state_dict(), "optimizer": adam.state_dict(), "step": 3}, folder / "training.pth"
    )
    torch.save(net.state_dict(), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(torch.randn(3).to(torch.float8_e4m3fn), folder / "float8_e4m3fn.pt")
    torch.save(torch.randn(3).to(torch.float8_e5m2), folder / "float8_e5m2.pt")
    torch.save({"scale": torch.ones(3).to(torch.float8_e8m0fnu)}, folder / "float8_e8m0fnu.pt")
    torch.save(
        {"b": torch.ones(2, dtype=torch.bfloat16), "c": torch.ones(2, dtype=torch.complex64)},
        folder / "types.pt",
    )
    torch.save(
        {
            "u": torch.ones(2, dtype=torch.uint16),
            "q": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        },
        folder / "quantized.pt",
    )
    torch.save(torch.eye(3).to_sparse(), folder / "sparse.pt")
    torch.save(
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged), folder / "nested.pt"
    )
    torch.save(torch.nn.Parameter(torch.ones(2)), folder / "parameter.pt")
    torch.save(
        {"rng": torch.get_rng_state(), "size": torch.Size([1]), "device": torch.device("cpu")},
        folder / "other.pt",
    )


@maker
def torch_modules(folder: Path) -> None:
    import torch

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 2)
    )
    torch.save(net, folder / "module.pt")
    torch.save(torch.nn.TransformerEncoderLayer(8, 2), folder / "transformer.pt")
    torch.save(torch.nn.LSTM(4, 4), folder / "lstm.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(4, 2)), folder / "torchscript.pt")


@maker
def torch_export(folder: Path) -> None:
    import torch

    program = torch.export.export(torch.nn.Linear(4, 2), (torch.ones(1, 4),))
    torch.export.save(program, folder / "program.pt2")


@maker
def torch_distributed(folder: Path) -> None:
    import torch
    import torch.distributed.checkpoint as dcp

    net = torch.nn.Linear(4, 2)
    dcp.save({"model": net.state_dict(), "step": 3, "text": "x"}, checkpoint_id=str(folder / "dcp"))


@maker
def numpy_files(folder: Path) -> None:
    import numpy as np

    np.save(folder / "array.npy", np.arange(6.0))
    np.save(folder / "structured.npy", np.zeros(3, dtype=[("Obs", "f4", (2,)), ("obj", "i8"), ("O", "U4")]))
    np.savez(folder / "archive.npz", a=np.arange(3), b=np.ones((2, 2), np.float16))
    np.savez_compressed(folder / "compressed.npz", mean=np.zeros(1000), std=np.ones(1000))
    np.save(folder / "dates.npy", np.array(["2026-01-01"], dtype="M8[D]"))
    with contextlib.suppress(AttributeError):
        texts = np.array(["a", "bc"], dtype=np.dtypes.StringDType())
        (folder / "texts.pkl").write_bytes(pickle.dumps(texts))
        np.save(folder / "texts.npy", texts)
    (folder / "statistics.pkl").write_bytes(
        pickle.dumps({"mean": np.zeros(3), "count": np.float64(3.0), "rng": np.random.default_rng(1)})
    )
    (folder / "masked.pkl").write_bytes(pickle.dumps(np.ma.masked_array([1.0, 2.0], [0, 1])))


@maker
def plain_pickles(folder: Path) -> None:
    value = {
        "a": [1, 2.5, None],
        "b": collections.OrderedDict(x=1),
        "c": collections.Counter("ab"),
        "d": {1, 2},
    }
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (folder / f"protocol_{protocol}.pkl").write_bytes(pickle.dumps(value, protocol))


@maker
def safetensors_files(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"w": torch.ones(3), "f8": torch.ones(3).to(torch.float8_e4m3fn)}, folder / "model.safetensors")


@maker
def sklearn_files(folder: Path) -> None:
    import joblib
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LinearRegression
    from sklearn.preprocessing import StandardScaler

    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    forest, line, scaler = (
        RandomForestClassifier(4).fit(x, y),
        LinearRegression().fit(x, y),
        StandardScaler().fit(x),
    )
    joblib.dump(forest, folder / "forest.joblib")
    joblib.dump(line, folder / "line.joblib")
    joblib.dump(scaler, folder / "scaler.joblib.gz")
    joblib.dump(forest, folder / "forest.joblib.z", compress=3)
    joblib.dump({"x": x}, folder / "arrays.joblib")
    (folder / "line.pkl").write_bytes(pickle.dumps(line))
    (folder / "scaler.pkl").write_bytes(pickle.dumps(scaler))
    (folder / "forest.pkl").write_bytes(pickle.dumps(forest))


@maker
def stable_baselines3(folder: Path) -> None:
    import gymnasium
    from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    for kind in (PPO, A2C, SAC, TD3):
        model = kind("MlpPolicy", gymnasium.make("Pendulum-v1"))
        model.save(folder / f"{kind.__name__.lower()}.zip")
    DQN("MlpPolicy", gymnasium.make("CartPole-v1"), buffer_size=100).save(folder / "dqn.zip")
    VecNormalize(make_vec_env("Pendulum-v1")).save(str(folder / "vecnormalize.pkl"))
    model = SAC("MlpPolicy", gymnasium.make("Pendulum-v1"), buffer_size=50)
    model.save_replay_buffer(folder / "replay_buffer.pkl")


@maker
def skrl(folder: Path) -> None:
    import gymnasium
    import torch
    from skrl.agents.torch.ppo import PPO
    from skrl.models.torch import DeterministicMixin, GaussianMixin, Model

    box = gymnasium.spaces.Box(-1, 1, (4,))

    class Policy(GaussianMixin, Model):  # type: ignore[misc]
        def __init__(self) -> None:
            Model.__init__(self, observation_space=box, action_space=box, device="cpu")
            GaussianMixin.__init__(self)
            self.net = torch.nn.Linear(4, 4)
            self.log_std = torch.nn.Parameter(torch.zeros(4))

        def compute(self, inputs: dict[str, object], role: str = "") -> object:
            return self.net(inputs["states"]), {"log_std": self.log_std}

    policy = Policy()
    torch.save(
        {"policy": policy.state_dict(), "optimizer": torch.optim.Adam(policy.parameters()).state_dict()},
        folder / "agent_1000.pt",
    )
    policy.save(str(folder / "policy.pt"))
    assert PPO and DeterministicMixin


@maker
def rsl_rl(folder: Path) -> None:
    import torch
    from rsl_rl.modules import EmpiricalNormalization

    norm = EmpiricalNormalization(4)
    norm(torch.ones(2, 4))
    state = {"model_state_dict": norm.state_dict(), "optimizer_state_dict": {}, "iter": 100, "infos": None}
    torch.save(state, folder / "model_100.pt")
    torch.save(norm, folder / "normalization.pt")
    torch.jit.save(torch.jit.script(norm), folder / "policy.pt")


@maker
def rl_games(folder: Path) -> None:
    import torch
    from rl_games.algos_torch.running_mean_std import RunningMeanStd
    from rl_games.algos_torch.torch_ext import save_checkpoint

    state = {
        "model": RunningMeanStd((4,)).state_dict(),
        "epoch": 3,
        "optimizer": {},
        "frame": 10,
        "last_mean_rewards": 1.0,
    }
    save_checkpoint(str(folder / "walker"), {0: state, **state})
    assert torch


@maker
def tensordict(folder: Path) -> None:
    import torch
    from tensordict import TensorDict

    data = TensorDict({"obs": torch.ones(3, 2), "next": {"reward": torch.ones(3)}}, batch_size=[3])
    torch.save(data, folder / "tensordict.pt")
    torch.save({"params": TensorDict.from_module(torch.nn.Linear(2, 2)).data}, folder / "params.pt")


@maker
def flax(folder: Path) -> None:
    import jax
    import numpy as np
    from flax import serialization

    params = {"dense": {"kernel": jax.numpy.ones((2, 2)), "bias": jax.numpy.zeros(2, jax.numpy.bfloat16)}}
    (folder / "params.msgpack").write_bytes(serialization.to_bytes(params))
    (folder / "numpy.pkl").write_bytes(pickle.dumps(jax.tree.map(np.asarray, params)))
    (folder / "jax.pkl").write_bytes(pickle.dumps(params))


@maker
def orbax(folder: Path) -> None:
    import jax
    import orbax.checkpoint as ocp

    tree = {"w": jax.numpy.ones((4, 4)), "step": 3}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "orbax", tree)
        checkpointer.wait_until_finished()
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False)
    ocp.Checkpointer(handler).save(folder / "zarr", tree)


@maker
def optax(folder: Path) -> None:
    import jax
    import optax as library

    state = library.adam(1e-3).init({"w": jax.numpy.ones(2)})
    (folder / "optimizer.pkl").write_bytes(pickle.dumps(jax.device_get(state)))


@maker
def onnx(folder: Path) -> None:
    import numpy as np
    import onnx as library
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "policy", inputs, outputs, [weight]
    )
    model = helper.make_model(graph)
    library.save(model, folder / "policy.onnx")
    library.save(
        model,
        folder / "external.onnx",
        save_as_external_data=True,
        location="external.onnx.data",
        size_threshold=0,
    )


@maker
def keras(folder: Path) -> None:
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras as library

    model = library.Sequential(
        [library.Input((4,)), library.layers.Dense(8, activation="relu"), library.layers.Dense(2)]
    )
    model.compile("adam", "mse")
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    model.save(folder / "legacy.h5")


@maker
def hdf5(folder: Path) -> None:
    import h5py
    import numpy as np

    with h5py.File(folder / "data.hdf5", "w") as file:
        file.attrs["env_args"] = '{"env": "Lift"}'
        file.create_dataset("data/demo_0/actions", data=np.zeros((10, 7)), compression="gzip")
    with h5py.File(folder / "latest.h5", "w", libver="latest") as file:
        file.attrs["note"] = "x" * 100
        file["w"] = np.zeros(3)


@maker
def diffusers(folder: Path) -> None:
    from diffusers import DDPMScheduler, UNet1DModel

    DDPMScheduler().save_pretrained(folder / "scheduler")
    blocks = {"block_out_channels": (8, 8), "down_block_types": ("DownBlock1D", "AttnDownBlock1D"),
              "up_block_types": ("AttnUpBlock1D", "UpBlock1D"), "extra_in_channels": 16, "sample_size": 16}  # fmt: skip
    UNet1DModel(**blocks).save_pretrained(folder / "unet")


@maker
def transformers(folder: Path) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=16
    )
    BertModel(config).save_pretrained(folder / "bert")


@maker
def lightning(folder: Path) -> None:
    import lightning as library
    import torch

    class Net(library.LightningModule):
        def __init__(self, width: int = 4) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(4, width)

        def training_step(self, batch: object, index: int) -> object:
            return self.layer(torch.ones(1, 4)).sum()

        def configure_optimizers(self) -> object:
            return torch.optim.Adam(self.parameters())

    data = torch.utils.data.DataLoader([0, 1])
    trainer = library.Trainer(max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
                              accelerator="cpu", default_root_dir=folder, enable_checkpointing=False)  # fmt: skip
    trainer.fit(Net(), data)
    trainer.save_checkpoint(folder / "last.ckpt")


@maker
def omegaconf(folder: Path) -> None:
    import torch
    from omegaconf import OmegaConf

    config = OmegaConf.create(
        {"policy": {"_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler", "n": "${eval:2*3}"}}
    )
    torch.save({"cfg": config, "state": {}}, folder / "config.ckpt")
    OmegaConf.save(config, folder / "config.yaml")


@maker
def trainers(folder: Path) -> None:
    import random

    import numpy as np
    import torch

    state = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.random.get_rng_state()}
    torch.save(state, folder / "rng_state.pth")
    net = torch.nn.Linear(2, 2)
    adam = torch.optim.AdamW(net.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 10)
    torch.save({"schedule": schedule.state_dict(), "torch": torch.__version__}, folder / "trainer.pt")
    torch.save(torch.optim.swa_utils.AveragedModel(net), folder / "ema.pt")
    (folder / "random.pkl").write_bytes(pickle.dumps(random.Random(1)))


@maker
def transformers_trainer(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.trainers import BpeTrainer
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
    )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.train_from_iterator(["class filters function codecs "] * 9, BpeTrainer(vocab_size=300))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    fast.save_pretrained(folder / "tokenizer")
    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=16
    )
    row = {"input_ids": torch.tensor([1, 2]), "labels": torch.tensor(0)}
    arguments = TrainingArguments(
        str(folder), max_steps=1, save_steps=1, report_to=[], use_cpu=True, disable_tqdm=True
    )
    Trainer(model=BertForSequenceClassification(config), args=arguments, train_dataset=[row] * 4).train()


@maker
def jax_trees(folder: Path) -> None:
    import jax
    import numpy as np
    from flax.core import freeze

    params = {"dense": {"kernel": np.ones((2, 2), np.float32)}}
    (folder / "structure.pkl").write_bytes(pickle.dumps(jax.tree_util.tree_structure(params)))
    (folder / "frozen.pkl").write_bytes(pickle.dumps(freeze(params)))


@maker
def tensordict_memmap(folder: Path) -> None:
    import torch
    from tensordict import TensorDict

    TensorDict({"obs": torch.ones(3)}, [3]).memmap(str(folder))


@maker
def onnx_exported(folder: Path) -> None:
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    torch.onnx.export(net, (torch.ones(1, 4),), str(folder / "policy.onnx"), dynamo=True, external_data=True)


@maker
def texts(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A policy\n")
    (folder / "config.json").write_text('{"n_layers": 3, "architectures": ["BertModel"]}')
    (folder / "env.yaml").write_text("viewer:\n  eye: !!python/tuple\n  - 7.5\n  - 7.5\nsim: {dt: 0.005}\n")
    (folder / "requirements.txt").write_text("torch==2.13.0\n")
    (folder / "LICENSE").write_text("MIT License\n")


def main() -> int:
    """Write everything below the folder that the command line names."""
    root = Path(sys.argv[1]).resolve()
    failed = []
    for name, function in MAKERS:
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            function(folder)
        except ImportError as error:
            print(f"left out: {name}: {error}", file=sys.stderr)
        except Exception:  # noqa: BLE001 - each framework by itself
            traceback.print_exc()
            failed.append(name)
    print("failed: " + ", ".join(failed) if failed else "all written", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
