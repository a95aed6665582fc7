"""Where the sides run: the program with its own lock, and the peers, each in a separate environment.

The environments are in ``.bench/`` and are created once. The lock's environment differs from that of the
tests, which has the full MLflow and other packages that take memory and time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.harness import BenchError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".bench"
DATA = FOLDER / "data"
SIDES = Path(__file__).resolve().parent / "sides"
AZCOPY_PACKAGE = "@azure-tools/azcopy-linux@10.32.2"
# As in pyproject.toml: looser pins resolve to sets of packages that fail at run time.
CLIENTS = (
    "azure-ai-ml==1.35.2",
    "azure-identity==1.27.0",
    "azureml-mlflow==1.62.0.post6",
    "mlflow-skinny==3.15.0",
)
READERS = ("setuptools<81", "tbparse==0.0.9", "tensorboard==2.21.0")


def scratch() -> Path:
    """The temporary folder of one call of the bench, so that two calls do not disturb each other."""
    folder = FOLDER / f"scratch-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def ours() -> Path:
    """The Python with the program and the packages of its lock, and nothing else."""
    folder = FOLDER / "ours"
    stamp = folder / "ready"
    lock = ROOT / "requirements.txt"
    if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
        _venv(folder)
        _pip(folder, "--no-deps", "--require-hashes", "-r", str(lock))
        _pip(folder, "setuptools>=77")
        _pip(folder, "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
        stamp.touch()
    return folder / "bin" / "python"


def peers() -> Path:
    """The Python with Azure's clients, the MLflow plugin, tensorboard and tbparse."""
    folder = FOLDER / "peers"
    stamp = folder / "ready"
    wanted = " ".join((*CLIENTS, *READERS))
    if not stamp.exists() or stamp.read_text() != wanted:
        _venv(folder)
        _pip(folder, "--upgrade", "pip")
        _pip(folder, *CLIENTS, *READERS)
        stamp.write_text(wanted)
    return folder / "bin" / "python"


def azcopy() -> tuple[Path, dict[str, str]]:
    """The binary of azcopy, from npm, and the variables that it needs.

    It is linked with libsecret, although an upload with a SAS does not use it. If the system has no
    libsecret, Debian's package is unpacked next to the binary.
    """
    folder = FOLDER / "npm"
    binary = folder / "node_modules/@azure-tools/azcopy-linux/dist/bin/azcopy_linux_amd64"
    if not binary.exists():
        folder.mkdir(parents=True, exist_ok=True)
        options = ("--no-audit", "--no-fund", "--loglevel=error", "--no-save")
        _run("npm", "install", "--prefix", str(folder), *options, AZCOPY_PACKAGE)
    binary.chmod(0o755)
    libraries = folder / "lib"
    for tries in range(2):
        found = sorted(libraries.rglob("libsecret-1.so.0"))
        variables = {"LD_LIBRARY_PATH": str(found[0].parent)} if found else {}
        done = subprocess.run(
            [binary, "--version"], env=environment(**variables), capture_output=True, text=True
        )
        if done.returncode == 0:
            return binary, variables
        if tries or not shutil.which("apt-get") or "libsecret" not in done.stderr:
            break
        libraries.mkdir(exist_ok=True)
        _run("apt-get", "download", "-q", "libsecret-1-0", folder=libraries)
        for package in libraries.glob("*.deb"):
            _run("dpkg", "-x", str(package), str(libraries))
    raise BenchError(
        f"azcopy does not start: {done.stderr.strip()}; on Debian, apt-get install libsecret-1-0"
    )


def curl() -> str:
    """The system's curl."""
    found = shutil.which("curl")
    if not found:
        raise BenchError("curl is needed: on Debian, apt-get install curl")
    return found


def environment(**more: str) -> dict[str, str]:
    """The environment of a side: no variable that any of the programs reads, except the given ones."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    # The places for caches and settings, so that a side does not use the user's home.
    quiet = {"HOME": str(FOLDER), "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    return {**kept, **quiet, **more}


def _venv(folder: Path) -> None:
    print(f"setting up {folder.relative_to(ROOT)} (once)", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))


def _pip(folder: Path, *what: str) -> None:
    python = str(folder / "bin" / "python")
    _run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *what)


def _run(*command: str, folder: Path | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise BenchError(f"{' '.join(command)[:200]} failed:\n{done.stdout}\n{done.stderr}")
