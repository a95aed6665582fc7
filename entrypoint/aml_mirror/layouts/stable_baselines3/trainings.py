"""Tells whether files of Stable-Baselines3 belong to one training, by the ``data`` in each of them.

Folders with general names (``models/``) collect the results of several trainings: PPO and SAC, several tasks,
one file per seed. ``data`` contains the attributes of `BaseAlgorithm` (stable_baselines3.common.base_class
and save_util): the module of the policy's class, both spaces, and the seed. Of the last call of ``learn`` it
contains the time (``start_time``) and the count of timesteps at its beginning (``_num_timesteps_at_start``).
Files of one call share both. A training that continues begins at the count where the one before it ended. So
if two calls begin at the same count, neither continues the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# PPO, A2C and TRPO share a policy class. Only one of them has these settings.
_TELLING = ("clip_range", "cg_max_steps")
# A space's bounds are not part of what a policy is, and releases write them differently.
_SPACE = ("_shape", "n", "nvec")


@dataclass(frozen=True, slots=True)
class Training:
    """What all files of one training have in common. None or empty: the file does not say."""

    algorithm: tuple[str, ...] = ()
    observation: tuple[tuple[str, str], ...] = ()
    action: tuple[tuple[str, str], ...] = ()
    seed: int | None = None
    called: float | None = None
    """When ``learn`` was called."""
    began: int | None = None
    """The count of timesteps when it began."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Training:
        """Read the training from a file's ``data``."""
        policy = data.get("policy_class")
        module = policy.get("__module__") if isinstance(policy, dict) else None
        telling = tuple(key for key in _TELLING if key in data)
        return cls(
            (module, *telling) if isinstance(module, str) else (),
            _space(data.get("observation_space")),
            _space(data.get("action_space")),
            _number(data.get("seed")),
            _number(data.get("start_time")),
            _number(data.get("_num_timesteps_at_start")),
        )

    def differences(self, other: Training) -> list[str]:
        """Return the differences between two trainings that can never occur within one."""
        found = []
        if self.algorithm and other.algorithm and self.algorithm != other.algorithm:
            found.append("algorithm")
        if _conflict(self.observation, other.observation):
            found.append("observation space")
        if _conflict(self.action, other.action):
            found.append("action space")
        seeds = (self.seed, other.seed)
        if None not in seeds and self.seed != other.seed and self.is_apart(other):
            found.append("seed")
        return found

    def is_apart(self, other: Training) -> bool:
        """Tell whether neither training continues the other."""
        return self.is_other_call(other) and self.began is not None and self.began == other.began

    def is_other_call(self, other: Training) -> bool:
        """Tell whether they are known to belong to two calls of ``learn``."""
        return None not in (self.called, other.called) and self.called != other.called


def _space(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not isinstance(value.get(":type:"), str):
        return ()
    # "<class 'gymnasium.spaces.box.Box'>": the class of the same name in gym is equal.
    kind = value[":type:"].rstrip("'>").rpartition(".")[2]
    told = ((key, value[key]) for key in _SPACE if isinstance(value.get(key), (str, int, list)))
    # A shape is a list of numbers. Nested values are not written out.
    return (("kind", kind), *((key, str(item)) for key, item in told if not _nests(item)))


def _nests(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, (list, dict)) for item in value)


def _conflict(one: tuple[tuple[str, str], ...], two: tuple[tuple[str, str], ...]) -> bool:
    other = dict(two)
    return any(key in other and other[key] != value for key, value in one)


def _number(value: Any) -> Any:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
