"""The parts of a backfill on their own: finding, selecting, naming, summing up. Nothing is sent."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aml_mirror.backfill import discovery
from aml_mirror.backfill.discovery import Candidate, candidates, whole_run
from aml_mirror.backfill.name_template import ModelNames, check_run_id, other_names
from aml_mirror.backfill.run_filter import RunFilter
from aml_mirror.backfill.summary import Summary
from aml_mirror.core import option_values
from aml_mirror.core.errors import DataError, SourceNotFound, UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.receipt import MAX_LINE_BYTES, Receipt
from aml_mirror.sources.local import LocalSource
from builders.backfills import settings_of
from builders.saved import safetensors, write_bytes, write_json

DATA = Path(__file__).parents[1] / "data" / "runs"
NOW = 1_800_000_000.0


def run_at(root: Path, checkpoints: int = 1) -> Path:
    for number in range(1, checkpoints + 1):
        safetensors(root / f"checkpoint-{number}" / "model.safetensors", seed=number)
        write_json(root / f"checkpoint-{number}" / "trainer_state.json", {"global_step": number})
    return root


def looked_at(base: Path, framework: str = "") -> list[Candidate]:
    return list(candidates(LocalSource(base), framework, lambda path, newest: ""))


def found_in(base: Path, framework: str = "") -> list[str]:
    """The path of each run."""
    paths = [item.path for item in looked_at(base, framework) if item.found]
    assert len(paths) == len(set(paths))
    return sorted(paths)


# --- finding ------------------------------------------------------------------------------------------


def test_the_path_of_a_run_is_that_of_its_own_root(tmp_path: Path) -> None:
    run_at(tmp_path / "plain")
    run_at(tmp_path / "deep" / "logs" / "x")
    run_at(tmp_path / "group" / "a" / "logs")
    run_at(tmp_path / "group" / "b")
    run_at(tmp_path / "group" / "inner" / "c")
    run_at(tmp_path / "group" / "inner" / "d")
    write_bytes(tmp_path / "nothing" / "x.txt")
    assert found_in(tmp_path) == [
        "deep/logs/x", "group/a/logs", "group/b", "group/inner/c", "group/inner/d", "plain",
    ]  # fmt: skip
    assert found_in(tmp_path, "rsl_rl") == []


def test_real_runs_of_every_framework_beside_each_other(tmp_path: Path) -> None:
    names = sorted(path.name for path in DATA.iterdir() if path.is_dir())
    for name in names:
        shutil.copytree(DATA / name, tmp_path / "base" / name, symlinks=True)
    assert sorted({path.partition("/")[0] for path in found_in(tmp_path / "base")}) == names
    assert len(found_in(tmp_path / "base")) == len(names)


def test_what_is_no_run_of_its_own(tmp_path: Path) -> None:
    run_at(tmp_path / "real")
    (tmp_path / "latest").symlink_to("real")
    for name in (".snapshot", "lost+found"):
        run_at(tmp_path / name / "real")
    assert found_in(tmp_path) == ["real"]


def test_a_name_that_is_not_text_is_told(tmp_path: Path) -> None:
    run_at(tmp_path / "real")
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    looked = candidates(LocalSource(tmp_path), "", lambda path, newest: "")
    failures = [item for item in looked if item.failure]
    assert [item.path for item in failures] == ["\\udcff"]
    assert "UTF-8" in str(failures[0].failure)


def test_one_run_by_itself_is_not_a_folder_of_runs(tmp_path: Path) -> None:
    run_at(tmp_path / "run", checkpoints=40)
    assert whole_run(LocalSource(tmp_path / "run"))
    with pytest.raises(UsageError, match="one huggingface run"):
        list(candidates(LocalSource(tmp_path / "run"), "", lambda path, newest: ""))
    # Numbered runs are not the checkpoints of one run.
    for number in range(3):
        run_at(tmp_path / "base" / f"policy_{number}")
    assert whole_run(LocalSource(tmp_path / "base")) is None
    with pytest.raises(SourceNotFound):
        list(candidates(LocalSource(tmp_path / "nowhere"), "", lambda path, newest: ""))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    paths=st.lists(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), min_size=1, max_size=6
    ),
    held=st.integers(0, 12),
)
def test_what_is_found_does_not_depend_on_what_is_held(tmp_path: Path, paths: list[str], held: int) -> None:
    base = tmp_path / "base"
    shutil.rmtree(base, ignore_errors=True)
    for path in paths:
        run_at(base / "p" / path)
    everything = found_in(base)
    before = discovery.HELD
    discovery.HELD = held
    try:
        assert found_in(base) == everything
    finally:
        discovery.HELD = before
    # Each run is found once, even a run inside another run.
    assert everything == sorted({f"p/{path}" for path in paths})


def test_a_folder_too_large_to_hold_is_a_group_or_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        run_at(tmp_path / "sweep" / f"run-{number:02}")
    run_at(tmp_path / "long", checkpoints=30)
    for number in range(50):
        write_bytes(tmp_path / "long" / "data" / f"chunk-{number}" / "x.bin")
    monkeypatch.setattr(discovery, "HELD", 20)
    sizes = []
    real = LocalSource.scan_at_most

    def noted(self: LocalSource, limit: int) -> object:
        listing = real(self, limit)
        sizes.append(len(listing.files))
        return listing

    monkeypatch.setattr(LocalSource, "scan_at_most", noted)
    found = found_in(tmp_path)
    assert found == ["long", *(f"sweep/run-{number:02}" for number in range(60))]
    # Except for a single run, whose complete file list is needed to mirror it.
    assert sorted(sizes)[-2] <= 20


# --- selecting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("90s", NOW - 90), ("15m", NOW - 900), ("2h", NOW - 7200), ("7d", NOW - 604_800),
        ("2w", NOW - 1_209_600), ("1.5d", NOW - 129_600), ("2026-11-01", 1_793_491_200.0),
        ("2026-11-01T08:00+01:00", 1_793_516_400.0), ("2026-11-01T08:00Z", 1_793_520_000.0),
    ],
)  # fmt: skip
def test_since(text: str, since: float) -> None:
    assert RunFilter.of(Settings(since=option_values.moment(text, "--since", NOW))).since == since


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("since", "yesterday"), ("since", "2026-13-01"), ("since", "-7d"), ("since", "7"),
        ("limit", "0"), ("limit", "-1"), ("limit", "many"), ("limit", "1.5"),
        ("shard", "1"), ("shard", "3/3"), ("shard", "-1/3"), ("shard", "0/0"), ("shard", "a/b"),
        ("shard", "1/2/3"), ("shard", "0/1000000"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_how_it_is_written(flag: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"--{flag} '{text}'") as raised:
        settings_of(f"--{flag}={text}")
    assert f"--{flag}" in raised.value.hint


@pytest.mark.parametrize(
    ("patterns", "paths"),
    [
        (["ppo-*"], ["ppo-1", "ppo-2/seed0"]),
        (["ppo-2"], ["ppo-2/seed0"]),
        (["*/seed0"], ["ppo-2/seed0", "sac/a/seed0"]),
        (["sac/"], ["sac/a/seed0"]),
        (["ppo-?", "sac"], ["ppo-1", "ppo-2/seed0", "sac/a/seed0"]),
        (["seed0"], []),
        (["PPO-*"], []),
    ],
)
def test_globs_are_of_the_path_and_the_folders_above(patterns: list[str], paths: list[str]) -> None:
    every = ["ppo-1", "ppo-2/seed0", "sac/a/seed0"]
    matching = RunFilter(match=tuple(patterns))
    assert [path for path in every if not matching.refuses(path, 0)] == paths
    excluding = RunFilter(exclude=tuple(patterns))
    assert [path for path in every if excluding.refuses(path, 0)] == paths


@given(
    paths=st.sets(st.text(min_size=1, max_size=20), max_size=40),
    shards=st.integers(1, 60),
    more=st.sets(st.text(min_size=1, max_size=20), max_size=10),
)
def test_shards_are_disjoint_and_complete_and_stay(paths: set[str], shards: int, more: set[str]) -> None:
    parts = [RunFilter(shard=shard, shards=shards) for shard in range(shards)]
    for path in paths | more:
        assert sum(part.is_ours(path) for part in parts) == 1
    # Whether a shard takes a run does not depend on the other runs.
    before = [{path for path in paths if part.is_ours(path)} for part in parts]
    after = [{path for path in paths | more if part.is_ours(path)} for part in parts]
    assert [found & paths for found in after] == before


def test_shards_are_even(tmp_path: Path) -> None:
    counts = [
        sum(RunFilter(shard=shard, shards=50).is_ours(f"train-{number}") for number in range(10_000))
        for shard in range(50)
    ]
    assert sum(counts) == 10_000
    assert 140 < min(counts) <= max(counts) < 270  # four standard deviations around 200


# --- naming -------------------------------------------------------------------------------------------


def test_model_names() -> None:
    names = ModelNames("{framework}-{parent}.{name}_{run_id}", "runs")
    assert names.is_template
    assert names.of("a/b/seed0", "act") == "act-b.seed0_a-b-seed0"
    assert names.of("one", "act") == "act-runs.one_one"
    assert not ModelNames("plain", "runs").is_template
    assert ModelNames("plain", "runs").of("one", "act") == "plain"


@pytest.mark.parametrize(
    "template", ["{nam}", "{}", "{run_id.x}", "{run_id[0]}", "{run_id!r}", "{run_id:>9}", "a}", "{"]
)
def test_placeholders_that_are_none(template: str) -> None:
    with pytest.raises(UsageError) as raised:
        ModelNames(template, "runs")
    for name in ("{run_id}", "{name}", "{parent}", "{framework}"):
        assert name in raised.value.hint


def test_other_names_of_a_run() -> None:
    names = other_names("group/seed0/logs/x", "azure://acct/runs/team")
    assert "group/seed0/logs/x" not in names
    for other in (
        "seed0", "group", "x", "logs", "group/seed0", "team/group/seed0", "runs/team/group/seed0",
        "seed0/logs/x", "team/group/seed0/logs/x",
    ):  # fmt: skip
        assert other in names, other
    assert "team" not in names
    assert "runs/team" not in names


@pytest.mark.parametrize("path", ["x" * 257, "a\nb", "a\x7fb"])
def test_paths_that_cannot_be_ids(path: str) -> None:
    with pytest.raises(DataError, match="run's id"):
        check_run_id(path)


def test_flags_reach_the_settings() -> None:
    found = settings_of(
        "--source", "p", "--match", "a*", "--exclude-run", "b*", "--include-file", "c*",
        "--exclude-file", "d*", "--since", "7d", "--limit", "3", "--shard", "1/4", "--model-name", "m",
        "--checkpoint", "best",
    )  # fmt: skip
    assert (found.match, found.exclude_runs, found.include, found.exclude) == (
        ("a*",),
        ("b*",),
        ("c*",),
        ("d*",),
    )
    assert found.since is not None and found.since.tzinfo is not None
    assert (found.limit, found.shard, found.checkpoint) == (3, option_values.Shard(1, 4), "best")
    with pytest.raises(UsageError):
        settings_of("--source", "p", "--run-id", "x")
    with pytest.raises(UsageError) as raised:
        settings_of("--source", "p", "--exclude", "x")
    assert "--exclude-run" in raised.value.hint and "--exclude-file" in raised.value.hint


# --- summing up ---------------------------------------------------------------------------------------


def failed(code: int) -> Receipt:
    return Receipt(outcome="failed", exit_code=code, run_id=f"run-{code}", error="why")


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([], 0), ([65], 65), ([64, 66], 65), ([65, 75], 75), ([65, 70], 70), ([70, 75], 75),
        ([75, 77, 65], 77), ([78], 78), ([65, 78, 75], 78),
    ],
)  # fmt: skip
def test_the_exit_code_is_the_gravest(codes: list[int], code: int) -> None:
    summary = Summary()
    for each in codes:
        summary.add([failed(each)])
    summary.add([Receipt(outcome="mirrored", exit_code=0, run_id="good")])
    assert summary.exit_code == code
    summary.stop_code = 143
    assert summary.exit_code == 143


def test_the_line_stays_short_and_the_table_counts_all() -> None:
    summary = Summary(source="/" + "s" * 4000, model_name="m")
    secret = "?sv=2024&sig=" + "a" * 43 + "%3D"
    for number in range(500):
        run_id, error = f"run-{number}-" + "ü" * 240, secret + "ü" * 5000
        receipt = replace(failed(65), run_id=run_id, error=error)
        summary.add([receipt])
        summary.add(
            [Receipt(outcome="mirrored", exit_code=0, run_id=f"good-{number}", model_uri="models:/m/1")]
        )
        summary.add_no_run(f"none-{number}")
    line = summary.line()
    assert len(line.encode()) <= MAX_LINE_BYTES
    assert len(summary.line(4000).encode()) <= 4000
    assert json.loads(line)["failed"] == 500
    assert "a" * 43 not in line
    table = summary.table().splitlines()
    assert len(table) == 100 + 1 + 100 + 1 + 20 + 1 + 1
    assert "failed    … and 400 more" in table
    assert table[-1].startswith(
        "1,000 run(s): 500 mirrored, 0 already there, 0 skipped, 500 failed, 500 folder(s)"
    )
