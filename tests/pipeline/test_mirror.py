"""The pipeline with a real MLflow server: what arrives, and that it arrives exactly once."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from datetime import datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from aml_mirror.registries.mlflow.role_aliases import RoleAliases
from aml_mirror.registries.mlflow.tracking_server import MlflowRegistry
from aml_mirror.registries.records import Version
from builders.program import Call, Done
from builders.proxy import Proxy
from builders.runs import huggingface_run, write_events, write_weights


def only_run(client: MlflowClient, experiment: str):
    """The only run of an experiment."""
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id])
    assert len(runs) == 1, [run.data.tags for run in runs]
    return runs[0]


def versions(client: MlflowClient, model: str) -> list:
    """All versions of a model, oldest first."""
    return sorted(client.search_model_versions(f"name = '{model}'"), key=lambda item: int(item.version))


def points_of(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, float, int]]:
    """(step, value, milliseconds) of every point of a series."""
    return sorted((m.step, m.value, m.timestamp) for m in client.get_metric_history(run_id, name))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small Hugging Face run."""
    return huggingface_run(tmp_path / "run-7")


@pytest.fixture
def mirror(aml_mirror: Call, mlflow_url: str, model_name: str) -> Call:
    """Mirror a run into the server, under this test's model."""

    def call(
        source: Path, *arguments: str, code: int | None = 0, url: str = mlflow_url, **environment: str
    ) -> Done:
        given = ("--source", source, "--model-name", model_name, "--tracking-uri", url, "--json")
        return aml_mirror(*given, *arguments, code=code, **environment)

    return call


def test_what_arrives(
    run: Path, mirror: Call, client: MlflowClient, mlflow_url: str, model_name: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    receipt = mirror(run, "--tag", "robot=ur5e").json

    assert receipt["outcome"] == "mirrored"
    assert (receipt["checkpoint"], receipt["step"], receipt["run_id"]) == ("checkpoint-20", 20, "run-7")
    found = only_run(client, model_name)
    assert found.info.run_id == receipt["mlflow_run_id"]
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run-7"
    # The run has the times of its training. The tag has the mirror's own time.
    assert (found.info.start_time, found.info.end_time) == (1_760_000_000_000, 1_760_000_029_000)
    assert found.data.tags["mirror.trained"] == "2025-10-09T08:53:20.000+00:00/2025-10-09T08:53:49.000+00:00"
    assert 0 <= time.time() - datetime.fromisoformat(found.data.tags["mirror.began"]).timestamp() < 900
    tags = found.data.tags
    assert tags["osmo.run_id"] == "run-7"
    assert tags["osmo.output_dir"] == str(run)
    assert tags["framework"] == "huggingface"
    assert tags["robot"] == "ur5e"
    assert tags["step"] == "20"
    assert found.data.params["config.model_type"] == "policy"

    # Every point has its own step and wall time.
    expected = [
        (step, pytest.approx(1.0 / step), 1_760_000_000_000 + 1000 * (step - 1)) for step in range(1, 31)
    ]
    assert points_of(client, found.info.run_id, "train/loss") == expected

    (version,) = versions(client, model_name)
    assert version.run_id == found.info.run_id
    assert version.tags["mirror.state"] == "complete"
    assert version.tags["manifest_sha256"] == receipt["manifest_sha256"]
    assert "checkpoint-20" in version.description
    assert not {"mirror.trained", "mirror.began", "model_name"} & version.tags.keys()

    # The model version has exactly the same bytes, and only what inference needs.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
    folder = Path(download_artifacts(f"models:/{model_name}/1", dst_path=str(tmp_path / "got")))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    for path in folder.iterdir():
        assert path.read_bytes() == (run / "checkpoint-20" / path.name).read_bytes()

    artifacts = {item.path for item in client.list_artifacts(found.info.run_id)}
    ours = {"manifest.json", "provenance.intoto.json", "safety.json", "receipt.json", "MODEL_CARD.md"}
    assert artifacts == {"model", "tensorboard", "mirror", "model.cdx.json", "curves.svg", *ours}
    whole = Path(
        download_artifacts(run_id=found.info.run_id, artifact_path="", dst_path=str(tmp_path / "all"))
    )
    manifest = json.loads((whole / "manifest.json").read_text())
    for entry in manifest["files"]:
        data = (whole / "model" / entry["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"])
        assert set(entry) == {"path", "bytes", "sha256", "md5", "etag", "evidence"}
    assert json.loads((whole / "receipt.json").read_text())["model_version"] == "1"
    events = next((run / "runs").rglob("events*"))
    assert (whole / "tensorboard" / events.relative_to(run)).read_bytes() == events.read_bytes()
    # Without the backslashes that escape Markdown.
    card = re.sub(r"\\(.)", r"\1", (whole / "MODEL_CARD.md").read_text())
    for part in ("huggingface", "run-7", str(run), "checkpoint-20", "train/loss", receipt["manifest_sha256"]):
        assert part in card
    assert "Trained: 2025-10-09 08:53 UTC" in card
    assert "(curves.svg)" in card
    assert f"(get-artifact?run_uuid={found.info.run_id}&path=curves.svg)" in version.description

    # The pages of run and version, and their text.
    top, more = f"{mlflow_url}/#", "?workflowType=machine_learning"
    assert (
        receipt["run_page"] == f"{top}/experiments/{found.info.experiment_id}/runs/{found.info.run_id}{more}"
    )
    assert receipt["version_page"] == f"{top}/models/{model_name}/versions/1{more}"
    assert f"]({receipt['run_page']})" in card
    assert "step 20" in tags["mlflow.note.content"]
    assert "checkpoint of one run" in client.get_registered_model(model_name).description
    again = mirror(run).json
    assert [again[key] for key in ("run_page", "version_page")] == [
        receipt["run_page"],
        receipt["version_page"],
    ]


def test_again_sends_nothing(run: Path, mirror: Call, mlflow_url: str, model_name: str) -> None:
    first = mirror(run).json
    with Proxy(mlflow_url) as proxy:
        again = mirror(run, url=proxy.url).json
        # It asks for the versions, for the run of this one, and for the files of that run.
        assert [method for method, _ in proxy.seen] == ["GET", "GET", "GET"]
    assert again["outcome"] == "already-mirrored"
    assert again["bytes_sent"] == 0
    for key in (
        "model_version",
        "model_uri",
        "mlflow_run_id",
        "manifest_sha256",
        "checkpoint",
        "step",
        "bytes",
    ):
        assert again[key] == first[key], key


def test_no_checkpoint_byte_is_read_when_the_quick_key_holds(run: Path, mirror: Call, tmp_path: Path) -> None:
    mirror(run)
    log = tmp_path / "opened.txt"
    # The real program, with Python's audit hook recording each file that is opened.
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import sys\n"
        f"out = open({str(log)!r}, 'a')\n"
        "sys.addaudithook(lambda event, args: event == 'open' and 'run-7' in str(args[0])"
        " and print(args[0], file=out, flush=True))\n"
    )
    assert mirror(run, fork=False, PYTHONPATH=str(hook)).json["outcome"] == "already-mirrored"
    opened = log.read_text() if log.exists() else ""
    assert "model.safetensors" not in opened
    # The hook does see opened files: without the key, the weights are opened.
    (run / "checkpoint-20" / "model.safetensors").touch()
    mirror(run, fork=False, PYTHONPATH=str(hook))
    assert "model.safetensors" in log.read_text()


