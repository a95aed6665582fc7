"""aml-mirror completion: what real shells offer."""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from aml_mirror.cli.commands import COMMANDS
from aml_mirror.cli.commands.completion_scripts import SHELLS, script
from aml_mirror.core.options import TABLE
from builders.program import Call, clean_environment

ASK = """
source ./script
COMP_WORDS=("$@")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_aml_mirror
echo "${COMPREPLY[@]}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a run, a key, and the script that bash reads."""
    (tmp_path / "runs" / "ppo" / "checkpoint-10").mkdir(parents=True)
    (tmp_path / "release.pem").write_text("")
    (tmp_path / "script").write_text(script("bash", COMMANDS))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (["st"], ["status"]),
        (["mirror", "--fr"], ["--framework"]),
        (["--fr"], ["--framework"]),
        (["--json", "--fr"], ["--framework"]),
        (["verify", "--block"], []),
        (["backfill", "--sh"], ["--shard"]),
        (["mirror", "--framework", "ler"], ["lerobot"]),
        (["mirror", "--framework", "=", "sk"], ["skrl"]),
        (["plan", "ru"], ["runs"]),
        (["plan", "runs/ppo", "--checkpoint", "runs/ppo/"], ["runs/ppo/checkpoint-10"]),
        (["--checkpoint", "be"], ["best"]),
        (["mirror", "--sign-key", "rel"], ["release.pem"]),
        (["mirror", "--source", ""], ["runs"]),
        (["mirror", "--tag", ""], []),
        (["completion", ""], list(SHELLS)),
    ],
)
def test_what_bash_offers(folder: Path, line: list[str], offered: list[str]) -> None:
    done = subprocess.run(
        ["bash", "-c", ASK, "bash", "aml-mirror", *line],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == offered, done.stderr


LINES = [
    ("mirror --fr", "mirror --framework"),
    ("st", "status"),
    ("mirror --framework=ler", "mirror --framework=lerobot"),
    ("mirror --sign-key rel", "mirror --sign-key release.pem"),
    ("plan ru", "plan runs"),
    ("plan runs/ppo --checkpoint runs/ppo/chec", "plan runs/ppo --checkpoint runs/ppo/checkpoint-10"),
    ("completion fi", "completion fish"),
]


def test_what_zsh_completes(folder: Path) -> None:
    """zsh's line editor works only on a terminal, so each line is typed, completed with Tab, and run."""
    (folder / "aml-mirror.zsh").write_text(script("zsh", COMMANDS))
    (folder / "setup").write_text(
        "PROMPT=; autoload -Uz compinit; compinit -u -D\nsource ./aml-mirror.zsh\n"
        'aml-mirror() { print -r -- "ran: $*" }\n'
    )
    typed = ["source ./setup", *(f"aml-mirror {line}\t" for line, _ in LINES), "exit"]
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [_program("zsh"), "-f", "-i"], cwd=folder, stdin=slave, stdout=slave, stderr=slave,
        env=clean_environment(TERM="dumb", HOME=str(folder)), start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    os.write(master, "".join(f"{line}\r" for line in typed).encode())
    shown = b""
    # Linux reports the other end's close as EIO.
    with suppress(OSError):
        while part := os.read(master, 4096):
            shown += part
    assert process.wait(600) == 0
    ran = re.findall(r"ran: ([^\r\n]*)", shown.decode())
    assert [line.rstrip("/ ") for line in ran] == [completed for _, completed in LINES], shown


def test_what_fish_offers(folder: Path) -> None:
    (folder / "aml-mirror.fish").write_text(script("fish", COMMANDS))
    asked = "".join(f"complete -C {shlex.quote('aml-mirror ' + line)}; echo DONE;" for line, _ in LINES)
    done = subprocess.run(
        [_program("fish"), "--no-config", "-c", f"source ./aml-mirror.fish; {asked}"],
        cwd=folder, env=clean_environment(HOME=str(folder)), capture_output=True, text=True,
    )  # fmt: skip
    offered = [
        [line.partition("\t")[0].rstrip("/") for line in part.strip().splitlines()]
        for part in done.stdout.split("DONE\n")[:-1]
    ]
    assert offered == [[completed.rpartition(" ")[2]] for _, completed in LINES], done.stdout + done.stderr


def _program(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.fail(f"{shell} is needed: apt-get install {shell}", pytrace=False)
    return found


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_in_every_script(shell: str, aml_mirror: Call) -> None:
    printed = aml_mirror("completion", shell).out
    assert printed == script(shell, COMMANDS) + "\n"
    for command in COMMANDS:
        assert command.name in printed
    for option in TABLE:
        if option.flag.startswith("--") and option.commands:
            assert (f"-l {option.flag[2:]} " if shell == "fish" else option.flag) in printed
    if program := shutil.which(shell):
        done = subprocess.run([program, "-n"], input=printed, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_it_needs_no_settings(aml_mirror: Call, tmp_path: Path) -> None:
    """A shell's start-up file calls it wherever the shell is opened, even in a run or next to a broken
    .env.
    """
    (tmp_path / ".env").write_text("? broken\n")
    (tmp_path / "model.pt").write_bytes(b"")
    assert aml_mirror("completion", "fish", cwd=tmp_path, RUN_ID="a\nb").out.startswith("complete -c")
    assert "no shell is named; one of: bash, zsh, fish" in aml_mirror("completion", cwd=tmp_path, code=64).err
