"""Reads the results of robot-learning tools: LeRobot and physical-ai-toolchain.

Formats, from their sources as of August 2026:

- LeRobot ``src/lerobot/scripts/lerobot_eval.py`` writes ``eval_info.json``: ``per_task`` with lists of
  ``successes``, ``sum_rewards`` and ``max_rewards``, and ``overall``; releases with one environment write
  ``per_episode`` and ``aggregated``. ``pc_success`` is a percentage. The single trials count; the percentage
  is only compared with them.
- physical-ai-toolchain ``evaluation/sil/policy_evaluation.py`` prints ``eval_episodes`` and ``success_rate``,
  from 0 to 1.
- physical-ai-toolchain ``evaluation/sil/scripts/run_evaluation.py`` compares predicted actions with recorded
  ones: ``eval_results.json``, and "schema v1" in ``metrics.json``, whose thresholds are infinite and whose
  verdict is always ``pass``. No episode was tried, so there are metrics but no trials.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from aml_mirror.core.errors import DataError
from aml_mirror.evidence.evaluation import Evaluation, evaluation_of, finite

# A rate that was printed with four decimals may be off by half of the last one.
_ROUNDING = 5e-5


def lerobot(found: dict[str, Any]) -> Evaluation | None:
    """Read ``eval_info.json``; None if it is something else."""
    if isinstance(found.get("per_task"), list):
        return _lerobot_tasks(found)
    if isinstance(found.get("per_episode"), list) and isinstance(found.get("aggregated"), Mapping):
        return _lerobot_episodes(found)
    return None


def _lerobot_tasks(found: dict[str, Any]) -> Evaluation:
    rows = []
    for item in found["per_task"]:
        metrics = item.get("metrics") if isinstance(item, Mapping) else None
        if not isinstance(metrics, Mapping) or not isinstance(metrics.get("successes"), list):
            raise _damaged("per_task has an entry without metrics.successes")
        task = "/".join(str(item[key]) for key in ("task_group", "task_id") if item.get(key) is not None)
        for at, success in enumerate(metrics["successes"]):
            rest = [
                values[at]
                for key in ("sum_rewards", "max_rewards")
                if isinstance(values := metrics.get(key), list) and at < len(values)
            ]
            rows.append((task, str(at), _success(success), rest))
    overall = found.get("overall") if isinstance(found.get("overall"), Mapping) else {}
    return _lerobot("lerobot eval_info.json, by task", rows, overall or {})


def _lerobot_episodes(found: dict[str, Any]) -> Evaluation:
    rows = []
    for at, item in enumerate(found["per_episode"]):
        if not isinstance(item, Mapping) or "success" not in item:
            raise _damaged(f"per_episode[{at}] has no success")
        rest = [item.get(key) for key in ("seed", "sum_reward", "max_reward")]
        rows.append(("", str(item.get("episode_ix", at)), _success(item["success"]), rest))
    return _lerobot("lerobot eval_info.json", rows, found["aggregated"])


def _lerobot(name: str, rows: list[tuple[str, str, bool, Any]], means: Mapping[str, Any]) -> Evaluation:
    if not rows:
        raise _damaged("it has no episodes")
    count, successes = len(rows), sum(row[2] for row in rows)
    percent = finite(means.get("pc_success"))
    if percent is not None and abs(percent - 100 * successes / count) > 100 * _ROUNDING:
        raise _damaged(f"pc_success is {percent:g}, but {successes} of {count} episodes succeeded")
    metrics = {key: means[key] for key in ("avg_sum_reward", "avg_max_reward") if key in means}
    return evaluation_of(name, ((task, 1, int(success)) for task, _, success, _ in rows), metrics, rows)


def toolchain_rate(found: dict[str, Any]) -> Evaluation | None:
    """Read the output of ``policy_evaluation.py``; None if it is something else."""
    if not {"eval_episodes", "success_rate"} <= found.keys():
        return None
    episodes, rate = found["eval_episodes"], finite(found["success_rate"])
    if type(episodes) is not int or episodes < 1 or rate is None or not 0 <= rate <= 1:
        raise _damaged("eval_episodes is not a positive number, or success_rate is not from 0 to 1")
    metrics: dict[str, object] = {
        key: found[key] for key in ("mean_reward", "std_reward", "mean_length") if key in found
    }
    return evaluation_of(
        "physical-ai-toolchain policy_evaluation", [("", episodes, successes_of(rate, episodes))], metrics
    )


def toolchain_offline(found: dict[str, Any]) -> Evaluation | None:
    """Read ``eval_results.json`` or schema v1 of ``run_evaluation.py``; None if it is neither."""
    if "evaluation_schema_version" in found:
        if found["evaluation_schema_version"] != 1 or not isinstance(found.get("metrics"), list):
            raise _damaged("its evaluation_schema_version is not 1, or it has no list of metrics")
        return evaluation_of("physical-ai-toolchain schema v1", (), dict(_schema_v1(found["metrics"])))
    if "episodes_evaluated" in found and any(name.startswith("aggregate_") for name in found):
        metrics = {name: value for name, value in found.items() if name.startswith("aggregate_")}
        return evaluation_of("physical-ai-toolchain eval_results.json", (), metrics)
    return None


def _schema_v1(metrics: list[Any]) -> Iterator[tuple[str, object]]:
    for item in metrics:
        if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
            raise _damaged("one of its metrics has no name")
        yield item["name"], item.get("value")


def successes_of(rate: float, episodes: int) -> int:
    """Return how many of the episodes succeeded, from the rate.

    If rounding leaves several numbers possible, the smallest counts.

    Raises:
        DataError: no number of episodes has this rate.
    """
    product = rate * episodes
    if abs(product - round(product)) < 1e-6:
        return round(product)
    least, most = math.ceil(product - episodes * _ROUNDING), math.floor(product + episodes * _ROUNDING)
    if least > most:
        raise _damaged(f"success_rate is {rate:g}, which does not give a whole number of {episodes} episodes")
    return max(0, least)


def _success(value: object) -> bool:
    if isinstance(value, bool):
        return value
    # Some encoders convert numpy's booleans to 0.0 and 1.0.
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise _damaged(f"a success is {value!r}, not true or false")


def _damaged(why: str) -> DataError:
    return DataError(f"the result is damaged: {why}", "check the file, or evaluate again")
