"""Versions pulled from the emulated Azure ML: pulls that are killed or disturbed, and versions that are
tampered with, signed, or made by others.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from safetensors.numpy import save_file

from aml_mirror.pull.pulled_folder import PulledFolder
from aml_mirror.storage.azure_login import credential as login
from azure_emulator.client import Azure
from builders import matrix
from builders.runs import huggingface_run
from mirroring import ASIDE, Mirroring

WHOLE_FAULTS = os.environ.get("FAULTS") == "all"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return huggingface_run(tmp_path / "run-7", steps=(20,), points=2, size=1100)


def contents(target: Path) -> dict[str, bytes]:
    root = target / "model"
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def expected(run: Path) -> dict[str, bytes]:
    names = ("model.safetensors", "config.json")
    return {name: (run / "checkpoint-20" / name).read_bytes() for name in names}


def brought(target: Path) -> int:
    """How many bytes of the version's files are next to DIR."""
    folder = PulledFolder(str(target)).new / "model"
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def asked(azure: Azure) -> list[dict[str, Any]]:
    return [one for one in azure.requests() if not re.search(ASIDE, str(one))]


def blob(azure: Azure, name: str) -> Any:
    return azure.blob_service().get_blob_client(azure.container, name)


def prefix_of(azure: Azure, number: str = "1") -> str:
    return str(azure.models()["reach"][number]["modelUri"]).partition("/paths/")[2]


def test_a_version_is_pulled_once(mirroring: Mirroring, run: Path, tmp_path: Path) -> None:
    azure = mirroring.azure
    receipt = mirroring.mirror(run, "reach").json
    target = tmp_path / "policies" / "reach"
    azure.forget_requests()
    done = mirroring("pull", "reach:1", target).json
    assert (done["outcome"], done["verified"], done["files"]) == ("pulled", True, 2)
    assert done["manifest_sha256"] == receipt["manifest_sha256"]
    assert done["bytes_read"] == done["bytes"] == sum(map(len, expected(run).values()))
    assert done["folder"] == str(target / "model")
    assert contents(target) == expected(run)
    held = {path.name for path in (target / "mirror").iterdir()}
    assert {"manifest.json", "provenance.intoto.json", "MODEL_CARD.md", "pulled.json"} <= held
    azure.forget_requests()
    # The same pull again only asks which version it is, and reads no file.
    again = mirroring("pull", "reach:1", target).json
    assert (again["outcome"], again["bytes_read"]) == ("already-pulled", 0)
    assert [one["host"] for one in asked(azure)] == ["management.azure.test"]
    assert mirroring("verify", target).out.startswith("verified: ")


def test_what_was_changed_is_never_pulled(mirroring: Mirroring, run: Path, tmp_path: Path) -> None:
    azure, target = mirroring.azure, tmp_path / "policy"
    mirroring.mirror(run, "reach")
    prefix = prefix_of(azure)
    weights = blob(azure, prefix + "model.safetensors")
    whole = weights.download_blob().readall()
    for at in (0, len(whole) // 2, len(whole) - 1):
        weights.upload_blob(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], overwrite=True)
        done = mirroring("pull", "reach:1", target, code=65)
        assert "model.safetensors: its SHA-256 is" in done.err
        assert not target.exists()
    weights.upload_blob(whole[:-1], overwrite=True)
    assert "bytes instead of" in mirroring("pull", "reach:1", target, code=65).err
    weights.delete_blob()
    assert "model.safetensors is missing" in mirroring("pull", "reach:1", target, code=65).err
    weights.upload_blob(whole)
    blob(azure, prefix + "extra.bin").upload_blob(b"1")
    assert "extra.bin does not belong to it" in mirroring("pull", "reach:1", target, code=65).err
    blob(azure, prefix + "extra.bin").delete_blob()
    own = azure.blobs(prefix.replace("/model/", "/mirror/"))
    # It does not read the copy that the run shows.
    (name,) = [name for name in own if name.endswith("/manifest.json") and "/artifacts/" not in name]
    manifest = blob(azure, name)
    text = manifest.download_blob().readall()
    manifest.upload_blob(text.replace(b'"sha256": "', b'"sha256": "0', 1), overwrite=True)
    assert "was changed" in mirroring("pull", "reach:1", target, code=65).err
    manifest.upload_blob(text, overwrite=True)
    (name,) = [name for name in own if name.endswith("/MODEL_CARD.md") and "/artifacts/" not in name]
    card = blob(azure, name)
    text = card.download_blob().readall()
    card.upload_blob(text[:-7], overwrite=True)
    assert "MODEL_CARD.md: its SHA-256 is" in mirroring("pull", "reach:1", target, code=65).err
    card.upload_blob(text, overwrite=True)
    assert not target.exists()
    assert mirroring("pull", "reach:1", target).json["outcome"] == "pulled"


