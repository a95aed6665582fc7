"""Versions pulled from a real MLflow server. The pull is killed at any request and any write, and disturbed
at every stage.

DIR is complete or absent, and the next pull continues with the data on disk. `make test-kill` and `make
test-faults` run every cell, `make test` a sample.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from aml_mirror.core.settings import Settings
from aml_mirror.pull.pull import Pulled, pull
from aml_mirror.pull.pulled_folder import RECORD, PulledFolder
from aml_mirror.pull.verify_folder import verify_folder
from aml_mirror.support.progress import Console
from builders import matrix
from builders.forks import MLFLOW, forks
from builders.killing import die_at_change, in_a_child, killed_at_request
from builders.program import Call, clean_environment
from builders.proxy import CUT, DROP, Length, Proxy
from builders.runs import huggingface_run

FILES = ("model.safetensors", "config.json")
QUIET = Console(io.StringIO())


@dataclass(frozen=True)
class Mirrored:
    """A version on the server, and the files that a pull of it must bring."""

    reference: str
    contents: dict[str, bytes]


@pytest.fixture(scope="module")
def versions(
    mlflow_url: str, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> tuple[Mirrored, Mirrored]:
    """Two versions of one model, of several parts each."""
    root = tmp_path_factory.mktemp("pulled")
    run = huggingface_run(root / f"run-{worker_id}", steps=(10, 20), points=2, size=1100)
    model = f"pulled-{os.getpid()}"
    for step in (10, 20):
        given = ["mirror", str(run), "--checkpoint", f"checkpoint-{step}", "--model-name", model]
        process = forks(MLFLOW, clean_environment).start(
            [*given, "--tracking-uri", mlflow_url], root, clean_environment()
        )
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    first, second = (
        Mirrored(
            f"{model}:{number}",
            {name: (run / f"checkpoint-{step}" / name).read_bytes() for name in FILES},
        )
        for number, step in ((1, 10), (2, 20))
    )  # fmt: skip
    return first, second


def contents(target: Path) -> dict[str, bytes]:
    root = target / "model"
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def assert_whole(target: Path, *versions: Mirrored) -> None:
    """DIR is one of the versions, to the last byte."""
    assert contents(target) in [version.contents for version in versions]
    assert verify_folder(target, "", QUIET).holds
    assert not [path for path in target.parent.iterdir() if path.name.startswith(f".{target.name}.")]


def own_files(target: Path) -> dict[str, bytes]:
    """What is stored beside the version: its manifest, its card, …"""
    return {path.name: path.read_bytes() for path in (target / "mirror").iterdir() if path.name != RECORD}


def brought(target: Path) -> int:
    """How many bytes of the version's files are next to DIR."""
    folder = PulledFolder(str(target)).new / "model"
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("part", matrix.PARTS)
def test_killed_at_any_request(
    versions: tuple[Mirrored, Mirrored],
    mlflow_url: str,
    aml_mirror: Call,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    part: int,
) -> None:
    version, _ = versions
    given = ["pull", version.reference]
    total = killed_at_request([*given, str(tmp_path / "count")], mlflow_url, tmp_path, None).requests
    assert total >= 10
    for at in matrix.sample(total, 4, part):
        target = tmp_path / f"killed-{at.number}-{at.moment}"
        struck = killed_at_request([*given, str(target)], mlflow_url, tmp_path, at).struck
        assert struck and not target.exists()
        there = brought(target)
        done = aml_mirror(*given, target, "--json", "--tracking-uri", mlflow_url).json
        assert done["bytes_kept"] == there
        assert_whole(target, version)
        name = struck.partition("?")[0].rpartition("/")[2]
        row = "listing" if name == "artifacts" else name
        matrix.note(request, "pull killed at a request to an MLflow server", row, at.moment, "whole")


