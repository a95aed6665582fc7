"""Results of evaluations in the formats of several tools; see aml_mirror.evidence.tool_results."""

from __future__ import annotations

from typing import Any


def lerobot(successes: int, episodes: int, seed: int = 0, pc_success: float | None = None) -> dict[str, Any]:
    """Return ``eval_info.json`` of one environment: the first ``successes`` episodes succeed."""
    return {
        "per_episode": [
            {
                "episode_ix": at,
                "sum_reward": 1.5,
                "max_reward": 1.0,
                "success": at < successes,
                "seed": seed + at,
            }
            for at in range(episodes)
        ],
        "aggregated": {
            "avg_sum_reward": 1.5,
            "avg_max_reward": 1.0,
            "pc_success": 100 * successes / episodes if pc_success is None else pc_success,
            "eval_s": 12.5,
            "eval_ep_s": 1.25,
        },
    }


def lerobot_tasks(tasks: dict[tuple[str, int], tuple[int, int]]) -> dict[str, Any]:
    """The same by task: (successes, episodes) of each group and id."""
    per_task = []
    for (group, number), (successes, episodes) in tasks.items():
        per_task.append(
            {
                "task_group": group,
                "task_id": number,
                "metrics": {
                    "sum_rewards": [1.5] * episodes,
                    "max_rewards": [1.0] * episodes,
                    "successes": [at < successes for at in range(episodes)],
                    "video_paths": [],
                },
            }
        )
    won, all_of_them = (sum(one[at] for one in tasks.values()) for at in (0, 1))
    means = {"avg_sum_reward": 1.5, "avg_max_reward": 1.0, "pc_success": 100 * won / all_of_them}
    return {"per_task": per_task, "per_group": {}, "overall": {**means, "n_episodes": all_of_them}}


TOOLCHAIN = {
    "eval_episodes": 100,
    "mean_reward": 12.5,
    "std_reward": 1.5,
    "mean_length": 210.0,
    "success_rate": 0.95,
}
LOGS = "[INFO] 4 environments\n[1]\n{{not json}}\n============\n{}\n============\n\n✅ PASSED: 0.95 >= 0.7\n"


def schema_v1() -> dict[str, Any]:
    """``metrics.json``: every threshold is infinite, every verdict ``pass``."""
    infinite = float("inf")
    return {
        "evaluation_schema_version": 1,
        "aggregate_verdict": "pass",
        "baseline_model_version": "none",
        "metrics": [
            {
                "name": name,
                "value": value,
                "absolute_threshold": infinite,
                "absolute_verdict": "pass",
                "regression_verdict": "skipped",
            }
            for name, value in (("action_accuracy_l2", 0.02), ("throughput_hz", infinite))
        ],
    }


def offline() -> dict[str, Any]:
    """``eval_results.json`` of an evaluation without a simulator."""
    return {
        "episodes_evaluated": 5,
        "aggregate_mse": 0.02,
        "aggregate_mae": 0.1,
        "per_episode": [{"episode": 0, "mse": 0.02}],
        "status": "completed",
    }
