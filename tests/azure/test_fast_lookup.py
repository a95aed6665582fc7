"""An already mirrored run is recognised before the clients are loaded, or else by the clients."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from azure_emulator.client import Azure
from builders.runs import huggingface_run
from mirroring import ASIDE, Mirroring

CLIENTS = ("azure.ai.ml", "azure.storage", "azureml", "mlflow")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return huggingface_run(tmp_path_factory.mktemp("run") / "look")


@pytest.fixture
def mirrored(azure: Azure, run: Path, tmp_path: Path) -> Mirroring:
    """A scope in which the run is mirrored."""
    mirroring = Mirroring(azure, tmp_path)
    mirroring.mirror(run, "m")
    azure.forget_requests()
    return mirroring


def test_it_is_recognised_without_loading_a_client(mirrored: Mirroring, run: Path) -> None:
    done = mirrored.mirror(run, "m", fork=False, PYTHONPROFILEIMPORTTIME="1")
    assert done.json["outcome"] == "already-mirrored"
    loaded = [line.rpartition("|")[2].strip() for line in done.err.splitlines() if "import time:" in line]
    assert "azure.identity" in loaded
    assert [name for name in loaded if name.startswith(CLIENTS)] == []
    sent = [item["path"] for item in mirrored.azure.requests() if not re.search(ASIDE, item["path"])]
    assert len(sent) == 4, sent


# Each of the four requests fails, or the token is refused: the clients send the same requests and are
# believed.
@pytest.mark.parametrize(
    ("match", "fault"),
    [
        (r"workspaces/[^/]+\?", {"action": "status", "status": 503}),
        ("get-by-name", {"action": "cut", "when": "after"}),
        ("runs/search", {"action": "drop"}),
        ("models/m/versions/1", {"action": "status", "status": 401}),
    ],
)
def test_what_goes_wrong_is_left_to_the_clients(
    mirrored: Mirroring, run: Path, match: str, fault: dict[str, object]
) -> None:
    mirrored.azure.fault(match=match, **fault)  # type: ignore[arg-type]
    done = mirrored.mirror(run, "m")
    assert done.json["outcome"] == "already-mirrored"
    assert [item["acted"] for item in mirrored.azure.faults()] == [1]
    assert len(mirrored.azure.models()["m"]) == 1


def test_a_version_that_is_not_this_runs_is_not_believed(mirrored: Mirroring, run: Path) -> None:
    azure = mirrored.azure
    (experiment,) = [item for item in azure.mlflow.search_experiments() if item.name == "m"]
    (found,) = azure.mlflow.search_runs([experiment.experiment_id])
    azure.mlflow.set_tag(found.info.run_id, "identity", "of-another-checkpoint")
    done = mirrored.mirror(run, "m")
    # The version itself names its run, and is found without it.
    assert done.json["outcome"] == "already-mirrored"
    assert done.json["model_version"] == "1"
    assert azure.requests("/models/m/versions?")