@pytest.mark.parametrize("replaces", [False, True])
def test_killed_at_any_change_of_the_disk(
    versions: tuple[Mirrored, Mirrored],
    mlflow_url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    replaces: bool,
) -> None:
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    old, new = versions

    def pulled(version: Mirrored, target: Path) -> Pulled:
        settings = Settings(
            folder=str(target),
            reference=version.reference,
            tracking_uri=mlflow_url,
            retry_seconds=600.0,
            replace=replaces,
        )
        return pull(settings, QUIET)

    number = 0
    is_killed = True
    while is_killed:
        number += 1 if matrix.WHOLE else 11
        target = tmp_path / f"dir-{number}" / "policy"
        if replaces:
            pulled(old, target)

        def attempt(target: Path = target, number: int = number) -> None:
            die_at_change(number)
            pulled(new, target)

        status = in_a_child(attempt)
        is_killed = os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGKILL if is_killed else os.WEXITSTATUS(status) == 0
        if target.exists():
            assert_whole_but_for_leftovers(target, *((old, new) if replaces else (new,)))
        there = brought(target)
        done = pulled(new, target)
        assert done.outcome == "already-pulled" or done.fetched.kept == there, number
        assert_whole(target, new)
        what = "killed" if is_killed else "not reached"
        title = "pull killed at a change of the disk, from an MLflow server"
        row = f"change {number // 10 * 10}-{number // 10 * 10 + 9}"
        matrix.note(request, title, row, "replaced" if replaces else "new", f"{what}, {done.outcome}")
    assert number > 30


def assert_whole_but_for_leftovers(target: Path, *versions: Mirrored) -> None:
    """Check that DIR is one of the versions, whatever a killed pull left next to it."""
    assert contents(target) in [version.contents for version in versions]
    assert verify_folder(target, "", QUIET).holds


@dataclass(frozen=True)
class Fault:
    """What happens to this number of requests of a stage (0: all of them), and how a pull may end then."""

    what: int | str | Length
    times: int = 1
    when: str = "before"
    codes: tuple[int, ...] = (0,)


FAULTS = {
    "429": Fault(429, 2),
    "500": Fault(500, 3),
    "503": Fault(503, 3),
    "dropped": Fault(DROP, 3),
    "answer lost": Fault(DROP, when="after"),
    "answer cut": Fault(CUT, when="after"),
    "length +7": Fault(Length(7), when="after"),
    "length -7": Fault(Length(-7), when="after"),
    "503 stays": Fault(503, 0, codes=(75,)),
    "403 stays": Fault(403, 0, codes=(77,)),
}
STAGES = {
    "version": "/model-versions/get$",
    "where its files are": "/get-download-uri$",
    "run": "/runs/get$",
    "listing": "/artifacts$",
    "manifest": "/manifest.json$",
    "bytes": "/model.safetensors$",
    "own file": "/MODEL_CARD.md$",
}
CELLS = [(stage, fault) for stage in STAGES for fault in FAULTS]
if os.environ.get("FAULTS") != "all":
    CELLS = [*CELLS[2::9], ("own file", "length -7")]


def test_disturbed_at_every_stage(
    versions: tuple[Mirrored, Mirrored],
    mlflow_url: str,
    aml_mirror: Call,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    version, _ = versions
    undisturbed = aml_mirror(
        "pull", version.reference, tmp_path / "dir", "--json", "--tracking-uri", mlflow_url
    )
    assert undisturbed.json["outcome"] == "pulled"
    kept = own_files(tmp_path / "dir")
    for number, (stage, name) in enumerate(CELLS):
        target, fault = tmp_path / f"dir-{number}", FAULTS[name]
        acted: list[int] = []

        def interfere(
            now: int, when: str, method: str, path: str, stage: str = stage, fault: Fault = fault,
            acted: list[int] = acted,
        ) -> int | str | Length | None:  # fmt: skip
            if when != fault.when or not re.search(STAGES[stage], path.partition("?")[0]):
                return None
            acted.append(now)
            return None if fault.times and len(acted) > fault.times else fault.what

        with Proxy(mlflow_url) as proxy:
            proxy.headers = {"Retry-After": "0"}
            proxy.interfere = interfere
            patience = "600s" if fault.codes == (0,) else "1s"
            given = ["pull", version.reference, target, "--json", "--tracking-uri", proxy.url]
            first = aml_mirror(*given, "--retry-for", patience, code=None)
        cell = (stage, name, first.code, first.err)
        assert acted, cell
        assert first.code in fault.codes, cell
        if first.code:
            assert not target.exists(), cell
            assert len(first.err.strip().splitlines()) <= 3 and "Traceback" not in first.err, cell
            assert json.loads(first.out.splitlines()[-1])["exit_code"] == first.code
            there = brought(target)
            done = aml_mirror("pull", version.reference, target, "--json", "--tracking-uri", mlflow_url).json
            assert done["bytes_kept"] == there, cell
        assert_whole(target, version)
        # The pull notices a truncated card or signature.
        assert own_files(target) == kept, cell
        matrix.note(request, "pull disturbed, from an MLflow server", stage, name, str(first.code))
