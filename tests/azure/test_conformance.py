"""The suites of every registry and every source, for Azure ML and for blob storage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from azure_emulator.client import Azure
from builders.program import clean_environment
from builders.source_conformance import Place, SourceConformance
from this_process import here  # noqa: F401 - a fixture

SUITE = Path(__file__).with_name("azureml_conformance.py")
TESTS = 11


def test_azure_ml_passes_the_suite_of_every_registry(azure: Azure, tmp_path: Path) -> None:
    # Each test reads what it wrote immediately.
    azure.set_workspace(list_lag=0)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}", SUITE],
        cwd=SUITE.parent.parent.parent,
        env=clean_environment(**azure.env()),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{TESTS} passed" in done.stdout


class TestBlobs(SourceConformance):
    @pytest.fixture
    def place(self, here: Azure) -> Place:  # noqa: F811
        return lambda run: here.seed(run, "runs/conformance-run")
