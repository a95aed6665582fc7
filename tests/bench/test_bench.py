"""The bench: its arithmetic, its output, and that the sides of each comparison do the same work."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from azure_emulator.client import Azure
from azure_emulator.fixtures import azure, azure_emulator  # noqa: F401
from bench import (
    environments,
    events,
    harness,
    mlflow_server,
    nothing,
    points,
    pull_reuse,
    report,
    reuse,
    runs,
    scale,
    server_copy,
    slow_volume,
    upload,
    volume,
    whole,
)
from bench.__main__ import NAMES
from bench.growth import Curve, Point, plot
from bench.harness import BenchError, Comparison, Goal, Measured, Sample, Side, compare


def side(name: str, *seconds: float, work: Mapping[str, Any] | None = None, **more: Any) -> Side:
    """A side that takes the given times in its first, second, … run."""
    left = list(seconds)

    def run() -> Sample:
        return Sample(left.pop(0), 1_000_000, {"points": 10} if work is None else work, {"requests": 4.0})

    return Side(name, "stands for itself", run, **more)


def comparison(*sides: Side, goals: tuple[Goal, ...] = (), rounds: int = 3) -> Comparison:
    return Comparison("events", "A title", sides, goals, sides[0].name, rounds)


def quiet(text: str) -> None:
    return None


def test_medians_ratios_and_goals() -> None:
    sides = side("ours", 1.0, 9.0, 2.0), side("theirs", 30.0, 10.0, 20.0)
    goals = (
        Goal("fast", 10, False, harness.times_faster("ours", "theirs")),
        Goal("faster still", 10.1, False, harness.times_faster("ours", "theirs"), obstacle="the wire"),
        Goal("short", 0.1, True, harness.times_as_long("ours", "theirs")),
    )
    found = compare(comparison(*sides, goals=goals), say=quiet)
    assert [one.seconds for one in found.sides] == [2.0, 20.0]
    assert [(one.measured, one.met) for one in found.goals] == [(10, True), (10, False), (0.1, True)]
    said = report.table(found.as_dict())
    assert "| **ours** | 2.00 s | 1.00 |  | 1 MB | 4 |" in said
    assert "| theirs | 20.00 s | 10.00 |" in said
    assert "- faster still: 10.00 ×, **not met**: the wire" in said
    assert "- fast: 10.00 ×, met\n" in said


def test_what_has_no_limit_is_only_printed() -> None:
    goal = Goal("how much longer", None, True, harness.times_as_long("ours", "theirs"))
    found = compare(comparison(side("ours", 3.0), side("theirs", 2.0), goals=(goal,), rounds=1), say=quiet)
    assert report.table(found.as_dict()).endswith("\n- how much longer: 1.50 ×\n")


def test_the_sides_take_turns() -> None:
    order: list[str] = []

    def noting(name: str) -> Side:
        return Side(name, "", lambda: order.append(name) or Sample(1.0, 0, {"points": 1}))  # type: ignore[func-returns-value]

    compare(comparison(noting("a"), noting("b"), noting("c")), say=quiet)
    assert "".join(order) == "abcbcacab"


def test_a_slow_side_may_take_part_in_fewer_rounds() -> None:
    found = compare(comparison(side("ours", 1.0, 3.0, 2.0), side("slow", 8.0, rounds=1)), say=quiet)
    assert [one.samples for one in found.sides] == [[1.0, 3.0, 2.0], [8.0]]
    said = report.table(found.as_dict())
    assert "| slow | 8.00 s (1 round) | 4.00 |" in said and "| **ours** | 2.00 s | 1.00 |" in said


def test_a_side_that_does_a_part_is_extrapolated() -> None:
    sides = side("ours", 1.0), side("slow", 2.0, work={"points": 1}, extrapolated=10)
    found = compare(comparison(*sides, rounds=1), say=quiet)
    assert found.sides[1].seconds == 20.0
    assert "20.00 s (from 1/10)" in report.table(found.as_dict())


@pytest.mark.parametrize("work", [{"points": 9}, {}, {"points": 10, "tags": 1}])
def test_other_work_is_no_result(work: dict[str, int]) -> None:
    with pytest.raises(BenchError, match="theirs did"):
        compare(comparison(side("ours", 1.0), side("theirs", 1.0, work=work), rounds=1), say=quiet)
    yardstick = side("theirs", 1.0, work=work, is_yardstick=True)
    compare(comparison(side("ours", 1.0), yardstick, rounds=1), say=quiet)


def test_a_process_has_its_own_memory(tmp_path: Path) -> None:
    ballast = bytearray(300 << 20)
    one = harness.run_side([sys.executable, "-c", "import time; time.sleep(0.3)"], {}, prints_sample=False)
    assert 1 << 20 < one.resident < len(ballast) / 4
    with pytest.raises(BenchError, match="exit 3"):
        harness.run_side([sys.executable, "-c", "raise SystemExit(3)"], {})


def test_the_readme_is_written_between_its_markers(tmp_path: Path) -> None:
    kept, readme = tmp_path / "bench.json", tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for seconds in (1.0, 2.0):
        found = compare(comparison(side("ours", seconds), rounds=1), say=quiet)
        report.keep(found, harness.machine(), kept)
    report.write_readme(readme, kept)
    text = readme.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\nTaken on ")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "| **ours** | 2.00 s |" in text and "1.00 s" not in text and "old" not in text
    readme.write_text("no markers")
    with pytest.raises(BenchError, match="has no lines"):
        report.write_readme(readme, kept)
    assert json.loads(kept.read_text())["comparisons"]["events"]["machine"]["cores"] > 0


def test_the_page_has_a_place_for_each_comparison() -> None:
    # Slow volumes are part of the uploads; the growth of cost has its own table at the end.
    names = {"upload-volume" if name == "slow-volume" else name for name in NAMES} - {"scale"}
    assert sorted(names, key=report._place)[0] == "points"
    assert all(report._place(name) < len(report._ORDER) for name in names)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The sides run in the environment of the tests, which has everything they need except tbparse and
    azcopy.
    """
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    monkeypatch.setattr(runs, "DATA", tmp_path)
    for name in ("ours", "peers"):
        monkeypatch.setattr(environments, name, lambda: Path(sys.executable))


