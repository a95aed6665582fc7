"""Files and runs of a version that somebody deletes or changes: detected, and repaired with a command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from aml_mirror.core.manifest import Manifest, ManifestEntry
from aml_mirror.registries import keys
from aml_mirror.registries.mlflow.run_lease import Keeper
from aml_mirror.registries.mlflow.version_presence import FILES, FILES_BELOW, MOST_FOLDERS, file_tags
from builders.forks import MLFLOW, forks
from builders.program import Call, clean_environment
from builders.runs import huggingface_run, write_weights


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "runs" / "run-l", points=2)


@pytest.fixture
def target(database: str) -> tuple[str, ...]:
    return ("--model-name", "m", "--tracking-uri", database)


@pytest.fixture
def mirrored(run: Path, target: tuple[str, ...], aml_mirror: Call, database: str) -> Path:
    """The folder of the mirrored version's artifacts."""
    run_id = aml_mirror("mirror", run, "--run-id", "run-l", *target, "--json").json["mlflow_run_id"]
    return Path(MlflowClient(database, database).get_run(run_id).info.artifact_uri)


def verify(aml_mirror: Call, database: str, code: int = 0) -> dict[str, object]:
    found = json.loads(aml_mirror("verify", "m:1", "--tracking-uri", database, "--json", code=code).out)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("lost", ["one file", "half a file", "all artifacts"])
