"""``aml-mirror-pull`` in a bare environment: it pulls and verifies, and its errors say what it cannot do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from builders.program import Call, clean_environment
from builders.runs import huggingface_run

ROOT = Path(__file__).parents[2]
HEAVY = ("mlflow", "azure.ai.ml", "azureml", "sqlalchemy", "awscrt", "fastapi", "pandas")


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in an environment with only its requirements, in the locked versions.

    Packages that are installed here are linked into it, so that the tests need no network.
    """
    folder = tmp_path_factory.mktemp("light")
    source = folder / "source"
    shutil.copytree(
        ROOT / "entrypoint", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    )
    # uv does the same as pip in a fifth of the time.
    uv = [Path(sys.executable).with_name("uv"), "--quiet", "--offline", "--no-cache"]
    build = [*uv, "build", "--wheel", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([*build, "-o", folder, source / "light"], check=True)
    (wheel,) = folder.glob("aml_mirror_pull-*.whl")
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    subprocess.run([*uv, "pip", "install", "--no-deps", "--python", python, wheel], check=True)
    for name in closure():
        link(name, Path(purelib))
    return venv / "bin" / "aml-mirror"


def closure() -> set[str]:
    """The distributions that the light one requires, directly and indirectly."""
    from importlib.metadata import distribution

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "entrypoint" / "light" / "pyproject.toml").read_text())["project"]
    pending, found = list(project["dependencies"]), set()
    while pending:
        wanted = Requirement(pending.pop())
        extras = ["", *wanted.extras]
        if wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        if wanted.name in found and not wanted.extras:
            continue
        found.add(wanted.name)
        for below in distribution(wanted.name).requires or ():
            inner = Requirement(below)
            if not inner.marker or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                inner.marker = None
                pending.append(str(inner))
    return found


def link(name: str, into: Path) -> None:
    """Put the files of an installed distribution into another environment."""
    from importlib.metadata import distribution

    found = distribution(name)
    for file in found.files or ():
        source = Path(str(found.locate_file(file)))
        if ".." in file.parts or not source.is_file():
            continue
        target = into / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.symlink(source, target)


def call(
    program: Path, *arguments: object, code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [program, *map(str, arguments)],
        env=clean_environment(**environment), cwd=program.parent, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


def test_it_pulls_and_verifies_without_mlflow(
    light: Path, aml_mirror: Call, mlflow_url: str, model_name: str, tmp_path: Path
) -> None:
    run = huggingface_run(tmp_path / "run-1", steps=(10,), points=1)
    aml_mirror("mirror", run, "--model-name", model_name, "--tracking-uri", mlflow_url)
    python = light.with_name("python")
    for name in HEAVY:
        imported = subprocess.run([python, "-c", f"import {name}"], capture_output=True, text=True)
        assert "ModuleNotFoundError" in imported.stderr, name
    target = tmp_path / "policy"
    done = call(light, "pull", f"{model_name}:1", target, "--refuse-pickle", "--tracking-uri", mlflow_url)
    assert json.loads(done.stdout)["verified"] is True
    assert (target / "model" / "model.safetensors").read_bytes() == (
        run / "checkpoint-10" / "model.safetensors"
    ).read_bytes()
    assert call(light, "verify", target).stdout.startswith("verified: ")
    (target / "model" / "config.json").write_text("{}")
    assert "wrong" in call(light, "verify", target, code=65).stdout
    # Azure's clients are installed, so only a workspace is missing.
    done = call(
        light, "pull", "reach:1", tmp_path / "other", "--retry-for", "0s", code=78,
        AZURE_SUBSCRIPTION_ID="0000", AZURE_RESOURCE_GROUP="g", AZUREML_WORKSPACE_NAME="w",
    )  # fmt: skip
    assert "subscription" in done.stderr.lower()
    for arguments, message in (
        (("mirror", run), "mirror is not part of aml-mirror-pull"),
        (("verify", f"{model_name}:1", "--tracking-uri", mlflow_url), "only verifies pulled folders"),
        (("pull", "a:1", tmp_path / "x", "--tracking-uri", "sqlite:///x.db"), "sqlalchemy"),
    ):
        assert message in call(light, *arguments, code=78).stderr


def test_what_it_requires_is_what_the_program_is_tested_with() -> None:
    full = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    light = tomllib.loads((ROOT / "entrypoint" / "light" / "pyproject.toml").read_text())["project"]
    assert full["requires-python"] == light["requires-python"]
    from packaging.requirements import Requirement

    names = {Requirement(text).name for text in full["dependencies"]}
    # requests comes with azure-core.
    assert {Requirement(text).name for text in light["dependencies"]} - names == {"requests"}
