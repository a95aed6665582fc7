"""receipt.py: one line of JSON within its size limit, for any content."""

from __future__ import annotations

import json
import os
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aml_mirror.pipeline.receipt import (
    MAX_LINE_BYTES,
    MAX_TERMINATION_BYTES,
    Facts,
    Receipt,
    failed,
    write_termination_log,
)

START = '{"schema":"aml-mirror/receipt/v1"'
TEXT = (
    "error",
    "hint",
    "run_id",
    "source",
    "framework",
    "checkpoint",
    "experiment",
    "model_name",
    "model_uri",
)
TEXTS = st.builds(lambda text, times: text * times, st.text(max_size=20), st.integers(0, 400))
RECEIPTS = st.builds(
    Receipt,
    step=st.integers(-(1 << 63), 1 << 63),
    left_out=st.lists(st.dictionaries(st.sampled_from(("path", "reason", "metric")), TEXTS), max_size=50).map(
        tuple
    ),
    warnings=st.lists(TEXTS, max_size=50).map(tuple),
    **dict.fromkeys(TEXT, TEXTS),  # type: ignore[arg-type]
)


@given(receipt=RECEIPTS)
@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
def test_the_line_is_one_within_its_bound_that_begins_with_its_schema(receipt: Receipt) -> None:
    for limit in (MAX_LINE_BYTES, MAX_TERMINATION_BYTES):
        line = receipt.line(limit)
        assert len(line.encode()) <= limit and line.startswith(START) and len(line.splitlines()) == 1
        found = json.loads(line)
        for name in ("left_out", "warnings"):
            given_ = getattr(receipt, name)
            assert found.get(f"{name}_count", len(found[name])) == len(given_)
            assert len(found[name]) <= 20


@pytest.mark.parametrize("char", ["x", "é", "\U0001f916", "\x00", "\ud800", '"', "\n"])
def test_every_key_stands_in_the_line_even_where_all_texts_are_too_long(char: str) -> None:
    long = char * 10_000
    texts = {item.name: long for item in fields(Receipt) if item.default is None and item.name != "step"}
    left_out = ({"path": long, "reason": long},) * 99
    receipt = Receipt(left_out=left_out, warnings=(long,) * 99, outcome="planned", **texts)  # type: ignore[arg-type]
    for limit in (MAX_LINE_BYTES, MAX_TERMINATION_BYTES):
        found = json.loads(receipt.line(limit))
        assert list(found)[:2] == ["schema", "outcome"] and found["outcome"] == "planned"
        assert {item.name for item in fields(Receipt)} <= found.keys()


def test_where_nothing_fits_outcome_and_exit_code_remain() -> None:
    line = Receipt(outcome="failed", exit_code=65, error="x").line(10)
    assert line.startswith(START) and json.loads(line) == {
        "schema": "aml-mirror/receipt/v1",
        "outcome": "failed",
        "exit_code": 65,
    }


def test_lists_are_cut_at_twenty_with_their_count_and_stand_whole_in_the_artifact() -> None:
    receipt = Receipt(
        warnings=tuple(f"w{number}" for number in range(30)), left_out=({"path": "a", "reason": "b"},) * 20
    )
    found = json.loads(receipt.line())
    assert (len(found["warnings"]), found["warnings_count"]) == (20, 30)
    assert len(found["left_out"]) == 20 and "left_out_count" not in found
    assert json.loads(receipt.whole())["warnings"] == list(receipt.warnings)


def test_the_keys_are_those_that_consumers_know() -> None:
    keys = (
        "schema outcome exit_code error hint run_id source framework checkpoint step mlflow_run_id "
        "experiment model_name model_version model_uri run_page version_page files_uri manifest_sha256 "
        "integrity safety allowed files bytes bytes_sent bytes_copied bytes_reused series points left_out "
        "warnings seconds"
    )
    assert " ".join(json.loads(Receipt().line())) == keys


def test_no_secret_is_in_the_line_or_the_artifact() -> None:
    secret = "https://acct.blob.example/c?sv=1&sig=planted"
    receipt = Receipt(
        error=secret, source=secret, warnings=(secret,), left_out=({"path": secret, "reason": secret},)
    )
    for text in (receipt.line(), receipt.whole()):
        assert "planted" not in text and "sig=***" in text


def test_a_secret_is_masked_before_a_text_is_cut() -> None:
    receipt = Receipt(error="x" * 480 + " hf_" + "A1b" * 11)
    assert "hf_A" not in receipt.line()


def test_the_receipt_of_a_failure_has_what_was_known_by_then() -> None:
    facts = Facts(run_id="r", source="s", framework="f", checkpoint="c", step=5, experiment="e")
    receipt = failed(facts, 75, "it is down", "", 1.23456)
    assert receipt == Receipt(
        outcome="failed",
        exit_code=75,
        error="it is down",
        run_id="r",
        source="s",
        framework="f",
        checkpoint="c",
        step=5,
        experiment="e",
        seconds=1.235,
    )
    with pytest.raises(FrozenInstanceError):
        receipt.points = 7  # type: ignore[misc]


def test_the_termination_log_is_written_only_where_kubernetes_made_it(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    write_termination_log(Receipt(), str(path))
    assert not path.exists()
    path.write_text("what an earlier attempt left" * 1000)
    write_termination_log(Receipt(error="é" * 5000, warnings=("w" * 400,) * 99), str(path))
    assert len(path.read_bytes()) <= 4000 and json.loads(path.read_text())["outcome"] == "failed"


def test_a_termination_log_that_cannot_be_written_breaks_nothing(tmp_path: Path) -> None:
    write_termination_log(Receipt(), str(tmp_path))
    full = "/dev/full"
    if os.path.exists(full):
        write_termination_log(Receipt(), full)
