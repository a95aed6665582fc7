"""The registry stores the receipts of a long backfill, and `status --backfill` prints them."""

from __future__ import annotations

import json

import pytest

from aml_mirror.backfill import kept_receipts
from aml_mirror.backfill.kept_receipts import KEEP_FROM, KeptReceipts
from aml_mirror.pipeline.receipt import Facts, failed, receipt_of
from builders.backfills import settings_of
from builders.program import Call
from builders.proxy import Proxy


def test_all_shards_are_read_back_and_the_last_receipt_of_a_run_counts(
    mlflow_url: str, model_name: str, aml_mirror: Call
) -> None:
    target = ("--tracking-uri", mlflow_url, "--retry-for", "0s")
    warnings: list[str] = []
    for attempt in range(2):
        for shard in range(2):
            settings = settings_of(*target, "--shard", f"{shard}/2", "--model-name", "m")
            kept = KeptReceipts(settings, model_name, warnings.append)
            for number in range(KEEP_FROM + 150):
                facts = Facts(run_id=f"run-{shard}-{number}", model_name="m")
                if (number < 5 and attempt == 0) or number == 7:
                    kept.take(failed(facts, 65, f"broken in attempt {attempt}", "", 1.0))
                else:
                    kept.take(receipt_of(facts, outcome="mirrored", exit_code=0, model_uri="models:/m/1"))
            assert kept.close()
    assert warnings == []
    done = aml_mirror("status", "--backfill-id", model_name, "--tracking-uri", mlflow_url, code=65)
    found = [json.loads(line) for line in done.out.splitlines()]
    assert len(found) == len({line["run_id"] for line in found}) == 2 * (KEEP_FROM + 150)
    assert {(line["run_id"], line["error"]) for line in found if line["outcome"] == "failed"} == {
        ("run-0-7", "broken in attempt 1"),
        ("run-1-7", "broken in attempt 1"),
    }
    done = aml_mirror("status", "--backfill", "other", "--tracking-uri", mlflow_url, code=66)
    assert "no receipts of the backfill other are stored" in done.err
    assert "failed" in kept_receipts.text(found[7]) or "mirrored" in kept_receipts.text(found[7])


def test_few_receipts_are_in_the_log_alone(mlflow_url: str, model_name: str) -> None:
    with Proxy(mlflow_url) as proxy:
        settings = settings_of("--tracking-uri", proxy.url, "--model-name", "m")
        kept = KeptReceipts(settings, model_name, pytest.fail)
        for number in range(KEEP_FROM - 1):
            kept.take(receipt_of(Facts(run_id=f"run-{number}"), outcome="mirrored", exit_code=0))
        assert not kept.close() and proxy.seen == []


def test_a_registry_that_does_not_take_them_is_told_of_once(
    model_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = settings_of("--tracking-uri", "http://127.0.0.1:1", "--retry-for", "0s", "--model-name", "m")
    warnings: list[str] = []
    kept = KeptReceipts(settings, model_name, warnings.append)
    for number in range(KEEP_FROM * 5):
        kept.take(receipt_of(Facts(run_id=f"run-{number}"), outcome="mirrored", exit_code=0))
    assert not kept.close()
    assert len(warnings) == 1 and "only in the log" in warnings[0]
