"""What promote, rollback and demote ask for besides the policy's arithmetic, in a local MLflow database."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from builders.gated import Gated, key_pair
from builders.program import Call

DAY = 86_400


@pytest.fixture
def gated(aml_mirror: Call, database: str, tmp_path: Path) -> Gated:
    return Gated(
        lambda *given, **more: aml_mirror(*given, "--tracking-uri", database, **more), tmp_path, "act"
    )


def weights_of(database: str, number: str) -> Path:
    """The file with the weights of a version, in the artifact store."""
    client = MlflowClient(database, database)
    run_id = client.get_model_version("act", number).run_id
    assert run_id is not None
    return Path(client.get_run(run_id).info.artifact_uri) / "model" / "model.safetensors"


def test_evidence_that_is_too_old(gated: Gated) -> None:
    gated.mirror(20)
    old = gated.result(95, 100)
    os.utime(old, (time.time() - 40 * DAY,) * 2)
    gated.call("evaluate", "act:1", "--result", old)
    policy = gated.policy("schema: aml-mirror/gate/v1\nevidence: {newer_than: 30d}\n")
    refused = gated.promote("1", "--policy", policy, code=65).json
    assert refused["outcome"] == "insufficient"
    assert "0 in 0 evaluation(s), and 1 that are older than 30d" in refused["error"]
    # Its age counts from evaluated_at, where the result has one.
    document = {"episodes": [{"success": True}], "evaluated_at": "2020-01-01T00:00:00Z"}
    (gated.folder / "dated.json").write_text(json.dumps(document))
    gated.call("evaluate", "act:1", "--result", gated.folder / "dated.json")
    assert "and 2 that are older" in gated.promote("1", "--policy", policy, code=65).json["error"]
    gated.evaluate("1", 94, 100)
    assert len(gated.promote("1", "--policy", policy).json["evaluations"]) == 1


def test_without_a_policy_the_threshold_of_the_version_counts(gated: Gated) -> None:
    gated.mirror(20, "--success-threshold", "0.9")
    gated.evaluate("1", 95, 100)
    refused = gated.promote("1", code=65).json
    assert refused["outcome"] == "insufficient"
    assert "lower bound at least 90.0 % required, 95 of 100" in refused["error"]
    # With a policy, only the policy counts.
    assert gated.promote("1", "--policy", gated.policy()).json["outcome"] == "pass"


def test_a_rollback_reads_the_version_before_again(gated: Gated, database: str) -> None:
    for step in (20, 30):
        gated.evaluate(gated.mirror(step), 95, 100)
    gated.promote("1")
    gated.promote("2")
    dry = gated.call("rollback", "act@production", "--dry-run", "--json").json
    assert (dry["model_version"], dry["previous_version"], dry["changed"]) == ("1", "2", False)
    assert gated.holder() == "2"
    file = weights_of(database, "1")
    whole = file.read_bytes()
    file.write_bytes(bytes([*whole[:-1], whole[-1] ^ 1]))
    refused = gated.call("rollback", "act@production", code=65)
    assert "version 1 of act is not what was mirrored: model.safetensors" in refused.err
    assert gated.holder() == "2"
    file.write_bytes(whole)
    # With a key, the version must be signed by it.
    _, public = key_pair(gated.folder, "somebody")
    assert "is not signed" in gated.call("rollback", "act@production", "--public-key", public, code=65).err
    gated.call("rollback", "act@production")
    dry = gated.call("demote", "act@production", "--dry-run", "--json").json
    assert (dry["outcome"], dry["previous_version"], dry["changed"]) == ("demoted", "1", False)
    assert gated.holder() == "1"


def test_a_statement_that_was_made_elsewhere(gated: Gated, database: str) -> None:
    """An evaluator without access to the registry writes and signs it."""
    private, public = key_pair(gated.folder, "evaluator")
    gated.mirror(20)
    gated.evaluate("1", 95, 100, "--sign-key", private)
    (statement,) = (weights_of(database, "1").parents[1] / "evaluations").iterdir()
    # The same bytes in another model.
    gated.call("mirror", gated.folder / "run-20", "--model-name", "other")
    there = gated.call("evaluate", "other:1", "--result", statement, "--json").json
    assert (there["outcome"], there["successes"], there["episodes"]) == ("attached", 95, 100)
    policy = gated.policy("schema: aml-mirror/gate/v1\nevidence: {signed: true}\n")
    promote: tuple[Any, ...] = ("promote", "other:1", "--to", "production", "--policy", policy)
    gated.call(*promote, "--public-key", public)
    _, foreign = key_pair(gated.folder, "foreign")
    assert "is not by any of the given keys" in gated.call(*promote, "--public-key", foreign, code=65).err
    # One changed letter of what was signed.
    envelope = json.loads(statement.read_text())
    envelope["payload"] = "e30="
    (gated.folder / "changed.json").write_text(json.dumps(envelope))
    gated.call("evaluate", "other:1", "--result", gated.folder / "changed.json", code=65)
