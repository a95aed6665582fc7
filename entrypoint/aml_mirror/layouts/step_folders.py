"""Helpers for layouts that save a checkpoint as a directory: its subfolders, its shards, equal files."""

from __future__ import annotations

import re
from collections.abc import Iterable

from aml_mirror.core.errors import DataError
from aml_mirror.sources.tree import Tree, join

# Folder -> name of a subfolder -> its real path.
Subfolders = dict[str, dict[str, str]]

# "model-00002-of-00005.safetensors", with or without the model's name before it.
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})(?P<suffix>\.[a-z]+)")
# Files up to this size, in bytes, are compared completely, larger ones by samples.
_COMPARE_WHOLE = 16 << 20
_SAMPLES = 128
_SAMPLE_BYTES = 4096


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


def subfolders(tree: Tree) -> Subfolders:
    """List each folder's subfolders. Those behind links have the link's name and their real path.

    A folder beside a link to it is listed once, under its own name.
    """
    found: Subfolders = {
        folder: {name[:-1]: join(folder, name[:-1]) for name in names if name.endswith("/")}
        for folder, names in tree.children.items()
    }
    for link, target in sorted(tree.directory_links.items()):
        folder, _, name = link.rpartition("/")
        here = found.setdefault(folder, {})
        if name not in here and target not in here.values() and tree.has_folder(target):
            here[name] = target
    return found


def names_in(tree: Tree, folder: str) -> set[str]:
    """Return the names of the files directly in a folder."""
    return {name for name in tree.children.get(folder, ()) if not name.endswith("/")}


def shard_problem(tree: Tree, folder: str) -> str:
    """Return which shard or index of a sharded model in ``folder`` is missing; empty: none.

    ``save_pretrained`` writes the shards first and then ``<weights>.index.json``, whose ``weight_map`` names
    every shard (transformers 5.23, ``modeling_utils.py``; the same since 4.18).
    """
    names = names_in(tree, folder)
    indexed: set[str] = set()
    for name in sorted(names):
        if not name.endswith(".index.json"):
            continue
        whole = name.removesuffix(".index.json")
        if whole in names:
            continue
        try:
            index = tree.read_json(join(folder, name))
            named = {str(shard) for shard in index["weight_map"].values()}
        except (DataError, KeyError, TypeError, AttributeError):
            return f"the index {name} is damaged"
        missing = sorted(shard for shard in named if not _there(tree, folder, shard))
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            return f"the shard {missing[0]}{more}, named in {name}, is missing"
        indexed |= named
    for name in sorted(names - indexed):
        match = _SHARD.fullmatch(name)
        if not match:
            continue
        whole = match["stem"] + match["suffix"]
        index_name = f"{whole}.index.json"
        if whole not in names and index_name not in names:
            return f"the index {index_name} of its shards is missing"
    return ""


def _there(tree: Tree, folder: str, name: str) -> bool:
    try:
        tree.entry(join(folder, name))
    except KeyError:
        return False
    return True


def same_files(tree: Tree, one: Iterable[str], other: Iterable[str]) -> bool:
    """Tell whether two sets of files have the same names, sizes and contents.

    Large files are compared by their first bytes, their last bytes and evenly spread samples. Two models from
    different trainings differ nearly everywhere, so there is no need to read gigabytes.
    """
    ones = {path.rpartition("/")[2]: path for path in one}
    others = {path.rpartition("/")[2]: path for path in other}
    if not ones or ones.keys() != others.keys():
        return False
    return all(same_file(tree, ones[name], others[name]) for name in ones)


def same_file(tree: Tree, one: str, other: str) -> bool:
    """Tell whether two files have the same contents, in the same way as :func:`same_files`."""
    size = tree.size(one)
    return size == tree.size(other) and same_range(tree, one, other, size)


def same_range(tree: Tree, one: str, other: str, size: int, start: int = 0, other_start: int = 0) -> bool:
    """Tell whether ``size`` bytes of two files are equal, in the same way as :func:`same_files`."""
    # The middle first: different models differ there, but begin alike.
    ranges = [(size // 2, min(_SAMPLE_BYTES, size - size // 2)), (0, size)]
    if size > _COMPARE_WHOLE:
        ranges = [(0, 1 << 16), (size - _SAMPLE_BYTES, _SAMPLE_BYTES)]
        ranges += [(size * number // _SAMPLES, _SAMPLE_BYTES) for number in range(1, _SAMPLES)]
    return all(
        tree.read(one, start + at, count) == tree.read(other, other_start + at, count) for at, count in ranges
    )
