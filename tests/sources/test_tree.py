"""sources/tree.py: the view of one directory, through links, with limits on depth and number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.core.errors import DataError
from aml_mirror.sources import Entry, Listing, Tree, tree
from aml_mirror.sources.local import LocalSource
from builders.saved import write_bytes


def tree_of(path: Path) -> Tree:
    source = LocalSource(path)
    return Tree(source, source.scan())


def made(root: Path, *files: str, **links: str) -> Tree:
    for name in files:
        write_bytes(root / name, name.encode())
    for name, target in links.items():
        (root / name.replace("__", "/")).symlink_to(target)
    return tree_of(root)


def test_paths_are_relative_to_the_root_and_sorted(tmp_path: Path) -> None:
    whole = made(tmp_path, "run/b.pt", "run/a/c.pt", "run-2/d.pt")
    below = whole.below("run")
    assert list(below.files) == ["a/c.pt", "b.pt"] == list(below.walk())
    assert below.read("b.pt", 0, 99) == b"run/b.pt"
    assert whole.below("") is whole and whole.below(".") is whole
    assert list(below.below("a").files) == ["c.pt"]


def test_children_and_folders_are_those_with_files_below(tmp_path: Path) -> None:
    whole = made(tmp_path, "a/b/c.pt", "a/d.pt")
    (tmp_path / "empty").mkdir()
    assert whole.children == {"": ("a/",), "a": ("b/", "d.pt"), "a/b": ("c.pt",)}
    assert list(whole.folders) == ["", "a", "a/b"]
    assert (
        whole.has("a/d.pt") and not whole.has("a") and whole.has_folder("a") and not whole.has_folder("empty")
    )


def test_what_a_system_left_beside_the_files_is_none_of_them(tmp_path: Path) -> None:
    """A macOS copy of a run that was opened on a Mac, and files that NFS keeps until they are closed."""
    litter = ("._model.safetensors", "a/._b.pt", "a/.DS_Store", ".DS_Store", ".nfs00000000012", "a/.nfs0001")
    kept = (".hydra/config.yaml", "a/.metadata", "a/._", "a/b.pt", "model.safetensors")
    whole = made(tmp_path / "run", *litter, *kept)
    assert list(whole.files) == sorted(set(kept) - {"a/._"})
    assert whole.refused == {}


def test_links_that_leave_the_run_are_refused_even_where_they_stay_in_the_source(tmp_path: Path) -> None:
    made(tmp_path, "run/in.pt", "other/m.pt", "run-2/m.pt")
    run = made(
        tmp_path, run__file="../other/m.pt", run__dir="../other", run__near="../run-2/m.pt", run__ok="in.pt"
    ).below("run")
    assert list(run.files) == ["in.pt", "ok"] and not run.directory_links
    assert run.refused == dict.fromkeys(("file", "dir", "near"), "it is a link that leaves the run")


def test_files_behind_a_directory_link_have_the_path_by_which_they_were_reached(tmp_path: Path) -> None:
    whole = made(tmp_path, "steps/10/m.pt", last="steps/10")
    assert list(whole.walk()) == ["last/m.pt", "steps/10/m.pt"]
    assert list(whole.walk("last")) == ["last/m.pt"]
    assert whole.resolve("last/m.pt") == "steps/10/m.pt" and whole.resolve("steps") == "steps"
    assert whole.read("last/m.pt", 0, 99) == b"steps/10/m.pt" and whole.size("last/m.pt") == 13
    with pytest.raises(KeyError):
        whole.entry("last/none")


def test_links_to_each_other_end(tmp_path: Path) -> None:
    whole = made(tmp_path, "a/m.pt", "b/n.pt", a__to="../b", b__to="../a")
    assert list(whole.walk("a")) == ["a/m.pt", "a/to/n.pt"]


def test_a_tree_deeper_than_pythons_stack_is_walked() -> None:
    path = "d/" * 1500 + "m.pt"
    found = Tree(LocalSource("."), Listing({path: Entry(path, 1, "")}))
    assert list(found.walk()) == [path] and list(found.walk("d")) == [path]


def test_a_maze_of_links_is_an_error_and_not_an_endless_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MAX_LINKED", 1000)
    names = [f"d{number}" for number in range(12)]
    for name in names:
        write_bytes(tmp_path / name / "m.pt")
        for other in names:
            if other != name:
                (tmp_path / name / other).symlink_to(f"../{other}")
    with pytest.raises(DataError, match="links") as caught:
        for _ in tree_of(tmp_path).walk():
            pass
    assert caught.value.exit_code == 65


def test_a_large_run_without_links_is_not_taken_for_a_maze(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MAX_LINKED", 2)
    names = [f"{number % 7}/{number}/m.pt" for number in range(100)]
    assert sorted(made(tmp_path, *names).walk()) == sorted(names)


@given(data=st.binary(max_size=60))
@settings(max_examples=100)
def test_any_bytes_are_text_or_a_data_error(data: bytes) -> None:
    class Memory(LocalSource):
        def read(self, entry: object, offset: int, length: int) -> bytes:
            return data[offset : offset + length]

    listing = Listing({"f.json": Entry("f.json", len(data), "")})
    found = Tree(Memory("."), listing)
    for read in (found.read_text, found.read_json):
        try:
            read("f.json")
        except DataError as error:
            assert error.exit_code == 65 and "f.json" in error.message


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 100_000, b"\xff", b"", b"{", b"{}{}", b"nul"]
)
def test_hostile_json_is_a_data_error(tmp_path: Path, data: bytes) -> None:
    write_bytes(tmp_path / "f.json", data)
    with pytest.raises(DataError):
        tree_of(tmp_path).read_json("f.json")


def test_small_files_are_read_whole_and_larger_ones_not_at_all(tmp_path: Path) -> None:
    write_bytes(tmp_path / "bom.json", b"\xef\xbb\xbf" + json.dumps({"é": 1}).encode())
    with (tmp_path / "huge.json").open("wb") as stream:  # sparse: takes no disk space
        stream.truncate(tree.MAX_TEXT_BYTES + 1)
    found = tree_of(tmp_path)
    assert found.read_json("bom.json") == {"é": 1}
    with pytest.raises(DataError, match="larger than 64 MiB"):
        found.read_text("huge.json")
