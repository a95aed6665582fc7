"""``backfill --from-osmo`` and ``watch`` with the pod's program: runs from several containers, into Azure
ML.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from azure_emulator.client import Azure
from builders.runs import huggingface_run
from mirroring import Mirroring, complete_versions
from osmo_world import OsmoWorld


@pytest.fixture
def osmo(tmp_path: Path) -> OsmoWorld:
    return OsmoWorld(tmp_path, "6.4")


def lines(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def test_runs_in_many_containers_keep_their_ids_and_labels(
    osmo: OsmoWorld, azure: Azure, tmp_path: Path
) -> None:
    one, two = huggingface_run(tmp_path / "one", points=1), huggingface_run(tmp_path / "two", points=2)
    for number, run in enumerate((one, two), 1):
        container = f"team-{number}"
        account = azure.new_account(containers=[container], role="Storage Blob Data Reader")
        uri = azure.seed(run, f"runs/train-{number}", account=account, container=container)
        declared = uri.removesuffix(f"train-{number}") + "{{workflow_id}}"
        osmo.add(f"train-{number}", {"train": [declared]}, labels={"mirror": "on", "robot": "ur5e"})
    # Two tasks that each declared an output, and a run that declared none.
    both = [azure.seed(run, f"pair/{run.name}") for run in (one, two)]
    osmo.add("pair-3", {"left": [both[0]], "right": [both[1]]}, labels={"mirror": "on", "robot": "ur5e"})
    osmo.add("bare-4", labels={"mirror": "on", "robot": "ur5e"})
    osmo.add("gone-5", {"train": ["azure://nosuchaccount/x/y"]}, status="FAILED")
    (tmp_path / "cwd").mkdir()
    mirroring = Mirroring(azure, tmp_path / "cwd")
    flags = ("--from-osmo", "--label", "mirror=on", "--retry-for", "20s")
    done = mirroring("backfill", *flags, "--model-name", "{label.robot}-{task}", code=65, **osmo.environment)
    *receipts, summary = lines(done.out)
    found = {(line["run_id"], line["model_name"]): line["outcome"] for line in receipts}
    assert found == {
        ("train-1", "ur5e-train"): "mirrored",
        ("train-2", "ur5e-train"): "mirrored",
        ("pair-3", "ur5e-left"): "mirrored",
        ("pair-3", "ur5e-right"): "mirrored",
        ("bare-4", None): "failed",
    }
    assert summary["workflows"]["listed"] == 5 and summary["failed_by_exit_code"] == {"66": 1}
    versions = {
        version["properties"]["osmo.run_id"]: {**version["tags"], **version["properties"]}
        for version in complete_versions(azure, "ur5e-train").values()
    }
    assert set(versions) == {"train-1", "train-2"}
    run = azure.mlflow.get_run(versions["train-1"]["mlflow_run_id"])
    assert versions["train-1"]["label.robot"] == run.data.tags["label.robot"] == "ur5e"

    # The watcher, once: for mirrored runs it only asks OSMO for the list. The journal is a blob.
    with osmo.changed() as state:
        state["calls"], state["requests"] = [], 0
    done = mirroring(
        "watch", *flags[1:], "--model-name", "{label.robot}-{task}", "--once", **osmo.environment
    )
    *receipts, summary = lines(done.out)
    assert [(line["run_id"], line["exit_code"]) for line in receipts] == [("bare-4", 66)]
    assert (summary["already_mirrored"], summary["failed"]) == (3, 1)
    assert [call[1] for call in osmo.calls] == ["list", "query", "spec", "query", "spec"]
    done = mirroring(
        "watch", *flags[1:], "--model-name", "{label.robot}-{task}", "--once", **osmo.environment
    )
    (summary,) = lines(done.out)
    assert summary["workflows"]["postponed"] == 1 and summary["failed"] == 0


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--label", "mirror=on", "--source", "x"), "pass --from-osmo too"),
        (("--from-osmo", "--source", "x"), "name two different sources"),
        (("--from-osmo", "--skip-copies"), "--skip-copies"),
        (("--from-osmo", "--model-name", "{name}"), "unknown placeholder {name}"),
        (("--from-osmo", "--pool=-x"), "is not a name"),
        (("--from-osmo", "--label", "mirror"), "is not KEY=VALUE"),
        (("--from-osmo", "--osmo-url", "ftp://x"), "not an http:// or https:// URL"),
        (("--from-osmo", "--osmo-url", "https://osmo.example"), "--osmo-token-file"),
    ],
)
def test_what_does_not_go_together(aml_mirror, flags: tuple[str, ...], word: str) -> None:  # type: ignore[no-untyped-def]
    done = aml_mirror(
        "backfill", "--model-name", "m", "--tracking-uri", "http://127.0.0.1:1", *flags, code=None
    )
    assert done.code in (64, 78), done.err
    assert word in done.err and "Traceback" not in done.err
