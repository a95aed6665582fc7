"""An environment with a third-party package."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from filelock import FileLock

PACKAGE = Path(__file__).parent / "third_party"


@pytest.fixture(scope="session")
def plugin_environment(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The ``bin`` folder of an environment with aml-mirror and the package; made once for all workers."""
    own = tmp_path_factory.getbasetemp()
    # The folder above a session's own has files of other sessions, also of other checkouts.
    shared = own if worker_id == "master" else own.parent
    folder = shared / "plugin-environment"
    with FileLock(shared / "plugin-environment.lock"):
        if not (folder / "ready").exists():
            venv.create(folder, with_pip=False, symlinks=True)
            (site,) = folder.glob("lib/python*/site-packages")
            # All that aml-mirror needs is in the environment of the tests: it is looked up there. addsitedir
            # reads that one's own .pth files too, so that the program installed in place is found.
            (site / "tests.pth").write_text(
                f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n"
            )
            python = folder / "bin" / "python"
            source = folder / "source"
            # setuptools leaves its build folder next to pyproject.toml.
            subprocess.run(["cp", "-r", PACKAGE, source], check=True)
            subprocess.run(
                [
                    *(Path(sys.executable).with_name("uv"), "--quiet", "--offline", "--no-cache", "pip"),
                    *("install", "--no-deps", "--no-build-isolation", "--python", python, source),
                ],
                check=True,
            )
            (folder / "bin" / "aml-mirror").write_text(
                f"#!{python}\nimport sys\nfrom aml_mirror.cli.main import main\nsys.exit(main())\n"
            )
            (folder / "bin" / "aml-mirror").chmod(0o755)
            (folder / "ready").touch()
    return folder / "bin"
