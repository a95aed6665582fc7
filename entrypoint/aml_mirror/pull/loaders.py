"""Shows how a framework loads a pulled version: the path for its loader, and the lines of code.

Sources: LeRobot (lerobot/policies/factory.py), transformers and PEFT (``from_pretrained``), Stable-Baselines3
(``PPO.load``), rsl_rl (``OnPolicyRunner.load``), skrl (``Agent.load``), rl_games (``Player.restore``),
robomimic (``policy_from_checkpoint``), Ray RLlib (``Algorithm.from_checkpoint``), Brax (training/agents/*/
checkpoint.py), Orbax and Flax. ``make test-frameworks`` executes the lines of each framework that can be
installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aml_mirror.formats.base import Weights
from aml_mirror.formats.registry import format_of


@dataclass(frozen=True, slots=True)
class Loader:
    """``path`` is below the folder ``model``; empty: the folder itself."""

    path: str
    lines: tuple[str, ...]


def loader_of(tags: Mapping[str, str], paths: Sequence[str], folder: str) -> Loader:
    """Return how a version is loaded.

    Args:
        tags: the version's tags: ``framework``, ``base_model``.
        paths: the files of the version.
        folder: the folder with the files.
    """
    framework = tags.get("framework", "")
    names = {path.rpartition("/")[2] for path in paths}
    weights = [path for path in paths if _holds_weights(path)]
    main = _main(weights)
    full = f"{folder}/{main}" if main else folder
    if "adapter_config.json" in names:
        return Loader("", _adapter(folder, tags.get("base_model", "")))
    if row := _BY_FRAMEWORK.get(framework):
        takes_folder, lines = row
        # Saved by VecNormalize: without it, the policy gets observations with another scale.
        statistics = next((path for path in paths if re.search(r"vec_?normalize.*\.pkl$", path)), "")
        known = {"folder": folder, "file": full, "statistics": f"{folder}/{statistics}"}
        known = {key: text.replace("\\", r"\\").replace('"', r"\"") for key, text in known.items()}
        known["model_class"] = _model_class(folder)
        found = (*(_VEC_NORMALIZE if statistics else ()), *lines)
        return Loader("" if takes_folder else main, tuple(line.format(**known) for line in found))
    return _by_file(main, folder, full, names)


def _holds_weights(path: str) -> bool:
    known = format_of(path)
    return path.endswith(".jit") or (known is not None and known.weights is not Weights.NEVER)


def _main(weights: Sequence[str]) -> str:
    """Return the only file that contains the policy; empty: there are several, or none."""
    if len(weights) == 1:
        return weights[0]
    # Companions of a policy: Stable-Baselines3's statistics and its replay buffer.
    policies = [path for path in weights if not re.search(r"vec_?normalize|replay_buffer|\.pkl$", path)]
    return policies[0] if len(policies) == 1 else ""


def _model_class(folder: str) -> str:
    """Return the transformers class that a configuration names. ``AutoModel`` would leave out the head."""
    try:
        config = json.loads(Path(folder, "config.json").read_bytes())
        (name,) = config["architectures"]
    except (OSError, ValueError, KeyError, TypeError):
        return "AutoModel"
    is_own = "auto_map" in config or not (isinstance(name, str) and name.isidentifier())
    return "AutoModel" if is_own else str(name)


def _adapter(folder: str, base_model: str) -> tuple[str, ...]:
    return (
        "from peft import PeftModel",
        "from transformers import AutoModel",
        f"model = AutoModel.from_pretrained({base_model or 'the base model'!r})",
        f"model = PeftModel.from_pretrained(model, {folder!r})",
    )


_LEROBOT = (
    "from lerobot.configs.policies import PreTrainedConfig",
    "from lerobot.policies.factory import get_policy_class, make_pre_post_processors",
    'config = PreTrainedConfig.from_pretrained("{folder}")',
    'policy = get_policy_class(config.type).from_pretrained("{folder}")',
    'preprocess, postprocess = make_pre_post_processors(config, pretrained_path="{folder}")',
)
_TRANSFORMERS = (
    "from transformers import {model_class}",
    'model = {model_class}.from_pretrained("{folder}")',
)
_VEC_NORMALIZE = (
    "from stable_baselines3.common.vec_env import VecNormalize",
    'env = VecNormalize.load("{statistics}", env)  # env: made for the task',
)
_TORCH = ("import torch", 'state = torch.load("{file}", map_location="cpu", weights_only=True)')
_BY_FRAMEWORK: dict[str, tuple[bool, tuple[str, ...]]] = {
    # Whether the loader takes the folder, and the lines of code.
    "lerobot": (True, _LEROBOT),
    "huggingface": (True, _TRANSFORMERS),
    "groot": (
        True,
        (
            "from gr00t.policy.gr00t_policy import Gr00tPolicy",
            'policy = Gr00tPolicy(embodiment_tag=..., model_path="{folder}")',
        ),
    ),
    "stable_baselines3": (
        False,
        (
            "from stable_baselines3 import PPO  # or the algorithm that was trained",
            'policy = PPO.load("{file}")',
        ),
    ),
    "rsl_rl": (
        False,
        ('runner.load("{file}")  # of rsl_rl.runners.OnPolicyRunner, made for the task',),
    ),
    "skrl": (False, ('agent.load("{file}")  # of the agent, made for the task',)),
    "rl_games": (False, ('player.restore("{file}")  # of rl_games.torch_runner.Runner().create_player()',)),
    "robomimic": (
        False,
        (
            "from robomimic.utils.file_utils import policy_from_checkpoint",
            'policy, saved = policy_from_checkpoint(ckpt_path="{file}")',
        ),
    ),
    "rllib": (
        True,
        (
            "from ray.rllib.algorithms.algorithm import Algorithm",
            'policy = Algorithm.from_checkpoint("{folder}")',
        ),
    ),
    "brax": (
        True,
        (
            "from brax.training.agents.ppo import checkpoint  # or the algorithm that was trained",
            'policy = checkpoint.load_policy("{folder}")',
        ),
    ),
    "lightning": (False, ('model = YourModule.load_from_checkpoint("{file}")',)),
    "openpi": (
        True,
        (
            "from openpi.policies import policy_config",
            "from openpi.training import config",
            'policy = policy_config.create_trained_policy(config.get_config(...), "{folder}")',
        ),
    ),
}

# By the name of the format.
_BY_FORMAT: dict[str, Callable[[str], tuple[str, ...]]] = {
    "safetensors": lambda file: (
        "from safetensors.torch import load_file",
        f"state = load_file({file!r})",
    ),
    "ONNX": lambda file: ("import onnxruntime", f"policy = onnxruntime.InferenceSession({file!r})"),
    "msgpack": lambda file: (
        "from flax.serialization import msgpack_restore",
        f"state = msgpack_restore(open({file!r}, 'rb').read())",
    ),
    "numpy archive": lambda file: ("import numpy", f"state = numpy.load({file!r})"),
    "Keras": lambda file: ("import keras", f"policy = keras.saving.load_model({file!r})"),
}


def _by_file(main: str, folder: str, full: str, names: set[str]) -> Loader:
    """For a framework without its own lines, or a version that another program made."""
    if "_METADATA" in names or "_CHECKPOINT_METADATA" in names or "manifest.ocdbt" in names:
        return Loader(
            "",
            (
                "import orbax.checkpoint",
                f"state = orbax.checkpoint.StandardCheckpointer().restore({folder!r})",
            ),
        )
    if main.endswith(".jit"):
        return Loader(main, ("import torch", f"policy = torch.jit.load({full!r})"))
    known = format_of(main)
    name = known.name if known else ""
    if make := _BY_FORMAT.get(name):
        return Loader(main, make(full))
    if name.startswith("torch.save"):
        return Loader(main, tuple(line.format(file=full) for line in _TORCH))
    return Loader(main, ())
