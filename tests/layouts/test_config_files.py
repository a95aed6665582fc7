"""Configuration files: plain data from any file of a framework or an attacker, and never a crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aml_mirror.layouts.config_files import MAX_CONFIG_BYTES, read_json, read_mapping, read_yaml
from aml_mirror.sources.tree import Tree

MakeTree = Callable[[Path], Tree]


def parsed(tree: MakeTree, folder: Path, text: str | bytes) -> tuple[Any, list[str]]:
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    warnings: list[str] = []
    return read_yaml(tree(folder), "config.yaml", warnings), warnings


def test_tags_of_frameworks_become_plain_data(tree: MakeTree, tmp_path: Path) -> None:
    value, warnings = parsed(
        tree,
        tmp_path,
        "sim:\n"
        "  gravity: !!python/tuple [0.0, 0.0, -9.81]\n"
        "  device: !!python/name:torch.float32 ''\n"
        "  config: !!python/object:groot.Config {seed: 1}\n"
        "  tag: !!python/object/apply:groot.Tag [new_embodiment]\n"
        "  slice: !!python/object/apply:builtins.slice\n  - null\n  - 2\n"
        "  own: !anything text\n",
    )
    assert not warnings
    assert value["sim"] == {
        "gravity": [0.0, 0.0, -9.81],
        "device": "python/name:torch.float32",
        "config": {"seed": 1},
        "tag": ["new_embodiment"],
        "slice": [None, 2],
        "own": "text",
    }


def test_nothing_is_called(tree: MakeTree, tmp_path: Path) -> None:
    value, _ = parsed(tree, tmp_path, f"a: !!python/object/apply:os.mkdir [{tmp_path}/made]\n")
    assert value == {"a": [f"{tmp_path}/made"]}
    assert not (tmp_path / "made").exists()


def test_values_that_json_has_not(tree: MakeTree, tmp_path: Path) -> None:
    value, _ = parsed(
        tree, tmp_path, "a: .nan\nb: 2026-01-02\nc: !!binary aGFsbG8=\n1: one\n? [1, 2]\n: pair\n"
    )
    assert value == {"a": "nan", "b": "2026-01-02", "c": "5 bytes", "1": "one", "[1, 2]": "pair"}


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2",
        "\tx",
        b"\xff\xfe\x00",
        "a: *nowhere",
        "&a [*a]",
        "&a {k: *a}",
        "a: 1\n---\nb: 2\n",
        "? !!set {a}\n",
        "!!timestamp 'no'",
        "!!int ''",
        "!!bool x",
        "!!float x",
        "[" * 5000,
        "a: " * 3000,
    ],
)
def test_broken_files_are_one_warning(tree: MakeTree, tmp_path: Path, text: str | bytes) -> None:
    value, warnings = parsed(tree, tmp_path, text)
    assert value is None or not warnings
    assert len(warnings) <= 1
    assert all("config.yaml" in warning and "\n" not in warning for warning in warnings)


def test_anchors_do_not_unfold_without_end(tree: MakeTree, tmp_path: Path) -> None:
    """Nine to the power of twelve: without a limit, reading it would never end."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    value, warnings = parsed(tree, tmp_path, "\n".join(lines))
    assert value is None
    assert "expands to more" in warnings[0]


def test_merges_do_not_unfold_without_end(tree: MakeTree, tmp_path: Path) -> None:
    lines = ["a0: &a0 {" + ", ".join(f"k{n}: 1" for n in range(9)) + "}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    value, warnings = parsed(tree, tmp_path, "\n".join(lines))
    assert value is None
    assert "expands to more" in warnings[0]


def test_too_large_and_missing(tree: MakeTree, tmp_path: Path) -> None:
    value, warnings = parsed(tree, tmp_path, b"a: 1\n" + b"#" * MAX_CONFIG_BYTES)
    assert value is None
    assert "was not read" in warnings[0]
    assert read_yaml(tree(tmp_path), "other.yaml", warnings) is None
    assert read_json(tree(tmp_path), "other.json", warnings) is None
    assert len(warnings) == 3


def test_a_mapping_is_asked_for(tree: MakeTree, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "good.json").write_text('{"a": 1}')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "empty.yaml").write_text("")
    warnings: list[str] = []
    found = tree(tmp_path)
    assert read_mapping(found, "good.json", warnings) == {"a": 1}
    assert read_mapping(found, "empty.yaml", warnings) == {}
    assert not warnings
    assert read_mapping(found, "list.json", warnings) == {}
    assert read_mapping(found, "deep.json", warnings) == {}
    assert len(warnings) == 2


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("ab:-[]{}&*!?<>|\"'\n\t #%@`,1.e0~=")))
def test_any_text_is_answered(tree: MakeTree, tmp_path: Path, text: str) -> None:
    value, warnings = parsed(tree, tmp_path, text)
    assert value is None or not warnings
