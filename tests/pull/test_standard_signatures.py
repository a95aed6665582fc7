"""The standard verifiers of other projects on pulled files: OpenSSF model signatures, CycloneDX."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from builders.bill_of_materials import problem_of
from builders.program import Call
from builders.runs import huggingface_run


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ECDSA keys and an Ed25519 key, each with its public key."""
    folder = tmp_path_factory.mktemp("keys")
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    for name, kind in (("ours", curve), ("other", curve), ("edwards", ("-algorithm", "ed25519"))):
        key, public = folder / f"{name}.pem", folder / f"{name}.pub"
        subprocess.run(["openssl", "genpkey", *kind, "-out", key], check=True, capture_output=True)
        subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    return folder


def accepts(target: Path, public: Path) -> bool:
    """The output of `model_signing verify key` for a pulled folder."""
    command = [sys.executable, "-m", "model_signing", "verify", "key", target / "model"]
    command += ["--signature", target / "mirror" / "model.sig", "--public_key", public]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 or "Verification failed" in done.stderr + done.stdout, done.stderr
    return done.returncode == 0


def test_the_stock_verifiers_accept_what_was_pulled(
    aml_mirror: Call, database: str, keys: Path, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / "run-1", steps=(10,), points=1)
    (run / "checkpoint-10" / "assets").mkdir()
    (run / "checkpoint-10" / "assets" / "norm.json").write_text("{}")
    target = tmp_path / "policy"
    place = ("--tracking-uri", database)
    aml_mirror("mirror", run, "--model-name", "act", *place, "--sign-key", keys / "ours.pem")
    aml_mirror("pull", "act:1", target, *place, "--public-key", keys / "ours.pub")
    assert accepts(target, keys / "ours.pub")
    assert not accepts(target, keys / "other.pub")
    bill = (target / "mirror" / "model.cdx.json").read_text()
    assert problem_of(bill) == ""
    assert json.loads(bill)["specVersion"] == "1.6"
    component = json.loads(bill)["metadata"]["component"]
    assert component["type"] == "machine-learning-model"
    digests = {file["name"]: file["hashes"][0]["content"] for file in component["components"]}
    manifest = json.loads((target / "mirror" / "manifest.json").read_text())
    assert digests == {file["path"]: file["sha256"] for file in manifest["files"]}
    config = target / "model" / "config.json"
    text = config.read_text()
    for change in (lambda: config.write_text(text + " "), config.unlink):
        change()
        assert not accepts(target, keys / "ours.pub")
    config.write_text(text)
    (target / "model" / "extra").write_text("")
    assert not accepts(target, keys / "ours.pub")


def test_an_ed25519_key_signs_the_statement_alone(
    aml_mirror: Call, database: str, keys: Path, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / "run-1", steps=(10,), points=1)
    place = ("--tracking-uri", database)
    aml_mirror("mirror", run, "--model-name", "act", *place, "--sign-key", keys / "edwards.pem")
    aml_mirror("pull", "act:1", tmp_path / "policy", *place, "--public-key", keys / "edwards.pub")
    held = {path.name for path in (tmp_path / "policy" / "mirror").iterdir()}
    assert "provenance.dsse.json" in held and "model.sig" not in held
