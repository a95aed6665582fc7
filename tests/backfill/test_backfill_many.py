"""10,000 runs that are already mirrored, written directly into MLflow's database: memory is bounded.

`make test-nightly` uses 4,000 of them, `make test-kill` all.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from mlflow import MlflowClient

from builders.program import clean_environment
from builders.saved import safetensors, write_json

# The small number fills a page, which is in memory in both cases. The test measures what each further run
# adds.
MANY, FEW = 10_000 if os.environ.get("KILL") == "all" else 4_000, 500
# The memory for one recognised run in bytes: its row of known values, and what is stored for it.
BYTES_A_RUN = 4096
PROGRAM = """
import sys
from aml_mirror.cli.main import main
code = main(sys.argv[1:])
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print(line.split()[1], file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of runs, and a database with a version of a model for each run."""
    folder = tmp_path_factory.mktemp("seeded")
    database = folder / "mlflow.db"
    client = MlflowClient(f"sqlite:///{database}", f"sqlite:///{database}")
    for model, count in (("many", MANY), ("few", FEW)):
        client.create_registered_model(model)
        artifacts = folder / "artifacts" / model
        experiment_id = client.create_experiment(model, str(artifacts))
        _seed(database, folder / model, model, count, experiment_id, artifacts)
    return folder


def _seed(database: Path, base: Path, model: str, count: int, experiment_id: str, artifacts: Path) -> None:
    """Insert runs, their versions, and their artifact folders, because a run without its MLflow run is
    mirrored again.
    """
    versions, tags, runs, run_tags = [], [], [], []
    for number in range(1, count + 1):
        run_id = f"train-{number:05}"
        checkpoint = base / run_id / "checkpoint-1"
        safetensors(checkpoint / "model.safetensors", seed=number, numbers=4)
        write_json(checkpoint / "trainer_state.json", {"global_step": 1})
        found = (checkpoint / "model.safetensors").stat()
        stamp = f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"
        rows = [["checkpoint-1/model.safetensors", found.st_size, stamp]]
        key = json.dumps([run_id, "checkpoint-1", rows], separators=(",", ":"))
        own = uuid.uuid4().hex
        versions.append((model, number, "c" * 3000, own, f"runs:/{own}/model"))
        mine = {
            "osmo.run_id": run_id, "osmo.output_dir": str(base / run_id), "framework": "huggingface",
            "source": "osmo-mirror", "checkpoint": "checkpoint-1", "step": "1", "mlflow_run_id": own,
            "manifest_sha256": hashlib.sha256(own.encode()).hexdigest(), "integrity": "sha256",
            "identity": hashlib.sha256(run_id.encode()).hexdigest(), "model_name": model,
            "quick_key": hashlib.sha256(key.encode()).hexdigest(), "mirror.state": "complete",
        }  # fmt: skip
        tags += [(name, value, model, number) for name, value in mine.items()]
        (artifacts / own).mkdir(parents=True)
        runs.append((own, run_id, number, number, f"{artifacts}/{own}/artifacts", experiment_id))
        run_tags += [(name, value, own) for name, value in mine.items()]
    with sqlite3.connect(database) as connection:
        connection.executemany(
            "insert into model_versions (name, version, creation_time, last_updated_time, description, "
            "run_id, source, current_stage, status) values (?, ?, 0, 0, ?, ?, ?, 'None', 'READY')",
            versions,
        )
        connection.executemany(
            "insert into model_version_tags (key, value, name, version) values (?, ?, ?, ?)", tags
        )
        connection.executemany(
            "insert into runs (run_uuid, name, start_time, end_time, artifact_uri, experiment_id, "
            "status, lifecycle_stage, user_id) values (?, ?, ?, ?, ?, ?, 'FINISHED', 'active', 'me')",
            runs,
        )
        connection.executemany("insert into tags (key, value, run_uuid) values (?, ?, ?)", run_tags)
    connection.close()


def _backfill(folder: Path, model: str, *more: str) -> tuple[list[dict[str, object]], dict[str, object], int]:
    """The lines of the runs, the line of the summary, and the peak memory in bytes."""
    flags = (
        "--source",
        folder / model,
        "--model-name",
        model,
        "--tracking-uri",
        f"sqlite:///{folder}/mlflow.db",
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "backfill", *map(str, flags), *more],
        capture_output=True,
        text=True,
        cwd=folder,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *lines, last = map(json.loads, done.stdout.splitlines())
    return lines, last, int(done.stderr.splitlines()[-1]) * 1024


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_thousands_are_recognised_in_bounded_memory(seeded: Path) -> None:
    _, _, few = _backfill(seeded, "few")
    lines, last, many = _backfill(seeded, "many")
    assert (last["found"], last["already_mirrored"], last["exit_code"]) == (MANY, MANY, 0)
    assert {line["outcome"] for line in lines} == {"already-mirrored"}
    assert {line["run_id"] for line in lines} == {f"train-{number:05}" for number in range(1, MANY + 1)}
    assert len({line["model_version"] for line in lines}) == MANY
    assert (many - few) / (MANY - FEW) < BYTES_A_RUN, (
        f"{few >> 20} MiB for {FEW}, {many >> 20} MiB for {MANY}"
    )
