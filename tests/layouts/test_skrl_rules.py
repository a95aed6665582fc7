"""skrl runs of which only names are left: which of them are believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aml_mirror.layouts.skrl import Skrl
from aml_mirror.sources.tree import Tree
from builders.saved import write_bytes
from builders.torch_zip import save

MakeTree = Callable[[Path], Tree]


@pytest.mark.parametrize(("folder", "root"), [("checkpoints", [""]), ("copies", []), ("old_checkpoints", [])])
def test_the_name_of_an_agent_is_believed_only_in_its_own_folder(
    tree: MakeTree, tmp_path: Path, folder: str, root: list[str]
) -> None:
    write_bytes(tmp_path / folder / "agent_100.pt")
    assert Skrl().find(tree(tmp_path)) == root
    # What a file holds counts in any folder.
    save(tmp_path / folder / "agent_200.pt", {"policy": {"net.0.weight": 1}, "optimizer": {}})
    assert Skrl().find(tree(tmp_path)) == ([""] if folder == "checkpoints" else [folder])
    save(tmp_path / folder / "agent_200.pt", {"model": {"net.0.weight": 1}, "epoch": 3})
    assert Skrl().find(tree(tmp_path)) == []


@pytest.mark.parametrize(("folder", "root"), [("checkpoints", [""]), ("my_checkpoints", ["my_checkpoints"])])
def test_separate_modules_are_an_agent_with_a_policy_and_something_else(
    tree: MakeTree, tmp_path: Path, folder: str, root: list[str]
) -> None:
    write_bytes(tmp_path / folder / "policy_100.pt")
    assert Skrl().find(tree(tmp_path)) == []
    write_bytes(tmp_path / folder / "optimizer_100.pt")
    assert Skrl().find(tree(tmp_path)) == root
    write_bytes(tmp_path / "models/policy_100.pt")
    write_bytes(tmp_path / "models/value_100.pt")
    assert Skrl().find(tree(tmp_path)) == root