def test_the_next_mirror_brings_lost_files_back(
    mirrored: Path, run: Path, target: tuple[str, ...], aml_mirror: Call, database: str, lost: str
) -> None:
    weights = mirrored / "model" / "model.safetensors"
    whole = weights.read_bytes()
    if lost == "one file":
        weights.unlink()
    elif lost == "half a file":
        weights.write_bytes(whole[: len(whole) // 2])
    else:
        shutil.rmtree(mirrored)
    aml_mirror("verify", "m:1", "--tracking-uri", database, code=65)
    status = aml_mirror("status", "--run-id", "run-l", *target, "--json", code=65).json
    assert [item["version"] for item in status["incomplete"]] == ["1"] and not status["versions"]
    again = aml_mirror("mirror", run, "--run-id", "run-l", *target, "--json").json
    assert (again["outcome"], again["model_version"]) == ("mirrored", "1")
    assert weights.read_bytes() == whole
    assert verify(aml_mirror, database)["outcome"] == "verified"
    again = aml_mirror("mirror", run, "--run-id", "run-l", *target, "--json").json
    assert again["outcome"] == "already-mirrored"


@pytest.mark.parametrize("lost", ["one file", "half a file", "the folder"])
def test_the_next_mirror_brings_back_what_was_in_a_folder(
    run: Path, target: tuple[str, ...], aml_mirror: Call, database: str, lost: str
) -> None:
    below = run / "checkpoint-20" / "adapter" / "deep"
    below.mkdir(parents=True)
    write_weights(below / "adapter_model.safetensors", seed=5)
    words = ("mirror", run, "--run-id", "run-l", "--checkpoint", "checkpoint-20", *target, "--json")
    run_id = aml_mirror(*words).json["mlflow_run_id"]
    assert aml_mirror(*words).json["outcome"] == "already-mirrored"
    mirrored = Path(MlflowClient(database, database).get_run(run_id).info.artifact_uri)
    weights = mirrored / "model" / "adapter" / "deep" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    if lost == "one file":
        weights.unlink()
        (weights.parent / "other").write_text("so that the folder stays")
    elif lost == "half a file":
        weights.write_bytes(whole[: len(whole) // 2])
    else:
        shutil.rmtree(weights.parent)
    assert aml_mirror(*words).json["outcome"] == "mirrored"
    assert weights.read_bytes() == whole
    assert aml_mirror(*words).json["outcome"] == "already-mirrored"


@given(
    st.lists(
        st.tuples(
            st.lists(st.text("abü/", min_size=1, max_size=40), min_size=1, max_size=3), st.integers(0, 9)
        ),
        max_size=80,
    )
)
def test_the_tags_that_name_files_fit_and_say_nothing_wrong(rows: list[tuple[list[str], int]]) -> None:
    sizes = {"/".join(part.replace("/", "x") for part in parts): size for parts, size in rows}
    # A folder is not a file.
    sizes = {
        path: size for path, size in sizes.items() if not any(one.startswith(f"{path}/") for one in sizes)
    }
    items = tuple(ManifestEntry(path, path, size, "0" * 64) for path, size in sizes.items())
    tags = file_tags(Manifest(items))
    assert all(len(text) <= 4096 for text in tags.values())
    below = json.loads(tags.get(FILES_BELOW, "{}"))
    assert len(below) <= MOST_FOLDERS
    for folder, files in below.items():
        assert files and all(sizes[f"{folder}/{name}"] == size for name, size in files.items())
    for name, size in json.loads(tags[FILES]).items():
        assert sizes.get(name, -1) == size


@pytest.mark.parametrize("lost", ["the run", "all artifacts"])
def test_a_backfill_notices(
    mirrored: Path, run: Path, target: tuple[str, ...], aml_mirror: Call, database: str, lost: str
) -> None:
    assert '"outcome":"already-mirrored"' in aml_mirror("backfill", run.parent, *target).out
    if lost == "the run":
        MlflowClient(database, database).delete_run(mirrored.parent.name)
    else:
        shutil.rmtree(mirrored.parent)
    aml_mirror("backfill", run.parent, *target)
    assert verify(aml_mirror, database)["outcome"] == "verified"
    assert '"outcome":"already-mirrored"' in aml_mirror("backfill", run.parent, *target).out


def test_repair(mirrored: Path, run: Path, target: tuple[str, ...], aml_mirror: Call, database: str) -> None:
    weights = mirrored / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(bytes([*whole[:-1], whole[-1] ^ 1]))
    (mirrored / "model" / "left").mkdir()
    (mirrored / "model" / "left" / "notes.txt").write_text("not mirrored")
    found = verify(aml_mirror, database, code=65)
    assert [item["path"] for item in found["wrong"]] == ["model.safetensors"]  # type: ignore[attr-defined]
    assert found["extra"] == ["left/notes.txt"]
    repair = ("repair", "m:1", "--tracking-uri", database, "--json")
    done = json.loads(aml_mirror(*repair, "--source", run).out)
    assert (done["outcome"], done["written"]) == ("repaired", ["model.safetensors"])
    assert weights.read_bytes() == whole
    assert verify(aml_mirror, database)["outcome"] == "verified"
    # Its lease is released, so nobody must wait for it.
    (version,) = MlflowClient(database, database).search_model_versions("name = 'm'")
    assert MlflowClient(database, database).get_run(version.run_id).data.tags[keys.LEASE] == ""


def test_repair_of_a_lost_manifest(mirrored: Path, run: Path, aml_mirror: Call, database: str) -> None:
    (mirrored / "manifest.json").write_text("{}")
    aml_mirror("verify", "m:1", "--tracking-uri", database, code=65)
    aml_mirror("repair", "m:1", "--tracking-uri", database, "--source", run)
    assert verify(aml_mirror, database)["outcome"] == "verified"


def test_repair_from_a_run_that_changed(mirrored: Path, run: Path, aml_mirror: Call, database: str) -> None:
    weights = mirrored / "model" / "model.safetensors"
    whole = bytearray(weights.read_bytes())
    whole[-1] ^= 1
    weights.write_bytes(whole)
    source = run / "checkpoint-20" / "model.safetensors"
    other = bytearray(source.read_bytes())
    other[-1] ^= 2
    source.write_bytes(other)
    done = aml_mirror("repair", "m:1", "--tracking-uri", database, "--source", run, code=65)
    assert "no longer has the bytes" in done.err and "model.safetensors" in done.err
    assert weights.read_bytes() == whole


def test_repair_waits_for_whoever_writes_the_run(
    mirrored: Path, run: Path, database: str, tmp_path: Path
) -> None:
    client, run_id = MlflowClient(database, database), mirrored.parent.name
    weights = mirrored / "model" / "model.safetensors"
    weights.unlink()
    # A running mirror: this process.
    client.set_tag(run_id, keys.LEASE, Keeper().note())
    words = ["repair", "m:1", "--tracking-uri", database, "--source", str(run)]
    repair = forks(MLFLOW, clean_environment).start(words, tmp_path, clean_environment())
    while line := repair.stderr.readline():
        if "another mirror is working on this run" in line:
            break
    assert line and not weights.exists()
    client.set_tag(run_id, keys.LEASE, "")
    repair.communicate(timeout=600)
    assert repair.returncode == 0
    assert weights.exists()


def test_parameters_that_were_cut_are_named(run: Path, target: tuple[str, ...], aml_mirror: Call) -> None:
    config = {"model_type": "policy", "long": "x" * 20_000, "short": "y" * 6000, "rows": [[1] * 9000]}
    (run / "checkpoint-20" / "config.json").write_text(json.dumps(config))
    left = aml_mirror("mirror", run, *target, "--json").json["left_out"]
    cut = {item["param"].rpartition(".")[2]: item["reason"] for item in left if "param" in item}
    assert cut.keys() == {"long", "0"}
    assert cut["long"] == "cut from 20000 to 6000 characters"
    assert cut["0"] == "cut to 6000 characters"
