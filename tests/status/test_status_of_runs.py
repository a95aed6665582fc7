"""aml-mirror status of a folder of runs: one row per run, the selection, and the progress."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pytest

from aml_mirror.core.errors import SourceNotFound, UsageError
from aml_mirror.status.prefix_status import Statuses, statuses
from aml_mirror.status.status_text import table
from aml_mirror.support.progress import Console
from builders.backfills import backfill, settings_of
from builders.program import Call
from builders.runs import small_run


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Three runs, two of them in a group."""
    for seed, path in enumerate(("one", "sweep/seed0", "sweep/seed1")):
        small_run(tmp_path / "base" / path, seed)
    return tmp_path / "base"


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


def asked(*arguments: str | Path, stream: io.StringIO | None = None) -> Statuses:
    return statuses(settings_of(*arguments), Console(stream or io.StringIO()))


def names(*arguments: str | Path) -> list[str]:
    return [run.document["run_id"] for run in asked(*arguments).runs]


def test_status_of_a_prefix(base: Path, aml_mirror: Call, database: str) -> None:
    target = ("--model-name", "m", "--tracking-uri", database)
    given = ("--source", base, *target)
    backfill(*given, "--exclude-run", "sweep/seed1")
    done = aml_mirror("status", *given, "--json", code=65)
    found = {line["run_id"]: line for line in map(json.loads, done.out.splitlines())}
    assert sorted(found) == ["one", "sweep/seed0", "sweep/seed1"]
    assert [item["uri"] for item in found["one"]["versions"]] == ["models:/m/1"]
    assert found["sweep/seed0"]["missing"] is None
    assert "no complete version" in found["sweep/seed1"]["missing"]

    # Text output: the registry once, one row per run, and a line that counts them.
    shown = aml_mirror("status", *given, code=65)
    first, head, *rows, last = shown.out.splitlines()
    assert first == f"{base} in MLflow at {database}, model m"
    assert head.split() == ["RUN", "STATE", "VERSION", "CHECKPOINT", "STEP"]
    assert [row.split() for row in rows] == [
        ["one", "mirrored", "1", "checkpoint-1", "1"],
        ["sweep/seed0", "mirrored", "2", "checkpoint-1", "1"],
        ["sweep/seed1", "missing"],
    ]
    assert {row.index("mi") for row in rows} == {head.index("STATE")}
    assert last == "3 runs: 2 mirrored, 1 missing"
    assert shown.err == ""
    page = (Path(__file__).parents[2] / "entrypoint" / "backfill.md").read_text()
    documented = shown.out.replace(str(base), "runs").replace(database, "http://mlflow.example:5000")
    assert f"```text\n{documented.replace('model m', 'model reach')}```" in page

    # The same as a page. The row of the missing run says why.
    weights = base / "sweep" / "seed1" / "checkpoint-1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    written = aml_mirror("status", *given, "--html", "runs.html", cwd=base.parent, code=65)
    assert (written.out, written.err) == ("3 runs: 2 mirrored, 1 missing\n", "wrote runs.html\n")
    text = (base.parent / "runs.html").read_text()
    rows = {row[0]: row for row in json.loads(re.search('id="data">(.*)</script>', text)[1])}  # type: ignore[index]
    assert rows["one"][1:7] == ["mirrored", "huggingface", "m", [["1", "models:/m/1", ""]], "checkpoint-1", 1]
    assert rows["sweep/seed1"][1] == "missing" and "no complete checkpoint" in rows["sweep/seed1"][8]
    for place, code in (
        ("one/x.html", 64),
        ("sweep/seed1/checkpoint-1/x.html", 64),
        ("sweep", 64),
        ("no/x", 66),
    ):
        assert "--html" in aml_mirror("status", *given, "--html", base / place, code=code).err
    assert not list(base.rglob("*.html"))

    # What --match and --since select, as in a backfill.
    assert names(*given, "--match", "sweep") == ["sweep/seed0", "sweep/seed1"]
    assert names(*given, "--match", "*seed1", "--match", "one") == ["one", "sweep/seed1"]
    assert names(*given, "--exclude-run", "sweep") == ["one"]
    assert names(*given, "--since", "1h") == ["one", "sweep/seed0", "sweep/seed1"]
    assert names(*given, "--since", "2999-01-01") == []
    assert names(*given, "--since", "2999-01-01", "--match", "sweep/seed0") == []
    with pytest.raises(SourceNotFound, match="no run matches --match swep") as nothing:
        names(*given, "--match", "swep")
    assert "there are: sweep" in nothing.value.hint
    shutil.rmtree(base / "sweep")
    assert names(*given, "--match", "one") == ["one"]

    # A single run works as before, by its folder or its id. Nothing can be selected from one run.
    alone = aml_mirror("status", base / "one", *target)
    assert alone.out.splitlines()[0] == f"one in MLflow at {database}"
    assert aml_mirror("status", "--run-id", "sweep/seed0", *target, "--json").json["versions"]
    for words in (("--source", base / "one"), ("--run-id", "one")):
        with pytest.raises(UsageError, match="--match filters the runs of a folder"):
            statuses(settings_of(*target, "--match", "one", *words, command="status"), Console(io.StringIO()))


def test_a_terminal_shows_which_run_is_at_work(base: Path, database: str) -> None:
    stream = Terminal()
    given = ("--source", base, "--model-name", "m", "--tracking-uri", database)
    found = asked(*given, stream=stream)
    assert "missing" in table(found.prefix, list(found.runs))
    shown = [part.removesuffix("\r\x1b[K") for part in stream.getvalue().split("\r\x1b[K")]
    assert shown == ["1 of 2: one", "2 of 2: sweep/seed0", "2 of 2: sweep/seed1", ""]
