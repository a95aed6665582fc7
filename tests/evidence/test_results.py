"""Which trials and metrics a result file has, and which files are refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aml_mirror.core.errors import DataError, SourceNotFound, UsageError
from aml_mirror.evidence.evaluation import Evaluation
from aml_mirror.evidence.result_file import ResultFile, evaluation_in, read_result
from aml_mirror.evidence.tool_results import successes_of
from builders.evaluations import LOGS, TOOLCHAIN, lerobot, lerobot_tasks, offline, schema_v1

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def read(document: Any, task: str = "") -> Evaluation:
    text = document if isinstance(document, str) else json.dumps(document)
    return evaluation_in(ResultFile("result", text.encode(), NOW), task)


@pytest.mark.parametrize(
    ("document", "trials", "metrics"),
    [
        (lerobot(9, 10), [("", 10, 9)], {"avg_sum_reward": 1.5, "avg_max_reward": 1.0}),
        (
            lerobot_tasks({("libero", 0): (3, 4), ("libero", 1): (0, 2)}),
            [("libero/0", 4, 3), ("libero/1", 2, 0)],
            {"avg_sum_reward": 1.5, "avg_max_reward": 1.0},
        ),
        (TOOLCHAIN, [("", 100, 95)], {"mean_reward": 12.5, "std_reward": 1.5, "mean_length": 210.0}),
        # As it is printed: indented, and surrounded by the log.
        (LOGS.format(json.dumps(TOOLCHAIN, indent=2)), [("", 100, 95)], {"mean_reward": 12.5}),
        # Infinite thresholds and a verdict are no evidence of success. Values that are not finite are not
        # metrics.
        (schema_v1(), [], {"action_accuracy_l2": 0.02}),
        (offline(), [], {"aggregate_mse": 0.02, "aggregate_mae": 0.1}),
        ({"episodes": [{"success": True}, {"success": False}]}, [("", 2, 1)], {}),
        (
            {
                "schema": "aml-mirror/evaluation/v1",
                "task": "pick",
                "evaluated_at": "2026-11-01T08:00:00Z",
                "metrics": {"latency_ms": 12},
                "episodes": [
                    {"success": True, "seed": 1, "length": 10},
                    {"success": True, "task": "place", "length": 20, "cost": 1},
                ],
            },
            [("pick", 1, 1), ("place", 1, 1)],
            # The mean of a value that some episodes lack would describe other episodes.
            {"latency_ms": 12.0, "length": 15.0},
        ),
        ("episode,success,length\n0,true,10\n1,no,20\n", [("", 2, 1)], {"length": 15.0}),
        # The number of the row, as pandas writes it, is not a metric.
        (",success,length\n0,true,10\n1,no,20\n", [("", 2, 1)], {"length": 15.0}),
        ("\ufeffsuccess, task \r\n1,a\r\n0,b\r\n1,a\r\n", [("a", 2, 2), ("b", 1, 0)], {}),
    ],
)
def test_each_format(document: Any, trials: list[Any], metrics: dict[str, float]) -> None:
    found = read(document)
    assert [(one.task, one.episodes, one.successes) for one in found.trials] == trials
    assert metrics.items() <= dict(found.metrics).items()
    assert found.episodes == sum(row[1] for row in trials)
    assert "Infinity" not in json.dumps(dict(found.metrics))
    assert all(found.metrics)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("nothing", "is not a known result of an evaluation"),
        ("[INFO] ready\n[INFO] done\n", "is not a known result of an evaluation"),
        ({"success_rate": 0.9}, "not a known result of an evaluation"),
        ({"error": "No episodes completed"}, "the evaluation failed: No episodes completed"),
        # pc_success is a percentage, and must match the episodes.
        (lerobot(9, 10, pc_success=0.9), "pc_success is 0.9, but 9 of 10 episodes succeeded"),
        ({**lerobot(1, 1), "per_episode": []}, "it has no episode"),
        ({**lerobot(1, 1), "per_episode": [{"seed": 1}]}, "per_episode[0] has no success"),
        ({**lerobot(1, 1), "per_episode": [{"success": 0.5}]}, "not true or false"),
        ({"per_task": [{"task_group": "a"}]}, "without metrics.successes"),
        ({**TOOLCHAIN, "success_rate": 95}, "success_rate is not from 0 to 1"),
        ({**TOOLCHAIN, "eval_episodes": 0}, "not a positive number"),
        ({**TOOLCHAIN, "success_rate": 0.955}, "does not give a whole number of 100 episodes"),
        ({**schema_v1(), "evaluation_schema_version": 2}, "evaluation_schema_version is not 1"),
        ({"episodes": [{"success": "yes"}]}, "episodes[0].success is not true or false"),
        ({"episodes": [{"success": True, "length": "long"}]}, "episodes[0].length is not a finite number"),
        ({"episodes": []}, "it has no episode"),
        ({"episodes": [{"success": True}], "success_rate": 1}, "unknown key 'success_rate'"),
        ({"schema": "aml-mirror/evaluation/v2", "episodes": []}, "not aml-mirror/evaluation/v1"),
        ({"episodes": [{"success": True}], "evaluated_at": "soon"}, "evaluated_at is 'soon'"),
        ({"episodes": [{"success": True}], "evaluated_at": "2999-01-01"}, "in the future"),
        ({"episodes": [{"success": True}], "manifest_sha256": "abc"}, "not a SHA-256"),
        ({"episodes": [{"success": True, "a\ud800": 1}]}, "the name 'a\\ud800' in the result is not text"),
        ({"episodes": [{"success": True, "task": "\ud800"}]}, "in the result is not text"),
        ('{"per_episode": [\n {"success": true},', "is damaged JSON: line 2, column 20: "),
        ("success\nmaybe\n", "line 2: success is 'maybe'"),
        ("success,length\ntrue,far\n", "line 2: length is 'far', not a number"),
        ("success,length\ntrue\n", "line 2 does not have as many values as the first line"),
        ("success,success\ntrue,true\n", "two columns have the same name"),
    ],
)
def test_what_is_refused_with_one_line(document: Any, why: str) -> None:
    with pytest.raises(DataError) as refused:
        read(document)
    assert why in refused.value.message and "\n" not in refused.value.message


def test_a_result_is_the_same_evaluation_however_it_is_written() -> None:
    document = lerobot(9, 10)
    same = json.loads(json.dumps(document))
    same["aggregated"]["eval_s"] = 99.0
    assert read(json.dumps(document, indent=4)).id == read(same).id
    assert read(lerobot(9, 10, seed=7)).id != read(document).id
    assert read(lerobot(8, 10)).id != read(document).id
    # Two sessions without seeds are distinguished by their time.
    times = [{"episodes": [{"success": True}], "evaluated_at": f"2026-11-0{day}"} for day in (1, 2)]
    assert read(times[0]).id != read(times[1]).id


def test_a_task_is_named_where_the_result_names_none() -> None:
    assert [one.task for one in read(TOOLCHAIN, "reach").trials] == ["reach"]
    mixed = {"episodes": [{"success": True}, {"success": False, "task": "reach"}]}
    (one,) = read(mixed, "reach").trials
    assert (one.task, one.episodes, one.successes) == ("reach", 2, 1)


def test_a_rounded_share_counts_the_least_that_it_can_mean() -> None:
    assert successes_of(0.3333, 3) == 1
    assert successes_of(1.0, 7) == 7
    assert successes_of(0.0, 7) == 0
    assert successes_of(0.5, 3_000_001) <= 1_500_000


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="there is no file"):
        read_result(str(tmp_path / "none.json"))
    with pytest.raises(UsageError, match="is a folder"):
        read_result(str(tmp_path))
    (tmp_path / "empty").write_text(" \n")
    with pytest.raises(DataError, match="is empty"):
        read_result(str(tmp_path / "empty"))