def test_touched_but_equal(run: Path, mirror: Call, client: MlflowClient, model_name: str) -> None:
    mirror(run)
    key = versions(client, model_name)[0].tags["quick_key"]
    for path in (run / "checkpoint-20").iterdir():
        path.touch()
    assert mirror(run).json["outcome"] == "already-mirrored"
    assert len(versions(client, model_name)) == 1
    refreshed = versions(client, model_name)[0].tags["quick_key"]
    assert refreshed != key
    assert only_run(client, model_name)


def test_moved_and_copied_elsewhere(run: Path, mirror: Call, client: MlflowClient, model_name: str) -> None:
    mirror(run)
    moved = run.parent / "elsewhere"
    shutil.copytree(run, moved)
    shutil.rmtree(run)
    receipt = mirror(moved, "--run-id", "run-7").json
    assert receipt["outcome"] == "already-mirrored"
    assert len(versions(client, model_name)) == 1


def test_other_bytes_are_a_new_version(
    run: Path, mirror: Call, client: MlflowClient, model_name: str
) -> None:
    first = mirror(run).json
    write_weights(run / "checkpoint-20" / "model.safetensors", seed=99)
    second = mirror(run).json
    assert second["outcome"] == "mirrored"
    assert second["model_version"] == "2"
    assert second["manifest_sha256"] != first["manifest_sha256"]
    assert second["mlflow_run_id"] != first["mlflow_run_id"]


def test_another_final_checkpoint_is_a_new_version(run: Path, mirror: Call) -> None:
    mirror(run)
    huggingface_run(run, steps=(30,), points=1)
    second = mirror(run).json
    assert (second["outcome"], second["model_version"], second["step"]) == ("mirrored", "2", 30)


