"""plan.py: names in a model version, and names that are refused before anything is sent."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.uri import validate_path_is_safe

from aml_mirror.core.errors import DataError, UsageError
from aml_mirror.layouts.base import Checkpoint
from aml_mirror.pipeline.model_paths import artifact_path, model_paths
from aml_mirror.registries.names import check_names

PATHS = st.lists(st.text(min_size=1, max_size=5).filter(lambda part: "/" not in part), min_size=1).map(
    "/".join
)


def paths_of(path: str, *files: str) -> dict[str, str]:
    return model_paths(Checkpoint(path, 1, "final", files, files[:1]))


def test_the_checkpoints_folder_becomes_the_root_and_companions_keep_their_path() -> None:
    found = paths_of("ckpt/10/pretrained", "ckpt/10/pretrained/a/m.pt", "stats/norm.json", "ckpt/10/x.json")
    assert found == {
        "ckpt/10/pretrained/a/m.pt": "a/m.pt",
        "stats/norm.json": "stats/norm.json",
        "ckpt/10/x.json": "ckpt/10/x.json",
    }
    assert paths_of("nn/m.pth", "nn/m.pth", "params/a.yaml") == {
        "nn/m.pth": "m.pth",
        "params/a.yaml": "params/a.yaml",
    }
    for root in (".", ""):
        assert paths_of(root, "m.pt", "a/b.json") == {"m.pt": "m.pt", "a/b.json": "a/b.json"}


def test_a_folder_is_no_prefix_of_another_with_a_longer_name() -> None:
    assert paths_of("ckpt-1", "ckpt-1/m.pt", "ckpt-10/m.pt") == {
        "ckpt-1/m.pt": "m.pt",
        "ckpt-10/m.pt": "ckpt-10/m.pt",
    }


def test_a_companion_yields_where_it_wants_the_name_of_a_checkpoints_file() -> None:
    assert paths_of("z/ckpt", "z/ckpt/config.json", "config.json") == {
        "z/ckpt/config.json": "config.json",
        "config.json": "config~2.json",
    }


def test_only_the_name_changes_where_two_become_one_and_never_the_folder() -> None:
    found = paths_of(".", "v1.0/a#b", "v1.0/a?b", "v1.0/a_b")
    assert set(found.values()) == {"v1.0/a_b", "v1.0/a_b~2", "v1.0/a_b~3"}
    assert set(paths_of(".", "a#.b.pt", "a?.b.pt").values()) == {"a_.b.pt", "a_.b~2.pt"}


@given(folder=PATHS, files=st.lists(PATHS, min_size=1, max_size=6, unique=True))
def test_every_file_gets_one_safe_path_of_its_own(folder: str, files: list[str]) -> None:
    try:
        found = paths_of(folder, *files)
    except DataError as error:
        # A blob whose name is also a prefix of others, or a name that is too long.
        assert re.search("no file system can store both|file systems allow 255", error.message)
        return
    assert set(found) == set(files) and len(set(found.values())) == len(files)
    for path in found.values():
        validate_path_is_safe(path)


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("../../etc/passwd", "_/_/etc/passwd"),
        ("/etc/passwd", "_/etc/passwd"),
        ("a//b/./c", "a/_/b/_/c"),
        ("new\nline\x1b[2J\x85", "new_line_[2J_"),
        ("\u202etxt.exe\u2066\u200f\u061c", "_txt.exe___"),
        ("c:\\x", "c__x"),
        ('a#b%2e?*"<>|', "a_b_2e______"),
        ("épée 1/模型.pt", "épée 1/模型.pt"),
        ("..a/b..", "..a/b.."),
    ],
)
def test_what_an_artifact_store_cannot_keep_is_replaced(path: str, safe: str) -> None:
    assert artifact_path(path) == safe


@pytest.mark.parametrize("model", ["", " ", "a/b", "a:b", "a\nb", "\x7f", "x" * 257])
def test_a_model_name_that_mlflow_refuses_is_64(model: str) -> None:
    with pytest.raises(UsageError, match="model") as caught:
        check_names(model, "experiment")
    assert caught.value.exit_code == 64 and "--model-name" in caught.value.hint


@pytest.mark.parametrize("experiment", ["", "\t", "a\nb", "x" * 257])
def test_an_experiment_name_that_mlflow_refuses_is_64(experiment: str) -> None:
    with pytest.raises(UsageError, match="experiment"):
        check_names("model", experiment)


def test_names_that_people_use_are_taken() -> None:
    check_names("ACT pick & place (v2) é", "/Shared/team:act")
