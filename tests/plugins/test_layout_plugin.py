"""A layout from another package works on the command line like a built-in one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from builders.program import clean_environment
from builders.toy_run import toy_run


def call(environment: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [environment / "aml-mirror", *map(str, arguments)],
        # MLflow's client leaves its address in the environment of the process that used it.
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("framework", [[], ["--framework", "toy_rl"]])
def test_a_run_of_its_framework_is_planned(
    plugin_environment: Path, tmp_path: Path, framework: list[str]
) -> None:
    done = call(plugin_environment, "plan", "--source", toy_run(tmp_path / "run"), "--json", *framework)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["framework"], plan["checkpoint"]["path"]) == ("toy_rl", "toy_end.pt")
    assert plan["best"]["path"] == "toy_top.pt"
    assert [item["path"] for item in plan["files"]] == ["toy.json", "toy_end.pt"]


def test_help_and_errors_list_it(plugin_environment: Path, tmp_path: Path) -> None:
    done = call(plugin_environment, "plan", "--source", toy_run(tmp_path / "run"), "--framework", "toy")
    assert done.returncode == 64 and "toy_rl" in done.stderr
    (tmp_path / "empty").mkdir()
    done = call(plugin_environment, "plan", "--source", tmp_path / "empty")
    assert done.returncode == 65 and "toy_rl" in done.stderr
    assert "toy_rl" in call(plugin_environment, "plan", "--help").stdout


def test_without_the_package_it_is_not_known(aml_mirror, tmp_path: Path) -> None:
    done = aml_mirror("plan", "--source", toy_run(tmp_path / "run"), "--framework", "toy_rl", code=64)
    assert "is not known" in done.err
