"""Hostile run directories: larger than memory, with terminal escape codes in names, partly readable.

What each part refuses is in its own tests (test_local.py, test_tree.py, test_archives.py, test_events.py,
test_checkpoints.py, test_manifest.py, layouts/, safety/). These tests cover what only appears when the parts
work together, and the memory it takes.
"""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from aml_mirror.core.dotenv import MAX_DOTENV_BYTES, read_dotenv
from aml_mirror.core.errors import ConfigurationError, DataError, MirrorError, NotAllowed
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline import decide
from aml_mirror.pipeline.plan import Plan
from aml_mirror.sources import local
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from aml_mirror.support.progress import Console
from builders import torch_zip
from builders.permissions import public_folder, somebody_else
from builders.program import Call
from builders.runs import huggingface_run, write_weights
from builders.saved import safetensors

GIB = 1 << 30
# The memory limit of a plan for any run. A text of 64 MiB that is completely read, decoded and parsed would
# exceed it, but none of the sparse files here is read at all.
MOST = 96 << 20


@contextmanager
def held_at_most(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
        assert peak < limit, f"{peak >> 20} MiB"
    finally:
        tracemalloc.stop()


def sparse(path: Path, head: bytes, size: int, tail: bytes = b"") -> None:
    """A file of ``size`` bytes that takes no disk space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(head)
        stream.truncate(size)
        stream.seek(size - len(tail))
        stream.write(tail)


def planned(folder: Path, **more: object) -> Plan:
    settings = Settings(source=str(folder), **more)  # type: ignore[arg-type]
    (plan,) = decide.plans(settings, Console(io.StringIO()))
    return plan


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "trainer_state.json",
        "model.safetensors.index.json",
        "../all_results.json",
        "../config.yaml",
    ],
)
@pytest.mark.parametrize("tail", [b"}", b"\0"], ids=["closed", "open"])
def test_a_gibibyte_of_json_costs_no_memory(tmp_path: Path, name: str, tail: bytes) -> None:
    run = huggingface_run(tmp_path / "run", steps=(10, 20), points=3)
    sparse(run / "checkpoint-20" / name, b'{"a": "', GIB, tail)
    with held_at_most(MOST):
        try:
            decided = planned(run)
        except MirrorError as error:
            assert error.exit_code == 65
        else:
            assert decided.checkpoint.path in ("checkpoint-10", "checkpoint-20")


@pytest.mark.parametrize("length", [1 << 60, (1 << 64) - 1, 1 << 32, GIB])
def test_a_length_of_any_size_costs_no_memory(tmp_path: Path, length: int) -> None:
    run = huggingface_run(tmp_path / "run", steps=(10, 20), points=3)
    sparse(run / "checkpoint-20" / "model.safetensors", struct.pack("<Q", length) + b"{", GIB)
    for index in (1, 2):
        events = run / "runs" / "Jan02_03-04-05_host" / f"events.out.tfevents.176000000{index}.host.1.0"
        sparse(events, struct.pack("<QI", length, 0), GIB)
    with held_at_most(MOST):
        assert planned(run).checkpoint.path == "checkpoint-10"


def test_what_a_listing_holds_of_each_file(tmp_path: Path) -> None:
    count = 20_000
    for folder in range(20):
        (tmp_path / f"data-{folder:03}").mkdir()
        for number in range(count // 20):
            (tmp_path / f"data-{folder:03}" / f"episode_{number:06}.parquet").touch()
    tracemalloc.start()
    try:
        source = LocalSource(tmp_path)
        tree = Tree(source, source.scan())
        assert len(tree.files) == count
        list(tree.folders)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / count < local.ENTRY_BYTES
    assert local.MAX_ENTRIES * local.ENTRY_BYTES <= 1 << 30
    assert peak < 2 * held


_NAMES = (
    "model_1\nerror: mirrored as version 9 (models:/m/9).pt",
    "model_2\x1b[2J\x1b]0;title\x07.pt",
    "model_3\u202egnp.tp",
    "model_4\u2028x.pt",
    "model_5\x7f\x85.pt",
    "-rf model_6 .pt",
    "model_7%2e%2e%2f#?.pt",
)
_COMMANDS = ("\x1b", "\x07", "\u202e", "\u2028", "\x7f", "\x85", "\r")


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A run whose folders and files have such names. The newest checkpoint is truncated and has the worst
    name.
    """
    root = tmp_path / "runs" / "run\nfound 1 version\x1b[31m"
    for index, name in enumerate(_NAMES):
        torch_zip.save(root / name, {"iter": index})
    torch_zip.cut(torch_zip.save(root / "model_9999\x1b[2J\nmirrored\u202e.pt", {"iter": 9}))
    (root / "link\x1b[2J\n").symlink_to("/etc")
    return root


def assert_harmless(text: str, lines: int | None = None) -> None:
    for command in _COMMANDS:
        assert command not in text, repr(text)
    assert not [
        line for line in text.splitlines() if line.startswith(("mirrored as", "error: mirrored", "found 1"))
    ]


def test_names_command_no_terminal_and_forge_no_line(named: Path, aml_mirror: Call) -> None:
    # What a user sees on a terminal (the plan is the same on a pipe), and what is written to a log. No name
    # shows which of them is the final one, so the error names all of them.
    done = aml_mirror("plan", "--source", named, "--framework", "generic", code=64)
    assert_harmless(done.out)
    assert_harmless(done.err)
    assert "\\x1b[2J" in done.err
    done = aml_mirror("plan", "--source", named, "--framework", "generic", "--checkpoint", _NAMES[1])
    assert_harmless(done.out)
    assert_harmless(done.err)
    assert "\\x1b[2J" in done.out
    done = aml_mirror(
        "plan", "--source", named, "--framework", "generic", "--checkpoint", "\x1b[2J\n", code=64
    )
    assert_harmless(done.out)
    assert_harmless(done.err)


def test_names_arrive_as_what_every_store_can_keep(
    named: Path, aml_mirror: Call, mlflow_url: str, client: MlflowClient, model_name: str
) -> None:
    target = ("--tracking-uri", mlflow_url, "--model-name", model_name, "--retry-for", "30s")
    done = aml_mirror(
        "--source", named, "--run-id", "r", "--framework", "generic", "--checkpoint", _NAMES[6], *target
    )
    assert_harmless(done.out + done.err)
    receipt = done.json
    assert receipt["outcome"] == "mirrored"
    (found,) = client.list_artifacts(receipt["mlflow_run_id"], "model")
    assert found.path.isprintable()
    done = aml_mirror("verify", f"{model_name}:1", "--tracking-uri", mlflow_url)
    assert_harmless(done.out + done.err)
    card = client.get_model_version(model_name, "1").description
    for command in _COMMANDS:
        assert command not in card


@pytest.fixture
def public() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder


def readable_run(folder: Path) -> Path:
    """A run that everybody may read. safetensors writes files that only their owner may read."""
    run = huggingface_run(folder / "run", steps=(10, 20), points=3)
    for path in run.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return run


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_the_checkpoint_that_may_not_be_read_is_77_and_named(public: Path, name: str) -> None:
    run = readable_run(public)
    (run / "checkpoint-20" / name).chmod(0)
    with (
        somebody_else(),
        pytest.raises(NotAllowed, match=f"checkpoint-20/{name} cannot be read by uid") as caught,
    ):
        planned(run)
    assert caught.value.exit_code == 77


def test_a_file_beside_the_checkpoint_that_may_not_be_read_stops_nothing(public: Path) -> None:
    run = readable_run(public)
    (run / "checkpoint-10" / "model.safetensors").chmod(0)
    with somebody_else():
        decided = planned(run)
    assert decided.checkpoint.path == "checkpoint-20"


@pytest.mark.parametrize("how", ["link", "fifo", "other file", "shorter", "longer"])
def test_a_file_that_changes_between_judging_and_hashing_is_65(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    run = huggingface_run(tmp_path / "run", steps=(10,), points=3)
    weights = run / "checkpoint-10" / "model.safetensors"
    safetensors(tmp_path / "secret")
    real = decide.inspect

    def swapped(*arguments: object) -> object:
        found = real(*arguments)  # type: ignore[arg-type]
        data = weights.read_bytes()
        if how == "shorter":
            weights.write_bytes(data[:-1])
        elif how == "longer":
            weights.write_bytes(data + b"x")
        else:
            weights.unlink()
            if how == "link":
                weights.symlink_to(tmp_path / "secret")
            elif how == "fifo":
                os.mkfifo(weights)
            else:
                weights.write_bytes(data)
        return found

    monkeypatch.setattr(decide, "inspect", swapped)
    with pytest.raises(DataError, match="changed"):
        planned(run)


def test_a_dotenv_in_the_run_says_nothing(tmp_path: Path, aml_mirror: Call) -> None:
    # It would decide where our tokens go.
    run = huggingface_run(tmp_path / "run", steps=(10,), points=3)
    (run / ".env").write_text("MLFLOW_TRACKING_URI=http://127.0.0.1:9\nHTTPS_PROXY=http://127.0.0.1:9\n")
    for cwd in (run, run / "checkpoint-10"):
        (cwd / ".env").write_text("MLFLOW_TRACKING_URI=http://127.0.0.1:9\n")
        done = aml_mirror("--source", run, "--model-name", "m", cwd=cwd, code=78)
        assert ".env is in the run to be mirrored" in done.err
    # A .env above the run is the user's own.
    (run / ".env").unlink()
    (tmp_path / ".env").write_text("AZUREML_MODEL_NAME=m-of-mine\n")
    assert "m-of-mine" in aml_mirror("plan", "--source", run, cwd=tmp_path).out


def test_a_dotenv_of_any_size_costs_no_memory(tmp_path: Path) -> None:
    sparse(tmp_path / ".env", b"A=1\n", GIB)
    with held_at_most(1 << 20), pytest.raises(ConfigurationError, match="is larger than"):
        read_dotenv(tmp_path)
    sparse(tmp_path / ".env", b"A=1\n#", MAX_DOTENV_BYTES)
    assert read_dotenv(tmp_path)["A"] == "1"


def test_json_in_names_does_not_break_the_receipt(tmp_path: Path, aml_mirror: Call) -> None:
    run = huggingface_run(
        tmp_path / 'run"}\n{"schema":"aml-mirror/receipt/v1","exit_code":0', steps=(10,), points=3
    )
    write_weights(run / "checkpoint-10" / 'a"\\\n.safetensors')
    done = aml_mirror("plan", "--source", run, "--json")
    assert len(done.out.splitlines()) == 1
    assert json.loads(done.out)["schema"] == "aml-mirror/plan/v1"
    done = aml_mirror("--source", run, "--model-name", "a/b", "--tracking-uri", "http://127.0.0.1:9", code=64)
    assert done.json["exit_code"] == 64
