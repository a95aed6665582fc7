"""Evidence and stages on a real MLflow server: the alias, its history, and concurrent promotions."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from aml_mirror.core.errors import ServiceUnavailable
from aml_mirror.registries.mlflow import model_lock
from aml_mirror.registries.mlflow.model_lock import ModelLock
from aml_mirror.registries.mlflow_errors import translate
from aml_mirror.support.retry import Retry
from builders.forks import MLFLOW, forks
from builders.gated import Gated
from builders.program import Call, clean_environment


@pytest.fixture
def gated(aml_mirror: Call, mlflow_url: str, model_name: str, tmp_path: Path) -> Gated:
    return Gated(
        lambda *given, **more: aml_mirror(*given, "--tracking-uri", mlflow_url, **more), tmp_path, model_name
    )


def test_a_stage_is_an_alias_and_has_a_history(gated: Gated, client: MlflowClient) -> None:
    for step in (20, 30):
        gated.evaluate(gated.mirror(step), 95, 100)
    name = gated.model
    found = client.get_model_version(name, "1")
    run = client.get_run(found.run_id)
    assert run.data.metrics["eval/success_rate"] == 0.95
    # Read-only commands and refused commands write nothing.
    gated.promote("1", "--dry-run")
    gated.mirror(40)
    gated.evaluate("3", 50, 100)
    assert gated.promote("3", "--policy", gated.policy(), code=65).json["outcome"] == "fail"
    refused = gated.call("promote", f"{name}:3", "--to", "production", "--policy", gated.policy(), code=65)
    assert refused.out == "" and refused.err.count("version 3 of") == 1
    assert gated.call("history", f"{name}@staging").out == f"{name}@staging: no version\n"
    assert "there is no model none-such" in gated.call("history", "none-such", code=66).err
    assert not {"production", "staging"} & set(client.get_registered_model(name).aliases)
    gated.promote("1", "--policy", gated.policy())
    gated.promote("2", "--reason", "grips better")
    model = client.get_registered_model(name)
    # The only other alias is the one that every mirror sets.
    assert set(model.aliases) <= {"production", "final"}
    assert str(model.aliases["production"]) == "2"
    assert not [key for key in model.tags if key.startswith("mirror.lock.")]
    assert client.get_model_version(name, "2").tags["mirror.stage"] == "production"
    assert not {"mirror.stage", "mirror.stage.production"} & client.get_model_version(name, "1").tags.keys()
    assert "95 of 100" in gated.promote("3", code=65).err
    gated.call("rollback", f"{name}@production")
    assert str(client.get_model_version_by_alias(name, "production").version) == "1"
    gated.call("demote", f"models:/{name}@production")
    with pytest.raises(MlflowException, match="alias"):
        client.get_model_version_by_alias(name, "production")
    entries = gated.history()["entries"]
    assert [one["action"] for one in entries] == ["promote", "promote", "rollback", "demote"]
    assert all(one["carried_out"] for one in entries) and entries[1]["why"] == "grips better"
    for stage in ("latest", "v2", "Production", "a,b"):
        assert "cannot be the name of a stage" in gated.promote("1", stage=stage, code=64).err
    gated.call("promote", f"{name}:9", "--to", "production", code=66)
    gated.call("demote", name, code=64)


def test_a_verdict_of_an_older_scanner_is_given_anew(gated: Gated, client: MlflowClient) -> None:
    gated.evaluate(gated.mirror(20), 95, 100)
    name = gated.model
    client.set_model_version_tag(name, "1", "safety.scanner", "1")
    client.set_model_version_tag(name, "1", "safety", "suspicious")
    assert "scanning it again" in gated.promote("1", "--dry-run").err
    assert "mirror.safety" not in client.get_model_version(name, "1").tags
    gated.promote("1")
    assert client.get_model_version(name, "1").tags["mirror.safety"] == "no-code"
    strict = gated.policy("schema: aml-mirror/gate/v1\nversion: {safety: [safetensors]}\n")
    refused = gated.promote("1", "--policy", strict, code=65)
    assert "has the safety verdict no-code, but the policy accepts only safetensors" in refused.json["error"]
    # A request for the stage returns the version that has it.
    gated.call("pull", f"{name}@production", gated.folder / "robot")
    assert (gated.folder / "robot" / "model" / "model.safetensors").is_file()


def test_an_alias_that_a_person_moved_counts(gated: Gated, client: MlflowClient) -> None:
    gated.evaluate(gated.mirror(20), 95, 100)
    gated.evaluate(gated.mirror(30), 80, 100)
    client.set_registered_model_alias(gated.model, "production", "1")
    assert gated.holder() == "1"
    # It is now the incumbent for the next comparison.
    assert gated.promote("2", code=65).json["outcome"] == "fail"


def test_two_promotions_at_once_leave_one_incumbent(
    gated: Gated, client: MlflowClient, mlflow_url: str, tmp_path: Path
) -> None:
    for step in (20, 30, 40):
        gated.evaluate(gated.mirror(step), 95, 100)
    started = [
        forks(MLFLOW, clean_environment).start(
            [
                "promote",
                f"{gated.model}:{number}",
                "--to",
                "production",
                "--json",
                "--tracking-uri",
                mlflow_url,
            ],
            tmp_path,
            clean_environment(),
        )
        for number in "123"
    ]
    for process in started:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert json.loads(out)["changed"] is True
    held = [
        number
        for number in "123"
        if client.get_model_version(gated.model, number).tags.get("mirror.stage") == "production"
    ]
    assert held == [gated.holder()]
    entries = gated.history()["entries"]
    assert [one["previous"] for one in entries] == ["", entries[0]["version"], entries[1]["version"]]


def _lock(client: MlflowClient, model: str) -> ModelLock:
    retry = Retry(30.0, lambda error: translate(error, "the server"), lambda text: None)
    return ModelLock(client, model, retry, lambda text: None)


def test_one_has_the_lock_at_a_time(client: MlflowClient, model_name: str) -> None:
    client.create_registered_model(model_name)
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(2):
            with _lock(client, model_name).held() as require_allowed:
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.02)
                require_allowed()
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert most == [1] * 8
    assert not client.get_registered_model(model_name).tags


def test_who_was_taken_for_dead_writes_no_more(
    client: MlflowClient, model_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create_registered_model(model_name)
    with _lock(client, model_name).held() as require_allowed:
        require_allowed()
        (key,) = client.get_registered_model(model_name).tags
        client.delete_registered_model_tag(model_name, key)
        # As after a pause: its own clock shows that it may have lost the lock.
        monkeypatch.setattr(model_lock, "TRUST_SECONDS", 0.0)
        with pytest.raises(ServiceUnavailable, match="another mirror took over the stages"):
            require_allowed()


def test_a_lock_of_a_process_that_is_gone_is_removed(client: MlflowClient, model_name: str) -> None:
    from aml_mirror.registries.mlflow.run_lease import Keeper, Lease

    client.create_registered_model(model_name)
    lease = Lease.parse(Keeper().note())
    assert lease is not None
    gone = Lease("gone", 1, lease.namespace, 2**22 + 1, "1", ticket=1)
    client.set_registered_model_tag(model_name, "mirror.lock.gone", gone.text())
    client.set_registered_model_tag(model_name, "mirror.lock.damaged", "no lease")
    with _lock(client, model_name).held():
        assert len(client.get_registered_model(model_name).tags) == 1
