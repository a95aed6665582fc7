"""A registry and a source from another package work on the command line like built-in ones."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from builders.program import clean_environment
from builders.runs import huggingface_run


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """The URI of a run in a zip archive."""
    run = huggingface_run(tmp_path / "run-1", points=3)
    return f"zip://{shutil.make_archive(str(tmp_path / 'run-1'), 'zip', run)}"


def call(environment: Path, *arguments: object, code: int = 0, **variables: str) -> Any:
    done = subprocess.run(
        [environment / "aml-mirror", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env=clean_environment(**variables),
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_a_run_is_mirrored_from_its_source_into_its_registry(
    plugin_environment: Path, archive: str, tmp_path: Path
) -> None:
    given = ("--source", archive, "--model-name", "reach", "--tracking-uri", f"shelf://{tmp_path}/shelf")
    plan = json.loads(call(plugin_environment, "plan", *given, "--json").stdout)
    assert not (tmp_path / "shelf").exists()
    receipt = json.loads(call(plugin_environment, "mirror", *given, "--shelf-label", "blue", "--json").stdout)
    assert (receipt["outcome"], receipt["model_uri"]) == ("mirrored", f"shelf://{tmp_path}/shelf/reach@1")
    assert (receipt["source"], receipt["run_id"]) == (archive, "run-1")
    assert receipt["manifest_sha256"] == plan["manifest_sha256"]
    version = json.loads((tmp_path / "shelf" / "models" / "reach" / "1.json").read_text())
    assert (version["label"], version["identity"]) == ("blue", plan["identity"])
    again = json.loads(call(plugin_environment, "mirror", *given, "--json").stdout)
    assert (again["outcome"], again["model_version"]) == ("already-mirrored", "1")

    target = given[4:]
    uri = receipt["model_uri"]
    assert json.loads(call(plugin_environment, "verify", uri, *target, "--json").stdout)["model_uri"] == uri
    status = json.loads(call(plugin_environment, "status", "--run-id", "run-1", *given[2:], "--json").stdout)
    assert [item["uri"] for item in status["versions"]] == [uri]
    doctor = call(plugin_environment, "doctor", *given).stdout
    assert f"the shelf {tmp_path}/shelf" in doctor


def test_backfill_fills_it(plugin_environment: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        huggingface_run(tmp_path / "runs" / name, points=3)
    given = ("backfill", "--source", tmp_path / "runs", "--model-name", "reach")
    target = ("--tracking-uri", f"shelf://{tmp_path}/shelf", "--json")
    lines = call(plugin_environment, *given, *target).stdout.splitlines()
    assert json.loads(lines[-1])["mirrored"] == 2
    lines = call(plugin_environment, *given, *target).stdout.splitlines()
    assert json.loads(lines[-1])["already_mirrored"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--model-name", "a_b", "--tracking-uri", "shelf:///tmp/s"), 64, "a model on a shelf"),
        (("--model-name", "a", "--tracking-uri", "shelf://host/s"), 78, "names no folder"),
        (("--model-name", "a", "--tracking-uri", "drawer:///s"), 78, "shelf:///DIR for a shelf"),
        (("--model-name", "a"), 78, "shelf:///DIR for a shelf"),
        (("--model-name", "a", "--tracking-uri", "shelf:///tmp/s", "--source", "rar:///x"), 64, "zip:///DIR"),
        (
            ("--model-name", "a", "--tracking-uri", "shelf:///tmp/s", "--source", "zip:///x"),
            64,
            "no zip archive",
        ),
    ],
)
def test_errors_are_its_own_and_name_it(
    plugin_environment: Path, archive: str, arguments: tuple[str, ...], code: int, said: str
) -> None:
    source = () if "--source" in arguments else ("--source", archive)
    assert said in call(plugin_environment, "mirror", *source, *arguments, code=code).stderr


def test_a_prefix_has_to_hold_folders(plugin_environment: Path, archive: str) -> None:
    given = ("--source", archive, "--model-name", "a", "--tracking-uri", "shelf:///tmp/s")
    assert "is one run" in call(plugin_environment, "backfill", *given, code=64).stderr


def test_help_lists_them(plugin_environment: Path) -> None:
    text = " ".join(call(plugin_environment, "mirror", "--help").stdout.split())
    for said in ("shelf:///DIR", "zip:///DIR/RUN.zip", "--shelf-label", "SHELF_LABEL"):
        assert said in text
