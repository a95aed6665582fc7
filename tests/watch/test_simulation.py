"""A watcher on a simulated cluster: a sample of passes here, 500 and more with `make test-watch`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simulation import Cluster

PASSES = int(os.environ.get("WATCH_PASSES", "16"))
SEED = int(os.environ.get("WATCH_SEED", "1"))


@pytest.mark.timeout(6 * 3600)
def test_every_run_that_opted_in_is_mirrored_once_and_in_time(
    tmp_path: Path, mlflow_url: str, model_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Cluster(tmp_path, mlflow_url, model_name, SEED)
    try:
        for _ in range(PASSES):
            cluster.one_pass()
        # The workflows that ended last, and those that still wait for their pause.
        for _ in range(4):
            cluster.one_pass(calm=True)
        figures = cluster.check()
    finally:
        cluster.stop()
    with capsys.disabled():
        print("", *figures.lines(), sep="\n")
    assert figures.workflows["mirrored"] >= PASSES // 8
    assert figures.most_requests <= 20
