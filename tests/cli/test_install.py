"""``uv tool install`` and ``pipx install``: the program in its own environment, as on a laptop."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builders.program import clean_environment

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
INSTALLERS = {
    "uv": (UV, "tool", "install", "-q", "--constraints", "versions.txt", "--python", sys.executable),
    # pipx itself comes from uv.
    "pipx": (
        *(UV, "tool", "run", "-q", "--python", sys.executable, "pipx==1.18.4"),
        *("install", "--quiet", "--python", sys.executable, "--pip-args=--constraint=versions.txt"),
    ),
}


@pytest.mark.parametrize("installer", INSTALLERS)
def test_an_installer_gives_the_program_which_says_what_the_database_needs(
    installer: str, tmp_path: Path
) -> None:
    environment = clean_environment(
        UV_TOOL_DIR=str(tmp_path / "tools"),
        UV_TOOL_BIN_DIR=str(tmp_path / "bin"),
        PIPX_HOME=str(tmp_path / "pipx"),
        PIPX_BIN_DIR=str(tmp_path / "bin"),
        # The certificates that this machine trusts.
        **{name: value for name, value in os.environ.items() if name.startswith(("SSL_CERT", "PIP_"))},
    )
    # The versions that the program ships with, so that a new release of a library cannot change the test.
    # Without hashes, because pip would require one for the program itself, too.
    lock = (ROOT / "requirements.txt").read_text()
    (tmp_path / "versions.txt").write_text("\n".join(re.findall(r"^[\w.-]+(?:\[.*\])?==\S+", lock, re.M)))
    source = tmp_path / "aml-mirror"
    # In a copy, because building leaves files behind.
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    shutil.copytree(ROOT / "entrypoint", source / "entrypoint", ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([*INSTALLERS[installer], source], check=True, env=environment, cwd=tmp_path)
    program = tmp_path / "bin" / "aml-mirror"

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True
        )

    run = ROOT / "tests" / "data" / "runs" / "lerobot_act"
    planned = call("plan", run, "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["framework"] == "lerobot"

    done = call(run, "--model-name", "act", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
    assert done.returncode == 78
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "needs the Python package sqlalchemy" in line and "install aml-mirror[local]" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "mlflow.db").exists()
