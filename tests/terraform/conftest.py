"""Fixtures: the real terraform on a copy of the module, and stand-ins for the programs that it runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# This folder is no package, and pytest's importlib mode does not put it on the path.
sys.path.insert(0, str(Path(__file__).parent))

from mirror_world import Osmo, Terraform, base_environment, copy_module, root_of
from real_helm import Helm

from azure_emulator.fixtures import azure, azure_emulator  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def initialized(tmp_path_factory):
    """A root module that calls the module, initialised once. init needs no network."""
    root = tmp_path_factory.mktemp("root")
    copy_module(root / "checkout")
    (root / "main.tf.json").write_text(json.dumps(root_of({}, {})))
    done = subprocess.run(
        ["terraform", "init", "-no-color", "-input=false"],
        cwd=root, env=base_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return root


@pytest.fixture
def programs(tmp_path):
    """A folder for PATH, and an environment with it in first place."""
    folder = tmp_path / "bin"
    folder.mkdir()
    env = base_environment()
    return folder, env | {"PATH": f"{folder}:{env['PATH']}"}


@pytest.fixture
def tf(initialized, tmp_path, programs):
    root = tmp_path / "root"
    shutil.copytree(initialized, root, symlinks=True)
    return Terraform(root, programs[1])


@pytest.fixture
def osmo(programs):
    return Osmo(*programs)


@pytest.fixture
def helm(programs):
    helm = Helm(*programs)
    yield helm
    helm.close()
