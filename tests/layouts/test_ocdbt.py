"""An OCDBT store written by tensorstore, with inner nodes. Missing data is found from its index alone."""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorstore

from aml_mirror.formats.ocdbt import store_problem
from aml_mirror.sources.tree import Tree

MakeTree = Callable[[Path], Tree]
DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """60 values in a tree of three levels and ten nodes, in one data file."""
    return shutil.copytree(DATA / "ocdbt", tmp_path / "run/params").parent


def problem(tree: MakeTree, store: Path) -> str:
    return store_problem(tree(store), "params")


def test_whole_stores(tree: MakeTree, store: Path) -> None:
    assert problem(tree, store) == ""
    for step in ("80", "99"):
        folder = DATA / "runs/openpi_jax/checkpoints/pi0_libero/my_exp" / step
        assert store_problem(tree(folder), "params") == ""
        assert store_problem(tree(folder), "train_state") == ""


def test_every_byte_of_the_index_counts(tree: MakeTree, store: Path) -> None:
    (path,) = (store / "params/d").iterdir()
    whole = path.read_bytes()
    nodes = [at for at in range(len(whole)) if whole.startswith(b"\x0c\xdb\x20\xde", at)]
    assert len(nodes) == 10
    for at in nodes:
        data = bytearray(whole)
        data[at + 30] ^= 1
        path.write_bytes(data)
        assert "damaged" in problem(tree, store)
    for size in (len(whole) - 1, len(whole) // 2, 10, 0):
        path.write_bytes(whole[:size])
        assert "is truncated" in problem(tree, store)
    path.unlink()
    assert "is missing" in problem(tree, store)


def test_a_value_behind_the_end(tree: MakeTree, store: Path) -> None:
    """The leaf exists, but not the values that it names: they are in another file, which is truncated before
    them.
    """
    folder = shutil.copytree(DATA / "runs/openpi_jax/checkpoints/pi0_libero/my_exp/99", store / "99")
    largest = max((folder / "params/ocdbt.process_0/d").iterdir(), key=lambda path: path.stat().st_size)
    whole = largest.read_bytes()
    # After the last value there is space that nothing refers to.
    largest.write_bytes(whole[:10368])
    assert store_problem(tree(folder), "params") == ""
    largest.write_bytes(whole[:10367])
    assert "10367 bytes, but its index says 10368" in store_problem(tree(folder), "params")


def test_the_manifest(tree: MakeTree, store: Path) -> None:
    path = store / "params/manifest.ocdbt"
    whole = path.read_bytes()
    for data, says in (
        (whole[:-1], "is truncated"),
        (b"", "is truncated"),
        (b"\0" * len(whole), "is truncated"),
        (whole[:20] + bytes([whole[20] ^ 1]) + whole[21:], "is damaged"),
        (whole[:4] + struct.pack("<Q", 14) + whole[12:14], "is damaged"),
    ):
        path.write_bytes(data)
        assert says in problem(tree, store)
    path.unlink()
    assert "is missing" in problem(tree, store)


def test_a_newer_format_is_not_judged(tree: MakeTree, store: Path) -> None:
    import google_crc32c

    path = store / "params/manifest.ocdbt"
    data = bytearray(path.read_bytes())
    data[12] = 9
    data[-4:] = google_crc32c.value(bytes(data[:-4])).to_bytes(4, "little")
    path.write_bytes(data)
    assert problem(tree, store) == ""


def _read_by_tensorstore(folder: Path) -> int:
    """How many values tensorstore itself reads. 0 if it refuses the store."""
    try:
        store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}/"}).result()
        return len([store[key] for key in store.list().result()])
    except (ValueError, NotImplementedError):
        return 0


def test_whatever_tensorstore_refuses_is_a_problem(tree: MakeTree, store: Path) -> None:
    params = store / "params"
    assert _read_by_tensorstore(params) == 60 and problem(tree, store) == ""
    chance = random.Random(7)
    refused = 0
    for path in (params / "manifest.ocdbt", *(params / "d").iterdir()):
        whole = path.read_bytes()
        for _ in range(40):
            data = bytearray(whole)
            if chance.random() < 0.5:
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            else:
                data = data[: chance.randrange(len(data))]
            path.write_bytes(data)
            if _read_by_tensorstore(params) != 60:
                refused += 1
                assert problem(tree, store) != "", (path.name, len(data))
        path.write_bytes(whole)
    assert refused > 20, "the oracle has an opinion"