def test_a_signature_is_required(mirroring: Mirroring, run: Path, tmp_path: Path) -> None:
    keys = {}
    for name in ("ours", "other"):
        keys[name] = tmp_path / f"{name}.pem"
        make = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", keys[name]]
        subprocess.run(make, check=True, capture_output=True)
        public = ["openssl", "pkey", "-in", keys[name], "-pubout", "-out", tmp_path / f"{name}.pub"]
        subprocess.run(public, check=True, capture_output=True)
    mirroring.mirror(run, "signed", "--sign-key", str(keys["ours"]))
    mirroring.mirror(run, "plain")
    target, ours = tmp_path / "policy", tmp_path / "ours.pub"
    assert "is not signed" in mirroring("pull", "plain:1", target, "--public-key", ours, code=65).err
    other = mirroring("pull", "signed:1", target, "--public-key", tmp_path / "other.pub", code=65)
    assert "is not by the key" in other.err
    assert not target.exists()
    assert mirroring("pull", "signed:1", target, "--public-key", ours).json["signed_by"]
    # Without a network, and without the registry.
    for key, code in ((ours, 0), (tmp_path / "other.pub", 65)):
        mirroring("verify", target, "--public-key", key, code=code, AZURE_SUBSCRIPTION_ID="")


def test_what_may_run_code_is_refused(mirroring: Mirroring, run: Path, tmp_path: Path) -> None:
    (run / "checkpoint-20" / "modeling.py").write_text("import os\n")
    assert mirroring.mirror(run, "reach").json["safety"] == "code"
    target = tmp_path / "policy"
    azure = mirroring.azure
    azure.forget_requests()
    done = mirroring("pull", "reach:1", target, "--refuse-pickle", code=65)
    assert "loading it runs code" in done.err and not target.exists()
    assert not [one for one in asked(azure) if "blob" in one["host"]]
    assert mirroring("pull", "reach:1", target).json["safety"] == "code"


def test_versions_that_others_made(here: Azure, mirroring: Mirroring, tmp_path: Path) -> None:
    azure = mirroring.azure
    for name, data in (("policy.pt", b"weights"), ("sub/config.yaml", b"a: 1")):
        blob(azure, f"models/theirs/{name}").upload_blob(data)
    manager = "https://management.azure.test"
    token = login().get_token(f"{manager}/.default").token
    store = f"azureml://subscriptions/{azure.facts['subscription']}/resourcegroups/"
    store += f"{azure.facts['resource_group']}/workspaces/{azure.facts['workspace']}/datastores/"
    body = {
        "properties": {
            "modelType": "custom_model",
            "modelUri": f"{store}workspaceblobstore/paths/models/theirs/",
            "tags": {"framework": "skrl"},
        }
    }

    url = f"{manager}{azure.facts['workspace_id']}/models/theirs/versions/1?api-version=2023-08-01-preview"
    answer = requests.put(url, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=600)
    answer.raise_for_status()
    done = mirroring("pull", "theirs:1", tmp_path / "policy").json
    assert (done["outcome"], done["verified"], done["framework"]) == ("pulled", False, "skrl")
    assert contents(tmp_path / "policy") == {"policy.pt": b"weights", "sub/config.yaml": b"a: 1"}
    done = mirroring("pull", "theirs:1", tmp_path / "other", "--refuse-pickle", code=65)
    assert "version 1 of theirs is refused" in done.err


