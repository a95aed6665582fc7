"""The image as OSMO runs it, with the emulated Azure and an MLflow server in other containers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from azure_emulator.client import Azure
from builders.containers import INPUT, Image, in_azure
from builders.runs import huggingface_run
from mirroring import assert_exactly_once, complete_versions, runs_of

POINTS = 30
# Four blocks, one at a time, so that the test can stop the upload in the middle.
BLOCKWISE = ("--block-size", "1MiB", "--concurrency", "1")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-7", points=POINTS, size=1024)


def mirror(source: str = INPUT, *more: str) -> tuple[str, ...]:
    return ("mirror", "--source", source, "--run-id", "run-7", "--model-name", "reach", *more)


def test_a_mounted_run_becomes_one_version(azure: Azure, image: Image, run: Path) -> None:
    env, mounts = in_azure(azure.env())
    mounts.append(image.give_to_osmo(run))
    # As the image's own user, and then as a user that the image does not know.
    first = image.run(*mirror(), env=env, mounts=mounts).json
    again = image.run(
        *mirror(), env=env, mounts=mounts, options=("--network", "host", "--user", "4711:4712")
    ).json
    assert (first["outcome"], again["outcome"]) == ("mirrored", "already-mirrored")
    assert again["bytes_sent"] == 0
    assert again["model_version"] == first["model_version"]
    assert_exactly_once(azure, "reach", run, POINTS)


def test_a_run_in_blob_storage_is_copied_there(azure: Azure, image: Image, run: Path) -> None:
    source = azure.seed(run, "runs/run-7", account=azure.new_account(), container="runs")
    env, mounts = in_azure(azure.env())
    done = image.run(*mirror(source), env=env, mounts=mounts).json
    assert done["outcome"] == "mirrored"
    assert done["bytes_copied"] > 4 * 1024 * 1024
    assert_exactly_once(azure, "reach", run, POINTS)


def test_a_run_goes_to_an_mlflow_server(
    image: Image, run: Path, stack: dict[str, str], model_name: str
) -> None:
    mount = image.give_to_osmo(run)
    arguments = (
        *("mirror", "--source", INPUT, "--run-id", "run-7"),
        *("--model-name", model_name, "--tracking-uri", stack["mlflow"]),
    )
    outcomes = [image.run(*arguments, mounts=[mount]).json["outcome"] for _ in range(2)]
    assert outcomes == ["mirrored", "already-mirrored"]
    client = MlflowClient(stack["mlflow"], stack["mlflow"])
    (version,) = client.search_model_versions(f"name = '{model_name}'")
    assert version.tags["mirror.state"] == "complete"
    points = client.get_metric_history(str(version.run_id), "train/loss")
    assert sorted(point.step for point in points) == list(range(1, POINTS + 1))


@pytest.mark.parametrize(
    ("signal", "code", "command"),
    [
        # As a user stops it with Docker: the program is the first process.
        ("SIGTERM", 143, None),
        # As OSMO stops it, with no other signal.
        ("SIGKILL", 137, "aml-mirror"),
    ],
)
def test_stopped_in_mid_upload_the_next_goes_on(
    azure: Azure, image: Image, run: Path, signal: str, code: int, command: str | None
) -> None:
    env, mounts = in_azure(azure.env())
    mounts.append(image.give_to_osmo(run))
    azure.fault("stall", match="comp=block&", nth=3, seconds=600)
    name = image.start(*mirror(INPUT, *BLOCKWISE), env=env, mounts=mounts, command=command)
    end = time.monotonic() + 600
    while azure.faults()[0]["seen"] < 3:
        assert time.monotonic() < end, image.call("logs", name)
        time.sleep(0.1)
    image.call("kill", "--signal", signal, name)
    stopped = image.wait(name)
    assert stopped.code == code, stopped
    assert "Traceback" not in stopped.err
    if signal == "SIGTERM":
        assert stopped.json["exit_code"] == 143
    # It was uploading to the staging folder, so nothing was registered and no run was created.
    assert not runs_of(azure, "reach")
    assert not complete_versions(azure, "reach")
    azure.clear_faults()
    done = image.run(*mirror(INPUT, *BLOCKWISE), env=env, mounts=mounts).json
    assert done["outcome"] == "mirrored"
    # The blocks that had arrived are not sent again.
    size = (run / "checkpoint-20" / "model.safetensors").stat().st_size
    assert done["bytes_sent"] < size, done
    assert_exactly_once(azure, "reach", run, POINTS)


def test_doctor_finds_nothing(azure: Azure, image: Image, run: Path) -> None:
    env, mounts = in_azure(azure.env())
    mounts.append(image.give_to_osmo(run))
    done = image.run("doctor", "--source", INPUT, "--model-name", "reach", env=env, mounts=mounts)
    assert "WorkloadIdentityCredential" in done.out + done.err
    assert azure.facts["identities"][0]["client_id"] in done.out + done.err


def test_without_an_identity_it_says_what_the_pod_lacks(azure: Azure, image: Image, run: Path) -> None:
    env, mounts = in_azure(azure.env())
    for name in (
        "AZURE_CLIENT_ID",
        "AZURE_TENANT_ID",
        "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_TOKEN_CREDENTIALS",
    ):
        del env[name]
    env["KUBERNETES_SERVICE_HOST"] = "10.0.0.1"
    mounts = [*mounts[1:], image.give_to_osmo(run)]
    done = image.run(*mirror(), env=env, mounts=mounts, code=78)
    assert "azure.workload.identity/use" in done.json["hint"]
    assert len([line for line in done.err.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in done.err
    assert not azure.models()


def test_without_a_network_it_is_to_be_run_again(azure: Azure, image: Image, run: Path) -> None:
    env, mounts = in_azure(azure.env())
    mounts.append(image.give_to_osmo(run))
    done = image.run(
        *mirror(INPUT, "--retry-for", "1s"), env=env, mounts=mounts, options=("--network", "none"), code=75
    )
    assert done.json["exit_code"] == 75
    assert "Traceback" not in done.err
