"""A .env decides where tokens and copies go, so it is read from the user's folder and never from a run's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from aml_mirror.core.run_folder import run_around, sign_of_a_run
from aml_mirror.formats.registry import weight_suffixes
from aml_mirror.layouts import find_runs
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.program import Call
from builders.runs import huggingface_run

DATA = Path(__file__).parents[1] / "data" / "runs"
COMMANDS = {
    "mirror": ("mirror", "--source", "{other}", "--model-name", "m"),
    "plan": ("plan", "--source", "{other}", "--model-name", "m"),
    "backfill": ("backfill", "--source", "{above}", "--model-name", "m"),
    "status": ("status", "--run-id", "r", "--model-name", "m"),
    "verify": ("verify", "m:1"),
    "doctor": ("doctor", "--model-name", "m"),
}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port that a hostile .env names. Connections to it are recorded."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


def nobody_connected(server: socket.socket) -> bool:
    try:
        server.accept()
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize("place", [".", "checkpoint-10", "logs/deep"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_takes_a_target_from_a_runs_folder(
    aml_mirror: Call, tmp_path: Path, listener: socket.socket, command: str, place: str
) -> None:
    run = huggingface_run(tmp_path / "all" / "run", steps=(10,), points=3)
    other = huggingface_run(tmp_path / "other", steps=(10,), points=3)
    cwd = run / place
    cwd.mkdir(parents=True, exist_ok=True)
    host = f"http://127.0.0.1:{listener.getsockname()[1]}"
    names = ("MLFLOW_TRACKING_URI", "AZURE_AUTHORITY_HOST", "HTTPS_PROXY")
    (cwd / ".env").write_text("".join(f"{name}={host}\n" for name in names))
    words = [word.format(other=other, above=tmp_path / "all") for word in COMMANDS[command]]
    done = aml_mirror(*words, cwd=cwd, code=78)
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert f"{cwd / '.env'} is in the run" in line and "run the command in another folder" in line
    assert nobody_connected(listener)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_persons_own_is_read_by_every_command(aml_mirror: Call, tmp_path: Path, command: str) -> None:
    """A project has folders of many runs next to it: outputs, wandb, lightning_logs."""
    huggingface_run(tmp_path / "all" / "run", steps=(10,), points=3)
    other = huggingface_run(tmp_path / "outputs" / "train" / "run", steps=(10,), points=3)
    for folder in (
        "wandb/run-20260101_000000-x/files",
        "lightning_logs/version_0/checkpoints",
        "1/a",
    ):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "lightning_logs/version_0/checkpoints/epoch=1.ckpt").write_bytes(b"x")
    (tmp_path / "train.py").write_text("")
    (tmp_path / ".env").write_text("MLFLOW_TRACKING_URI=htp://from-dotenv\n")
    words = [word.format(other=other, above=tmp_path / "all") for word in COMMANDS[command]]
    done = aml_mirror(*words, cwd=tmp_path, code=None)
    assert "is in the run" not in done.err
    assert "htp://from-dotenv" in done.err + done.out or command == "plan"


def test_the_source_need_not_look_like_a_run(aml_mirror: Call, tmp_path: Path) -> None:
    """The folder that a command reads counts as a run's, whatever is in it. So does the folder of all
    runs.
    """
    odd = tmp_path / "odd" / "deep"
    odd.mkdir(parents=True)
    (odd / ".env").write_text("MLFLOW_TRACKING_URI=http://127.0.0.1:9\n")
    for words in (
        ("plan", "--source", tmp_path / "odd"),
        ("doctor", "--source", odd),
        ("backfill", tmp_path, "--model-name", "m"),
        ("status", tmp_path / "odd", "--model-name", "m"),
    ):
        assert "is the source" in aml_mirror(*words, cwd=odd, code=78).err
    for name in ("OUTPUT_BASE", "OUTPUT_DIR"):
        assert "is the source" in aml_mirror("verify", "m:1", cwd=odd, code=78, **{name: str(tmp_path)}).err


def test_a_link_to_a_file_of_a_run_is_a_runs(aml_mirror: Call, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run", steps=(10,), points=3)
    (run / "planted").write_text("MLFLOW_TRACKING_URI=http://127.0.0.1:9\n")
    work = tmp_path / "work"
    work.mkdir()
    (work / ".env").symlink_to(run / "planted")
    assert "is in the run" in aml_mirror("verify", "m:1", cwd=work, code=78).err
    (tmp_path / "alias").symlink_to(run)
    (run / ".env").write_text("A=1\n")
    assert "is in the run" in aml_mirror("verify", "m:1", cwd=tmp_path / "alias", code=78).err


def test_an_empty_one_in_a_run_sets_nothing(aml_mirror: Call, tmp_path: Path) -> None:
    run = huggingface_run(tmp_path / "run", steps=(10,), points=3)
    (run / ".env").write_text("# nothing\n\n")
    assert "no such file" not in aml_mirror("plan", "--source", ".", cwd=run).err


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.iterdir() if path.is_dir()))
def test_every_real_run_is_recognised_in_all_its_folders(name: str) -> None:
    source = LocalSource(DATA / name)
    runs = find_runs(Tree(source, source.scan()))
    assert runs
    for run in runs:
        root = DATA / name / run.root
        assert sign_of_a_run(root), sorted(os.listdir(root))
        for folder in root.rglob("*"):
            assert not folder.is_dir() or run_around(folder)[0], folder


def test_every_suffix_of_weights_is_a_sign(tmp_path: Path) -> None:
    from aml_mirror.formats.base import Weights

    for suffix in weight_suffixes(Weights.ALWAYS):
        folder = tmp_path / suffix.strip(".")
        folder.mkdir()
        (folder / f"x{suffix}").write_bytes(b"")
        assert sign_of_a_run(folder) == f"x{suffix}"


def test_folders_that_everybody_shares_say_nothing_of_those_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "project").mkdir(parents=True)
    (home / "model.pt").write_bytes(b"")
    assert run_around(home / "project") == (str(home), "model.pt")
    monkeypatch.setenv("HOME", str(home))
    assert run_around(home / "project") == ("", "")
    assert run_around(home) == (str(home), "model.pt")
    monkeypatch.delenv("HOME")
    home.chmod(0o1777)
    assert run_around(home / "project") == ("", "")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("A=1\nthis is not one\n", 2),
        ("\n\n# x\n  =oops\n", 4),
        ("A=1\n\n\nB='never closed\nC=2\n", 4),
        ('A="x" y\n', 1),
        ("A=1\r\n\r\n? what\r\n", 3),
    ],
)
@pytest.mark.parametrize("command", ["plan", "verify", "doctor"])
def test_a_line_that_is_wrong_is_named(
    aml_mirror: Call, tmp_path: Path, content: str, line: int, command: str
) -> None:
    (tmp_path / ".env").write_bytes(content.encode())
    done = aml_mirror(command, cwd=tmp_path, code=78)
    (said,) = done.err.splitlines()
    assert said.startswith(f"error: {tmp_path / '.env'}, line {line}: not NAME=value; fix the line")
    assert "never closed" not in said
