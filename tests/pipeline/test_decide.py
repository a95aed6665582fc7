"""decide.py: a plan is made once and is exactly what a mirror does. Each file is examined once."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from aml_mirror.core.errors import DataError, MirrorError
from aml_mirror.core.run import Checkpoint
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline import decide
from aml_mirror.pipeline.apply_limits import apply_limits, check_file_count
from aml_mirror.pipeline.decide import plans
from aml_mirror.pipeline.mirror import Mirror
from aml_mirror.pipeline.plan import Plan
from aml_mirror.pipeline.receipt import Facts, Progress
from aml_mirror.registries.records import Limits
from aml_mirror.support.progress import Console
from builders.declared_runs import RUNS
from builders.program import Call
from builders.runs import huggingface_run
from builders.torch_zip import cut

WORKSPACE = {
    "AZURE_SUBSCRIPTION_ID": "11111111-2222-3333-4444-555555555555",
    "AZURE_RESOURCE_GROUP": "rg-robots",
    "AZUREML_WORKSPACE_NAME": "mlw-robots",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small Hugging Face run."""
    return huggingface_run(tmp_path / "run-1")


def console() -> Console:
    return Console(io.StringIO())


def plan_of(run: Path, **more: object) -> Plan:
    (plan,) = plans(Settings(source=str(run), **more), console())  # type: ignore[arg-type]
    return plan


@pytest.mark.parametrize("options", [(), ("--checkpoint", "10"), ("--exclude", "config.json"), ("--hash",)])
@pytest.mark.parametrize("target", ["database", "mlflow_url"])
def test_plan_and_mirror_have_one_manifest_and_identity(
    run: Path, aml_mirror: Call, request: pytest.FixtureRequest, target: str, options: tuple[str, ...]
) -> None:
    uri = request.getfixturevalue(target)
    name = f"pair-{abs(hash((run, target, options)))}"
    arguments = ("--source", run, "--model-name", name, "--tracking-uri", uri, *options)
    plan = aml_mirror("plan", *arguments, "--json").json
    receipt = aml_mirror("mirror", *arguments).json
    assert receipt["outcome"] == "mirrored"
    tags = MlflowClient(uri, uri).get_run(receipt["mlflow_run_id"]).data.tags
    assert plan["manifest_sha256"] == receipt["manifest_sha256"]
    assert plan["identity"] == tags["identity"]
    assert plan["warnings"] == receipt["warnings"]
    assert plan["left_out_files"] == receipt["left_out"]