def once(comparison: Comparison, *names: str) -> dict[str, Measured]:
    """Run the sides once. The harness itself compares what they did."""
    sides = [side for side in comparison.sides if side.name in names]
    assert len(sides) == len(names)
    found = compare(replace(comparison, sides=sides, goals=[], ours=names[0]), 1, quiet)
    return {one.name: one for one in found.sides}


@pytest.mark.usefixtures("here")
def test_all_readers_read_the_same() -> None:
    once(events.comparison(400), "ours", "RawEventFileLoader")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("store", [pytest.param("mlflow", marks=pytest.mark.nightly), "memory"])
def test_all_ways_send_the_same_points(azure: Azure, store: str) -> None:  # noqa: F811
    azure.set_workspace(metric_store=store)
    found = once(points.comparison(azure, 4_000), "ours", "log_batch")
    assert found["ours"].facts["requests with points"] == 20


@pytest.mark.usefixtures("here")
def test_all_ways_send_the_same_files(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    # Creating the comparison looks for azcopy.
    monkeypatch.setattr(environments, "azcopy", lambda: (Path("azcopy"), {}))
    with upload.sink(0.0) as sink:
        azure.set_workspace(artifact_endpoint=f"{sink.url}/account")
        once(upload.big(azure, sink, 9 << 20), "ours", "curl")
        once(upload.small(azure, sink, 5, 1000), "upload_blob", "plugin")


def test_a_warm_file_is_not_read_from_the_volume_again(tmp_path: Path) -> None:
    file, size = tmp_path / "file", 48 << 20
    file.write_bytes(os.urandom(size))
    # The pod has too little memory for the file, as in the bench.
    with volume.pod(file, 1 << 30, 32 << 20) as pod:
        if not pod.kind:
            pytest.skip("no control groups here")

        def read_after(prepare: Callable[[Path], None]) -> int:
            prepare(file)
            before = pod.bytes_read()
            command = pod.command(["dd", f"if={file}", "of=/dev/null", "bs=1M"])
            harness.run_side(command, dict(os.environ), prints_sample=False)
            return pod.bytes_read() - before

        assert read_after(volume.drop_cache) >= size
        assert read_after(volume.warm) < size / 20
        assert read_after(volume.warm) < size / 20
        assert read_after(volume.drop_cache) >= size


@pytest.mark.usefixtures("here")
def test_earlier_versions_without_an_equal_block_change_nothing(
    azure: Azure,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environments, "azcopy", lambda: (Path("azcopy"), {}))
    (file,) = runs.files("slow", 1, 33 << 20).iterdir()
    with upload.sink(0.0) as sink:
        made = slow_volume.comparison(azure, sink, file, volume.Pod("", (), ""))
        found = once(made, "ours, nothing to reuse, warm")
    # 8 versions with 5 blocks each.
    assert found["ours, nothing to reuse, warm"].facts["blocks looked up"] == 40


@pytest.mark.usefixtures("here")
def test_the_script_sends_what_ours_sends(mlflow_url: str) -> None:
    found = once(mlflow_server.comparison(mlflow_url, 2_500, 1 << 20), "ours", "script")
    assert set(found) == {"ours", "script"}


@pytest.mark.usefixtures("here")
def test_both_ways_bring_the_same_checkpoint(azure: Azure) -> None:  # noqa: F811
    found = once(server_copy.comparison(azure, 2 << 20), "ours", "download and upload")
    by_hand = found["download and upload"].facts
    assert by_hand["bytes sent"] > 2 << 20 and by_hand["bytes received"] > 2 << 20
    assert found["ours"].facts["bytes sent"] < 1 << 20


_COPIES = """\
#!{python}
import sys
from pathlib import Path
from azure.storage.blob import ContainerClient

folder, address, patterns = Path(sys.argv[2]), sys.argv[3], sys.argv[sys.argv.index("--include-pattern") + 1]
base, _, sas = address.partition("?")
*place, prefix = base.split("/", 4)
container = ContainerClient.from_container_url(f"{{'/'.join(place)}}?{{sas}}")
for name in patterns.split(";"):
    container.upload_blob(f"{{prefix}}/{{name}}", (folder / name).read_bytes())
"""


@pytest.mark.usefixtures("here")
def test_both_ways_register_the_same_files(
    azure: Azure,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    copies = tmp_path / "copies"
    copies.write_text(_COPIES.format(python=sys.executable))
    copies.chmod(0o755)
    monkeypatch.setattr(environments, "azcopy", lambda: (copies, {}))
    once(whole.comparison(azure, 1 << 20), "ours", "azcopy and a script")


@pytest.mark.nightly
@pytest.mark.usefixtures("here")
def test_what_is_frozen_is_neither_sent_nor_pulled_again(
    azure: Azure,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for module in (reuse, pull_reuse):
        monkeypatch.setattr(module, "DATA", tmp_path)
    monkeypatch.setattr(reuse, "SIZE", 72 << 20)
    # As in the bench: the list of versions shows the one before.
    azure.set_workspace(list_lag=0)
    sent = once(reuse.comparison(azure), "safetensors")
    assert 0 < sent["safetensors"].facts["% sent"] < 60
    pulled = once(pull_reuse.comparison(azure), "safetensors", "there already")
    assert 0 < pulled["safetensors"].facts["% of the bytes received"] < 60
    assert pulled["there already"].facts["% of the bytes received"] == 0


@pytest.mark.nightly
@pytest.mark.usefixtures("here")
def test_a_mirrored_run_is_mirrored_again_into_both_registries(azure: Azure) -> None:  # noqa: F811
    found = compare(nothing.comparison(azure, points=20, files=2, size=1000), 1, say=quiet)
    assert [one.name for one in found.sides] == ["ours, Azure ML", "ours, MLflow server", "import"]
    assert found.sides[0].facts["requests"] > 0


@pytest.mark.usefixtures("here")
def test_what_is_seeded_is_what_a_backfill_finds(azure: Azure) -> None:  # noqa: F811
    few, more = scale.backfill(azure, (1, 4), rounds=1)
    assert (few.size, more.size) == (1, 4)
    assert few.resident > 1 << 20


def test_the_slope_of_the_larger_half_is_the_growth(tmp_path: Path) -> None:
    def curve(exponent: float) -> Curve:
        # A start of two seconds hides the cost of the small sizes.
        sizes = [10**n for n in range(1, 7)]
        points = [
            Point(size, 2 + (size / 1e5) ** exponent * 100, 1 + size / 1e4, 50_000_000 + size // 10**5)
            for size in sizes
        ]
        return Curve("Points", "points", points)

    assert curve(1.0).exponent == pytest.approx(1.0, abs=0.02)
    assert curve(2.0).exponent == pytest.approx(2.0, abs=0.1)
    assert curve(2.0).cpu_exponent == pytest.approx(1.0, abs=0.02)
    growth = [curve(1.0).as_dict(), curve(2.0).as_dict()]
    said = report.growth_table({"curves": growth})
    assert "size^1.00, met" in said and "**not met**" in said and "1.00 ×, met" in said
    picture = tmp_path / "scale.svg"
    plot(growth, picture)
    first = picture.read_bytes()
    assert b"<svg" in first and len(first) < 100_000
    plot(growth, picture)
    assert picture.read_bytes() == first
