"""What file names say if no framework is known: logs of a training, or data."""

from __future__ import annotations

import re

# Files in these folders are data or copies.
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
# A tracker's own folders.
TRACKERS = frozenset(
    ("wandb", "mlruns", "mlartifacts", "swanlog", "dvclive", "aim", "aim_logs", "trackio", "cometml-runs")
)
# The same with a hidden name. Nothing inside them is read.
HIDDEN_TRACKERS = frozenset(
    (".aim", ".cometml-runs", ".neptune", ".clearml", ".guild", ".wandb", ".mlruns", ".trackio", ".polyaxon")
)
# Words in the names of data, and of descriptions of data.
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
# One row per episode, without a step: from Stable-Baselines3's Monitor and Gym's.
MONITOR = re.compile(r"(?:.+\.)?monitor\.csv")


def words_of(name: str) -> set[str]:
    """Return the words of a file's name without its suffix, in lower case, also split at capital letters."""
    stem = name.rpartition(".")[0] or name
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", stem).lower()))