def test_the_aliases_name_the_newest_version_of_a_role(
    run: Path, mirror: Call, client: MlflowClient, model_name: str
) -> None:
    def aliases() -> dict[str, str]:
        return dict(client.get_registered_model(model_name).aliases)

    mirror(run, "--checkpoint", "checkpoint-10")
    assert aliases() == {}, "a periodic checkpoint has no alias"
    mirror(run)
    assert aliases() == {"final": "2"}
    client.set_registered_model_alias(model_name, "production", "2")
    write_weights(run / "checkpoint-20" / "model.safetensors", seed=99)
    mirror(run)
    assert aliases() == {"final": "3", "production": "2"}
    # Two mirrors at once: the older one writes last, and corrects its own change.
    store = MlflowRegistry(str(client.tracking_uri), 5, print)
    client.set_registered_model_alias(model_name, "final", "2")
    late = RoleAliases(store, Version(model_name, "2"), "final")
    late.before_completion()
    late.after_completion()
    assert aliases()["final"] == "3"
    # It never moves to an older one.
    client.set_registered_model_alias(model_name, "final", "3")
    RoleAliases(store, Version(model_name, "1"), "final").before_completion()
    assert aliases()["final"] == "3"


def test_all_makes_one_version_a_checkpoint(
    run: Path, mirror: Call, client: MlflowClient, model_name: str
) -> None:
    done = mirror(run, "--checkpoint", "all")
    receipts = [json.loads(line) for line in done.out.splitlines()]
    assert [(item["step"], item["model_version"]) for item in receipts] == [(10, "1"), (20, "2")]
    again = [json.loads(line)["outcome"] for line in mirror(run, "--checkpoint", "all").out.splitlines()]
    assert again == ["already-mirrored"] * 2
    assert len(versions(client, model_name)) == 2


def test_what_a_person_names_is_mirrored_whatever_it_is_called(
    run: Path, mirror: Call, client: MlflowClient, model_name: str, tmp_path: Path
) -> None:
    """An exported policy of a run that its layout does not list, and weights that belong to no run."""
    write_weights(run / "exported" / "policy.safetensors", 3)
    receipt = mirror(run, "--checkpoint", "exported/policy.safetensors").json
    assert (receipt["outcome"], receipt["checkpoint"]) == ("mirrored", "exported/policy.safetensors")
    assert "was selected by name" in receipt["warnings"][-1]
    assert receipt["points"] > 0
    assert mirror(run, "--checkpoint", "exported").json["model_version"] == "2"
    assert mirror(run, "--checkpoint", "exported/policy.safetensors").json["outcome"] == "already-mirrored"
    write_weights(tmp_path / "lone" / "policy.safetensors", 4)
    assert mirror(tmp_path / "lone", code=65).json["hint"].count("--checkpoint 'policy.safetensors'") == 1
    receipt = mirror(tmp_path / "lone", "--checkpoint", "policy.safetensors").json
    assert (receipt["outcome"], receipt["framework"]) == ("mirrored", "generic")
    (version,) = (one for one in versions(client, model_name) if one.version == receipt["model_version"])
    got = client.download_artifacts(version.run_id, "model/policy.safetensors", str(tmp_path))
    assert Path(got).read_bytes() == (tmp_path / "lone" / "policy.safetensors").read_bytes()


def test_another_model_of_the_same_run(
    run: Path, mirror: Call, aml_mirror: Call, mlflow_url: str, model_name: str
) -> None:
    mirror(run)
    other = aml_mirror(
        "--source", run, "--model-name", f"{model_name}-b", "--experiment", model_name,
        "--tracking-uri", mlflow_url,
    ).json  # fmt: skip
    assert other["outcome"] == "mirrored"
    assert other["model_uri"] == f"models:/{model_name}-b/1"


def test_a_model_whose_name_and_run_hold_quotes(
    aml_mirror: Call, mlflow_url: str, model_name: str, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / "it's a run")
    given = ("--source", run, "--model-name", f"{model_name}'s", "--tracking-uri", mlflow_url)
    assert aml_mirror(*given).json["outcome"] == "mirrored"
    assert aml_mirror(*given).json["outcome"] == "already-mirrored"


