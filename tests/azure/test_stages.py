"""Evidence and stages in Azure ML: what is attached, what is refused, which version has a stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aml_mirror.core.settings import Settings
from aml_mirror.registries.azureml.model_service import ModelService
from aml_mirror.registries.registry import open_registry
from azure_emulator.client import Azure
from builders.gated import SIGNED, Gated, key_pair
from mirroring import Mirroring, runs_of


@pytest.fixture
def gated(mirroring: Mirroring, tmp_path: Path) -> Gated:
    return Gated(mirroring, tmp_path)


def tags(azure: Azure, number: str) -> dict[str, str]:
    found: dict[str, str] = azure.models()["act"][number]["tags"]
    return found


def blob(azure: Azure, name: str) -> Any:
    return azure.blob_service().get_blob_client(azure.container, name)


def evaluations(azure: Azure) -> list[str]:
    return sorted(name for name in azure.blobs("aml-mirror/") if "/evaluations/" in name)


def test_an_evaluation_is_attached_once_to_bytes(azure: Azure, gated: Gated) -> None:
    gated.mirror(20)
    done = gated.evaluate("1", 9, 10).json
    assert (done["outcome"], done["successes"], done["episodes"]) == ("attached", 9, 10)
    assert gated.evaluate("1", 9, 10).json["outcome"] == "already-attached"
    (name,) = evaluations(azure)
    statement = json.loads(azure.read(name))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    manifest = azure.models()["act"]["1"]["properties"]["manifest_sha256"]
    assert statement["subject"][0] == {"name": "aml-mirror/manifest", "digest": {"sha256": manifest}}
    # By the digests of the manifest and of each file. It contains no version number.
    assert {one["name"] for one in statement["subject"]} == {
        "aml-mirror/manifest",
        "config.json",
        "model.safetensors",
    }
    assert "act" not in json.dumps(statement["subject"])
    predicate = statement["predicate"]
    assert (predicate["result"], len(predicate["passedTests"]), predicate["failedTests"]) == (
        "FAILED",
        9,
        ["9"],
    )
    (run,) = runs_of(azure, "act")
    assert run.data.metrics["eval/success_rate"] == 0.9
    assert run.data.metrics["eval/avg_sum_reward"] == 1.5
    history = azure.mlflow.get_metric_history(run.info.run_id, "eval/episodes")
    assert [(point.value, point.step) for point in history] == [(10.0, 20)]
    # A second one is stored next to it.
    gated.evaluate("1", 8, 10)
    assert len(evaluations(azure)) == 2
    assert gated.call("verify", "act:1", "--json").json["outcome"] == "verified"


def test_few_trials_never_pass_and_many_do(azure: Azure, gated: Gated) -> None:
    gated.mirror(20)
    gated.evaluate("1", 9, 10)
    refused = gated.promote("1", "--policy", gated.policy(), code=65)
    assert refused.json["outcome"] == "insufficient"
    assert "9 of 10 (90.0 %), 95 % Wilson interval 59.6 % to 98.2 %" in refused.err
    assert refused.err.count("error: ") == 1
    assert "mirror.stage" not in tags(azure, "1")
    gated.mirror(30)
    gated.evaluate("2", 95, 100)
    dry = gated.promote("2", "--policy", gated.policy(), "--dry-run").json
    assert (dry["outcome"], dry["changed"]) == ("pass", False)
    assert "mirror.stage" not in tags(azure, "2")
    assert not azure.blobs("aml-mirror/stages/")
    shown = gated.call("promote", "act:2", "--to", "production", "--policy", gated.policy(), "--explain")
    assert "95 of 100 (95.0 %), 95 % Wilson interval 88.8 % to 97.8 %" in shown.out
    assert tags(azure, "2")["mirror.stage"] == "production"


def test_the_incumbent_loses_the_stage_and_gets_it_back(azure: Azure, gated: Gated) -> None:
    for step in (20, 30, 40):
        gated.evaluate(gated.mirror(step), 95, 100, "--task-name", "pick")
    own_stage = azure.models()["act"]["1"]["stage"]
    gated.promote("1")
    gated.promote("1", stage="staging")
    assert tags(azure, "1")["mirror.stage"] == "production,staging"
    gated.promote("2", "--reason", "grips better")
    gated.call("pull", "act@production", gated.folder / "robot")
    pulled = (gated.folder / "robot" / "model" / "model.safetensors").read_bytes()
    assert pulled == (gated.folder / "run-30" / "checkpoint-30" / "model.safetensors").read_bytes()
    assert tags(azure, "1")["mirror.stage"] == "staging"
    assert "mirror.stage.production" not in tags(azure, "1")
    assert tags(azure, "2")["mirror.stage"] == "production"
    assert gated.promote("2").json["changed"] is False
    entries = gated.history()["entries"]
    assert [(one["action"], one["version"], one["previous"]) for one in entries] == [
        ("promote", "1", ""),
        ("promote", "2", "1"),
    ]
    assert entries[1]["why"] == "grips better" and len(entries[1]["evidence"]) == 1
    # Who: the identity that Azure knows.
    assert azure.object_id in entries[1]["by"]
    assert entries[1]["conditions"][1]["required"] == "not shown to be worse (one-sided, 5 %)"
    gated.call("rollback", "act@production", "--reason", "drops the cup")
    assert (gated.holder(), gated.holder("staging")) == ("1", "1")
    gated.call("rollback", "act@production", code=64)
    gated.call("demote", "act@production")
    assert gated.holder() is None
    assert tags(azure, "1")["mirror.stage"] == "staging"
    gated.call("demote", "act@production", code=66)
    gated.call("rollback", "act@production")
    assert gated.holder() == "1"
    # Nothing else in a version has changed, and the service's own stage is not used.
    assert azure.models()["act"]["1"]["stage"] == own_stage
    assert gated.call("verify", "act:1", "--json").json["outcome"] == "verified"


def test_the_same_trials_in_two_formats_count_once(azure: Azure, gated: Gated, tmp_path: Path) -> None:
    gated.mirror(20)
    gated.evaluate("1", 48, 50)
    table = tmp_path / "table.csv"
    table.write_text("episode,success\n" + "".join(f"{at},{int(at < 48)}\n" for at in range(50)))
    assert gated.call("evaluate", "act:1", "--result", table, "--json").json["outcome"] == "attached"
    policy = gated.policy("schema: aml-mirror/gate/v1\nepisodes: 100\n")
    refused = gated.promote("1", "--policy", policy, code=65)
    assert refused.json["outcome"] == "insufficient"
    assert "50 in 1 evaluation(s)" in refused.json["error"]
    assert "they are counted once" in refused.json["error"]
    # Additional trials are counted.
    gated.evaluate("1", 49, 50)
    assert gated.promote("1", "--policy", policy).json["outcome"] == "pass"


def test_what_is_annotated_does_not_take_away_a_stage_of_the_same_moment(
    here: Azure, mirroring: Mirroring, gated: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated.mirror(20)
    gated.evaluate("1", 95, 100)
    facts = here.facts
    settings = Settings(
        subscription_id=facts["subscription"],
        resource_group=facts["resource_group"],
        workspace_name=facts["workspace"],
        retry_seconds=20.0,
    )
    registry = open_registry(settings, lambda text: None)
    version = registry.find_version("act", "1")
    assert version is not None
    real, promoting = ModelService.version, []

    def read(service: ModelService, model: str, number: str) -> Any:
        found = real(service, model, number)
        if not promoting:
            promoting.append(mirroring.start("promote", "act:1", "--to", "production", "--json"))
            # Until it waits, or ends.
            any("waiting for it" in line for line in iter(promoting[0].stderr.readline, ""))
        return found

    monkeypatch.setattr(ModelService, "version", read)
    registry.annotate(version, {"mirror.note": "seen"})
    out, err = promoting[0].communicate(timeout=600)
    assert promoting[0].returncode == 0, err
    assert json.loads(out)["outcome"] == "pass"
    assert (tags(here, "1")["mirror.note"], tags(here, "1")["mirror.stage"]) == ("seen", "production")
    assert gated.holder() == "1"


def test_a_worse_candidate_is_refused(azure: Azure, gated: Gated) -> None:
    gated.mirror(20)
    gated.evaluate("1", 95, 100)
    gated.promote("1")
    gated.mirror(30)
    gated.evaluate("2", 80, 100)
    refused = gated.promote("2", code=65)
    assert refused.json["outcome"] == "fail"
    assert "80 of 100 (80.0 %) against 95 of 100 (95.0 %), p = 0.000" in refused.err
    assert gated.holder() == "1"
    gated.mirror(40)
    assert gated.promote("3", code=65).json["outcome"] == "insufficient"


def test_changed_bytes_and_foreign_evidence_are_refused(azure: Azure, gated: Gated, tmp_path: Path) -> None:
    gated.mirror(20)
    gated.mirror(30)
    gated.evaluate("1", 95, 100)
    gated.evaluate("2", 94, 100)
    first, second = evaluations(azure)
    # A statement about one version, attached to the other.
    (tmp_path / "statement.json").write_bytes(azure.read(first))
    which = "2" if "run-20" in first else "1"
    refused = gated.call(
        "evaluate", f"act:{which}", "--result", tmp_path / "statement.json", "--json", code=65
    )
    assert "belongs to other bytes: it names the manifest" in refused.err
    assert refused.err.count("\n") == 1
    # Replaced in the storage: its digest differs from the one in the tag.
    kept = azure.read(second)
    blob(azure, second).upload_blob(azure.read(first), overwrite=True)
    number = "1" if "run-20" in second else "2"
    refused = gated.promote(number, code=65)
    assert "was changed or no longer exists" in refused.json["error"]
    blob(azure, second).upload_blob(kept, overwrite=True)
    assert gated.promote(number, "--dry-run").json["outcome"] == "pass"
    prefix = azure.models()["act"]["1"]["modelUri"].partition("/paths/")[2]
    blob(azure, prefix + "config.json").upload_blob(b"{}", overwrite=True)
    refused = gated.promote("1", code=65)
    assert "is not what was mirrored: config.json: it has 2 bytes" in refused.json["error"]
    assert refused.err.count("error: ") == 1


def test_signatures_where_the_policy_asks_for_them(azure: Azure, gated: Gated, tmp_path: Path) -> None:
    mirror_key, mirror_public = key_pair(tmp_path, "mirror")
    evaluator, evaluator_public = key_pair(tmp_path, "evaluator")
    _, foreign_public = key_pair(tmp_path, "foreign")
    gated.mirror(20, "--sign-key", mirror_key)
    gated.evaluate("1", 95, 100)
    keys = ["--public-key", mirror_public, "--public-key", evaluator_public]
    policy = ["--policy", gated.policy(SIGNED)]
    assert "no key was given" in gated.promote("1", *policy, code=64).err
    refused = gated.promote("1", *policy, *keys, code=65)
    assert refused.json["outcome"] == "insufficient"
    assert "is not signed, and the policy counts only signed ones" in refused.err
    # The same result with a signature replaces the unsigned one.
    done = gated.evaluate("1", 95, 100, "--sign-key", evaluator).json
    assert (done["outcome"], len(done["signed_by"])) == ("attached", 64)
    assert len([key for key in tags(azure, "1") if key.startswith("mirror.evaluation.")]) == 1
    (run,) = runs_of(azure, "act")
    assert len(azure.mlflow.get_metric_history(run.info.run_id, "eval/episodes")) == 1
    refused = gated.promote("1", *policy, "--public-key", mirror_public, code=65)
    assert "is not by any of the given keys" in refused.json["error"]
    refused = gated.promote("1", *policy, "--public-key", foreign_public, code=65)
    assert "is not by the key" in refused.json["error"]
    assert gated.promote("1", *policy, *keys).json["outcome"] == "pass"
    # Unsigned evidence is not enough if the policy requires signatures.
    gated.mirror(30)
    gated.evaluate("2", 95, 100, "--sign-key", evaluator)
    assert "is not signed: it has no provenance.dsse.json" in gated.promote("2", *policy, *keys, code=65).err


def test_two_promotions_at_once_leave_one_incumbent(azure: Azure, gated: Gated, mirroring: Mirroring) -> None:
    for step in (20, 30, 40):
        gated.evaluate(gated.mirror(step), 95, 100)
    started = [
        mirroring.start("promote", f"act:{number}", "--to", "production", "--json") for number in "123"
    ]
    for process in started:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert json.loads(out)["changed"] is True
    held = [number for number in "123" if tags(azure, number).get("mirror.stage") == "production"]
    assert len(held) == 1 and gated.holder() == held[0]
    entries = gated.history()["entries"]
    assert [one["sequence"] for one in entries] == [1, 2, 3]
    # Each was compared with the one before it.
    assert [one["previous"] for one in entries] == ["", entries[0]["version"], entries[1]["version"]]
    assert all(one["carried_out"] for one in entries)


def test_what_somebody_wrote_by_hand_is_no_stage(azure: Azure, gated: Gated, ml: Any) -> None:
    gated.evaluate(gated.mirror(20), 95, 100)
    gated.mirror(30)
    gated.promote("1")
    model = ml.models.get("act", "2")
    model.tags["mirror.stage"] = "production"
    ml.models.create_or_update(model)
    assert gated.holder() == "1"
    # An entry that only the storage has.
    (name,) = azure.blobs("aml-mirror/stages/act/")
    forged = json.loads(azure.read(name)) | {"sequence": 2, "version": "2", "previous": "1", "follows": 1}
    blob(azure, name.replace("000001", "000002")).upload_blob(json.dumps(forged).encode())
    assert gated.holder() == "1"
    assert [one["carried_out"] for one in gated.history()["entries"]] == [True, False]
    gated.evaluate("2", 95, 100)
    ml.models.archive("act", "2")
    assert "version 2 of act is archived" in gated.promote("2", code=65).json["error"]