def test_equal_blocks_come_from_an_older_folder(mirroring: Mirroring, tmp_path: Path) -> None:
    run = tmp_path / "run-9"
    huggingface_run(run, steps=(10, 20), points=1)
    # A backbone that training froze, and a head that it changed.
    frozen = random.Random(0).randbytes(24 << 20)
    for step in (10, 20):
        weights = run / f"checkpoint-{step}" / "model.safetensors"
        head = random.Random(step).randbytes(8 << 20)
        tensors = {"backbone": np.frombuffer(frozen, np.uint8), "head": np.frombuffer(head, np.uint8)}
        save_file(tensors, weights)
    mirroring.mirror(run, "reach", "--checkpoint", "10")
    mirroring.mirror(run, "reach", "--checkpoint", "20")
    older, newer = tmp_path / "older", tmp_path / "newer"
    whole = mirroring("pull", "reach:1", older).json
    done = mirroring("pull", "reach:2", newer, "--reuse", older).json
    assert done["bytes_read"] + done["bytes_reused"] == done["bytes"]
    assert done["bytes_reused"] >= 16 << 20
    assert done["bytes_read"] <= 0.6 * whole["bytes"]
    assert (newer / "model" / "model.safetensors").read_bytes() == (
        run / "checkpoint-20" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("part", matrix.PARTS)
def test_killed_at_any_request(
    mirroring: Mirroring, run: Path, tmp_path: Path, request: pytest.FixtureRequest, part: int
) -> None:
    azure = mirroring.azure
    mirroring.mirror(run, "reach")
    azure.forget_requests()
    mirroring("pull", "reach:1", tmp_path / "count")
    total = len(azure.requests())
    assert total >= 8
    for at in matrix.sample(total, 4, part):
        target = tmp_path / f"killed-{at.number}-{at.moment}"
        azure.forget_requests()
        azure.fault("kill", nth=at.number, when=at.moment)
        first = mirroring("pull", "reach:1", target, code=None)
        azure.clear_faults()
        if first.code != 0:
            assert first.code == -signal.SIGKILL, first.err
            assert not target.exists()
        there = brought(target)
        done = mirroring("pull", "reach:1", target).json
        assert done["bytes_kept"] == there
        assert contents(target) == expected(run)
        row = f"request {at.number:02}"
        matrix.note(request, "pull killed, from Azure ML", row, at.moment, done["outcome"])
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(f".{target.name}")] == []


FAULTS = {
    "429": {"action": "status", "status": 429, "times": 2, "headers": {"Retry-After": "1"}},
    "500": {"action": "status", "status": 500, "times": 4},
    "503": {"action": "status", "status": 503, "times": 4},
    "dropped": {"action": "drop", "times": 2},
    "answer lost": {"action": "drop", "when": "after"},
    "answer cut": {"action": "cut", "when": "after"},
    "length +7": {"action": "length", "when": "after", "delta": 7},
    "length -7": {"action": "length", "when": "after", "delta": -7},
    "token expires": {"action": "expire-tokens"},
    "403": {"action": "status", "status": 403, "times": 0},
}
STAGES = {
    "version": r"/models/reach/versions/1",
    "datastore": r"/datastores/",
    "listing": r"comp=list",
    "manifest": r"manifest\.json",
    "bytes": r"model\.safetensors",
    "own file": r"MODEL_CARD",
}
CELLS = [(stage, fault) for stage in STAGES for fault in FAULTS]
if not WHOLE_FAULTS:
    CELLS = [cell for number, cell in enumerate(CELLS) if number % 7 == 0]


def test_disturbed_at_every_stage(
    mirroring: Mirroring, run: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    azure = mirroring.azure
    mirroring.mirror(run, "reach")
    for number, (stage, fault) in enumerate(CELLS):
        target = tmp_path / f"dir-{number}"
        fields = dict(FAULTS[fault])
        azure.fault(str(fields.pop("action")), match=STAGES[stage], **fields)
        first = mirroring("pull", "reach:1", target, "--retry-for", "30s", code=None)
        azure.clear_faults()
        cell = (stage, fault, first.code, first.err)
        if first.code:
            assert first.code in (75, 77), cell
            assert not target.exists(), cell
            assert len(first.err.strip().splitlines()) <= 3 and "Traceback" not in first.err, cell
            assert json.loads(first.out.splitlines()[-1])["exit_code"] == first.code
            mirroring("pull", "reach:1", target)
        assert contents(target) == expected(run), cell
        matrix.note(request, "pull disturbed, from Azure ML", stage, fault, str(first.code))