def test_awkward_file_names(
    aml_mirror: Call, mirror: Call, client: MlflowClient, model_name: str, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / "run-8")
    for name in ("a b.json", "100%.json", "x#y.json", "ünïcode.json", "q?.json", "new\nline.json"):
        (run / "checkpoint-20" / name).write_text("{}")
    receipt = mirror(run).json
    assert receipt["files"] == 8
    held = {item.path for item in client.list_artifacts(receipt["mlflow_run_id"], "model")}
    assert {
        "model/a b.json",
        "model/100_.json",
        "model/x_y.json",
        "model/ünïcode.json",
        "model/q_.json",
    } <= held
    assert len(held) == 8


def test_metrics_that_are_hard_to_name(
    aml_mirror: Call, mirror: Call, client: MlflowClient, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / "run-9", points=1)
    tags = [
        "Reward / Total reward (mean)",
        "/abs/x",
        "loss",
        "loss/a",
        "Loss",
        "a=b",
        "a,b",
        "récompense",
        "x" * 300,
    ]
    rows = [(tag, step, float(index * 100 + step)) for index, tag in enumerate(tags) for step in (1, 2, 2, 3)]
    rows += [("odd", 1, float("nan")), ("odd", 2, float("inf")), ("odd", 3, float("-inf"))]
    write_events(next((run / "runs").rglob("events*")), rows)
    receipt = mirror(run).json
    assert receipt["series"] == len(tags) + 1
    assert receipt["points"] == len(rows)
    names = client.get_run(receipt["mlflow_run_id"]).data.metrics
    assert len(names) == len(tags) + 1
    held = {name: points_of(client, receipt["mlflow_run_id"], name) for name in names}
    assert sum(map(len, held.values())) == len(rows)
    firsts = sorted(min(value for _, value, _ in found) for name, found in held.items() if name != "odd")
    assert firsts == [index * 100 + 1.0 for index in range(len(tags))]


def test_secrets_in_configuration_stay_here(
    aml_mirror: Call, mirror: Call, client: MlflowClient, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / "run-10")
    (run / "checkpoint-20" / "config.json").write_text(
        json.dumps({"model_type": "policy", "wandb": {"api_key": "planted-1"}, "hub_token": "planted-2"})
    )
    done = mirror(
        run,
        DATA_CONFIG="https://acct.blob.example/c?sv=1&sig=planted-3",
        BATCH_SIZE="8",
        HF_TOKEN="planted-4",
    )
    found = client.get_run(done.json["mlflow_run_id"])
    assert found.data.params["config.wandb.api_key"] == found.data.params["config.hub_token"] == "***"
    assert found.data.params["BATCH_SIZE"] == "8"
    assert found.data.params["DATA_CONFIG"].endswith("sig=***")
    assert "planted" not in json.dumps([found.data.params, found.data.tags]) + done.out + done.err


def test_a_run_that_may_only_be_read(run: Path, mirror: Call, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for path in [run, *run.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    assert mirror(run).json["outcome"] == "mirrored"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_replay_tags(run: Path, mirror: Call, client: MlflowClient) -> None:
    receipt = mirror(run, REPLAY_RUN_ID="train-42", RUN_ID="train-42-replay", TRAINING_FRAMEWORK="gr00t").json
    assert receipt["run_id"] == "train-42"
    tags = client.get_run(receipt["mlflow_run_id"]).data.tags
    assert tags["osmo.run_id"] == "train-42"
    assert (tags["osmo.replay"], tags["osmo.replay_source"]) == ("true", "train-42")
    assert (tags["framework"], tags["source"]) == ("gr00t", "osmo-replay")


def test_local_database(run: Path, aml_mirror: Call, database: str, model_name: str) -> None:
    given = ("--source", run, "--model-name", model_name, "--tracking-uri", database)
    receipt = aml_mirror(*given).json
    assert receipt["outcome"] == "mirrored"
    client = MlflowClient(database, database)
    held = client.get_run(receipt["mlflow_run_id"])
    # Next to the database, not in the program's working directory.
    assert held.info.artifact_uri.startswith(str(Path(database.removeprefix("sqlite:///")).parent))
    assert (Path(held.info.artifact_uri) / "model" / "config.json").is_file()
    assert aml_mirror(*given).json["outcome"] == "already-mirrored"


def test_a_version_that_was_deleted_is_made_again(
    run: Path, mirror: Call, client: MlflowClient, model_name: str
) -> None:
    first = mirror(run).json
    client.delete_model_version(model_name, "1")
    again = mirror(run).json
    assert (again["outcome"], again["model_version"]) == ("mirrored", "2")
    # The run and its files still exist, so nothing is sent a second time.
    assert again["mlflow_run_id"] == first["mlflow_run_id"]
    assert again["bytes_sent"] == 0
    assert mirror(run).json["outcome"] == "already-mirrored"