@pytest.mark.parametrize(
    ("options", "environment", "code"),
    [
        (["--model-name", "a/b", "--tracking-uri", "http://127.0.0.1:9"], {}, 64),
        (["--model-name", "a/b"], WORKSPACE, 64),
        (["--model-name", "a b"], WORKSPACE, 64),
        (["--model-name", "m", "--experiment", "a b"], WORKSPACE, 64),
        (["--model-name", "m", "--experiment", " "], {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, 64),
        (["--tracking-uri", "http://127.0.0.1:9"], {}, 64),
        (["--model-name", "m", "--tag", "identity=1", "--tracking-uri", "http://127.0.0.1:9"], {}, 64),
        (["--model-name", "m", "--tracking-uri", "gopher://x"], {}, 78),
        (["--model-name", "m", "--tracking-uri", "http://"], {}, 78),
        (["--model-name", "m", "--tracking-uri", "http://[::1"], {}, 78),
        (["--model-name", "m", "--tracking-uri", "mlruns"], {}, 78),
        (["--model-name", "m", "--tracking-uri", "sqlite:////dev/null/x/mlflow.db"], {}, 78),
        (["--model-name", "m", "--tracking-uri", "sqlite:////usr"], {}, 78),
        (["--model-name", "m"], {"AZUREML_WORKSPACE_NAME": "mlw-robots"}, 78),
        (["--model-name", "m"], {**WORKSPACE, "AZURE_SUBSCRIPTION_ID": "none"}, 78),
        (["--model-name", "m", "--tracking-uri", "azureml://eastus"], {}, 78),
        (["--model-name", "m", "--concurrency", "zero"], WORKSPACE, 64),
        (["--model-name", "m", "--block-size", "1"], WORKSPACE, 64),
        (["--model-name", "m", "--sign-key", "none.pem", "--tracking-uri", "http://127.0.0.1:9"], {}, 78),
    ],
)
def test_plan_refuses_what_mirror_refuses_with_its_exit_code(
    run: Path, aml_mirror: Call, options: list[str], environment: dict[str, str], code: int
) -> None:
    plan = aml_mirror("plan", "--source", run, *options, "--json", code=code, **environment)
    mirror = aml_mirror("mirror", "--source", run, *options, "--json", code=code, **environment)
    assert plan.json["error"] == mirror.json["error"]
    # Each error names its own help page.
    assert plan.json["hint"].replace("aml-mirror plan", "aml-mirror mirror") == mirror.json["hint"]


def test_a_plan_needs_no_registry_and_then_no_model_but_checks_a_name_that_is_given(
    run: Path, aml_mirror: Call
) -> None:
    assert aml_mirror("plan", "--source", run, "--json").json["model_name"] is None
    assert aml_mirror("plan", "--source", run, "--model-name", "m", "--json").json["model_name"] == "m"
    aml_mirror("plan", "--source", run, "--model-name", "a/b", code=64)
    aml_mirror("plan", "--source", run, "--tag", "identity=1", code=64)
    aml_mirror("plan", "--source", run, "--sign-key", "none.pem", code=78)


def test_a_plan_does_not_change_when_limits_are_applied(run: Path) -> None:
    plan = plan_of(run)
    params, series = dict(plan.params), plan.metrics.series
    limited = apply_limits(plan, Limits(params=1, series=0, param_value=1))
    assert (len(limited.params), limited.metrics.series) == (1, ())
    assert {"param", "metric"} <= {key for item in limited.beyond_limits for key in item}
    assert (plan.params, plan.metrics.series, plan.beyond_limits) == (params, series, ())
    assert limited.identity == plan.identity
    with pytest.raises(FrozenInstanceError):
        plan.model_name = "other"  # type: ignore[misc]


def test_a_version_takes_as_many_files_as_it_takes() -> None:
    files = ("a", "b", "c")
    checkpoint = Checkpoint("x", 1, "final", files, files)
    check_file_count(checkpoint, Limits(files=3))
    check_file_count(checkpoint, Limits())
    with pytest.raises(DataError, match="has 3 files, but a version can have 2"):
        check_file_count(checkpoint, Limits(files=2))


def test_a_value_that_is_cut_is_told(run: Path) -> None:
    plan = replace(plan_of(run), params={"long": "x" * 11, "short": "x" * 10})
    (beyond,) = apply_limits(plan, Limits(param_value=10)).beyond_limits
    assert beyond == {"param": "long", "reason": "cut from 11 to 10 characters"}


def test_a_best_checkpoint_that_is_not_complete_is_none_and_is_told(tmp_path: Path) -> None:
    RUNS["act"](tmp_path / "act")
    plan = plan_of(tmp_path / "act")
    assert plan.best is not None and plan.best.path == "policy_best.ckpt"
    cut(tmp_path / "act/policy_best.ckpt")
    plan = plan_of(tmp_path / "act")
    assert plan.best is None
    assert any("the best checkpoint policy_best.ckpt is not complete" in text for text in plan.warnings)


def test_a_plan_for_azure_ml_is_within_its_limits(run: Path, aml_mirror: Call) -> None:
    (run / "checkpoint-20" / "config.json").write_text(
        "{" + ", ".join(f'"key_{number:04}": {number}' for number in range(300)) + "}"
    )
    plan = aml_mirror("plan", "--source", run, "--model-name", "m", "--json", **WORKSPACE).json
    assert len(plan["params"]) == 200 and len(plan["beyond_limits"]) >= 100
    for number in range(1501):
        (run / "checkpoint-20" / f"extra_{number}.json").write_text("{}")
    done = aml_mirror("plan", "--source", run, "--model-name", "m", "--json", code=65, **WORKSPACE)
    assert "but a version can have 1500" in done.json["error"]


@pytest.mark.parametrize("checkpoint", ["final", "all", "best"])
def test_no_file_is_examined_twice(
    run: Path, database: str, monkeypatch: pytest.MonkeyPatch, checkpoint: str
) -> None:
    """Completeness, safety and metrics are each examined once, although several steps need them."""
    state = '{"best_model_checkpoint": "x/checkpoint-10", "best_metric": 0.5, "log_history": []}'
    (run / "checkpoint-20" / "trainer_state.json").write_text(state)
    asked: Counter[object] = Counter()

    def counted(function: object, name: str) -> object:
        def call(tree: object, what: object, *more: object) -> object:
            asked[name, tuple(what) if isinstance(what, list) else what] += 1
            return function(tree, what, *more)  # type: ignore[operator]

        return call

    for name in ("judge", "inspect", "read_metrics"):
        monkeypatch.setattr(decide, name, counted(getattr(decide, name), name))
    settings = Settings(
        source=str(run), model_name="once", tracking_uri=database, checkpoint=checkpoint, refuse_pickle=True
    )
    receipts = list(Mirror(settings, console(), Progress()).run())
    assert {receipt.outcome for receipt in receipts} == {"mirrored"}
    assert {kind for kind, _ in asked} == {"judge", "inspect", "read_metrics"}  # type: ignore[misc]
    assert set(asked.values()) == {1}, asked


def test_what_failed_names_the_checkpoint_and_what_was_done_before_names_its_own(
    run: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Progress()
    settings = Settings(
        source=str(run), model_name="half", tracking_uri=database, checkpoint="all", run_id="r"
    )
    hashed = decide.hash_files

    def broken(tree: object, paths: dict[str, str], *more: object) -> object:
        if any(path.startswith("checkpoint-20/") for path in paths):
            raise DataError("it changed")
        return hashed(tree, paths, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(decide, "hash_files", broken)
    receipts = []
    with pytest.raises(MirrorError, match="it changed"):
        for receipt in Mirror(settings, console(), progress).run():
            receipts.append(receipt)
    assert [receipt.checkpoint for receipt in receipts] == ["checkpoint-10"]
    assert progress.facts == Facts("r", str(run), "huggingface", "checkpoint-20", 20, None, "half", "half")
