"""What the names of files tell where no framework is known: that they are logs of a training, or data."""

from __future__ import annotations

import re

# What is in these is data, or a copy.
DATA_FOLDERS = frozenset(
    (
        "data",
        "dataset",
        "datasets",
        "meta",
        "demos",
        "trajectories",
        "episodes",
        "rollouts",
        "videos",
        "images",
    )
) | {"cache", ".cache", ".git", "node_modules", "site-packages"}
# What a tracker keeps in a folder of its own.
TRACKERS = frozenset(
    ("wandb", "mlruns", "mlartifacts", "swanlog", "dvclive", "aim", "aim_logs", "trackio", "cometml-runs")
)
# The same under a name that hides it: nothing in such a folder is looked at.
HIDDEN_TRACKERS = frozenset(
    (".aim", ".cometml-runs", ".neptune", ".clearml", ".guild", ".wandb", ".mlruns", ".trackio", ".polyaxon")
)
# Words of names of data, and of what describes it.
DATA_WORDS = frozenset(
    {"episode", "episodes", "chunk", "chunks", "frame", "frames", "shard", "shards", "sample"}
    | {"samples", "demo", "demos", "demonstrations", "traj", "trajs", "trajectory", "trajectories"}
    | {"rollout", "rollouts", "data", "dataset", "datasets", "video", "videos", "image", "images"}
    | {"obs", "action", "actions", "clip", "clips", "scene", "scenes", "recording", "recordings"}
    | {"embedding", "embeddings", "feature", "features", "cache", "task", "tasks", "token"}
    | {"tokens", "vocab", "prompt", "prompts", "instruction", "instructions", "info", "stats"}
    | {"statistics", "segment", "segments", "transition", "transitions", "label", "labels"}
    | {"config", "annotation", "annotations", "message", "messages", "response", "responses"}
    | {"buffer", "map"}
)
# An episode a row, without a step: of Stable-Baselines3's Monitor and Gym's.
MONITOR = re.compile(r"(?:.+\.)?monitor\.csv")


def words_of(name: str) -> set[str]:
    """Return the words of a file's name without its suffix, in lower case, split at humps too."""
    stem = name.rpartition(".")[0] or name
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", stem).lower()))
