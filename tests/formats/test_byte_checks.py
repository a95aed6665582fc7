"""Damage that does not change a file's size is detected while hashing: CRC-32 of members, zeros to the
end.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from aml_mirror.core.errors import DataError
from aml_mirror.formats.byte_checks import ByteChecks
from aml_mirror.sources import block_reader, hashing
from aml_mirror.sources.hashing import hash_files
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree

RANDOM = np.random.default_rng(7)


def checked(folder: Path, name: str, data: bytes) -> list[str]:
    """Hash one file with its check, and return what it reports."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    source = LocalSource(folder)
    tree = Tree(source, source.scan())
    checks = ByteChecks(tree)
    plain = hash_files(tree, {name: name})
    assert hash_files(tree, {name: name}, check_of=checks.of) == plain
    return checks.warnings


def torch_zip(method: int = zipfile.ZIP_STORED, size: int = 300_000) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        for number in range(3):
            archive.writestr(f"archive/data/{number}", RANDOM.bytes(size))
        archive.writestr("archive/version", b"3\n")
    return stream.getvalue()


@pytest.mark.parametrize("chunk", [1000, 65_536, 2 << 20])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_that_does_not_match_its_crc_is_damage(
    tmp_path: Path, method: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "WHOLE_BYTES", 0)
    monkeypatch.setattr(block_reader, "PART_BYTES", chunk)
    whole = torch_zip(method)
    assert checked(tmp_path / "run", "model_1.pt", whole) == []
    hole = bytearray(whole)
    hole[350_000:550_000] = bytes(200_000)
    with pytest.raises(
        DataError, match=r"model_1\.pt is damaged: its member archive/data/1 does not match its CRC-32"
    ):
        checked(tmp_path / "run", "model_1.pt", bytes(hole))
    for at in (500, 310_000, 620_000, len(whole) - 600_000):
        flipped = bytearray(whole)
        flipped[at] ^= 1
        with pytest.raises(DataError, match="is damaged"):
            checked(tmp_path / "run", "model_1.zip", bytes(flipped))


def test_an_archive_without_checksums_is_not_compared(tmp_path: Path) -> None:
    # torch.serialization.set_crc32_options(False) writes 0 into both headers of each member.
    data = bytearray(torch_zip(size=1000))
    for magic, offset in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        at = -1
        while (at := data.find(magic, at + 1)) >= 0:
            data[at + offset : at + offset + 4] = bytes(4)
    assert checked(tmp_path / "run", "model.pt", bytes(data)) == []


def test_the_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.pt").write_bytes(torch_zip())
    opened = []
    real = LocalSource.open
    monkeypatch.setattr(
        LocalSource, "open", lambda self, entry: opened.append(entry.path) or real(self, entry)
    )
    source = LocalSource(run)
    tree = Tree(source, source.scan())
    read: list[int] = []
    monkeypatch.setattr(
        Tree,
        "read",
        lambda self, path, at, count: read.append(count) or source.read(tree.entry(path), at, count),
    )
    hash_files(tree, {"model.pt": "model.pt"}, check_of=ByteChecks(tree).of)
    assert len(opened) - len(read) <= 1
    assert sum(read) < 70_000, "of the archive only its directory is read besides"


def model(**tensors: np.ndarray) -> bytes:
    return save(tensors)


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


LAYERS = {f"layer_{number}.weight": weights(64, 100) for number in range(4)}


@pytest.mark.parametrize("share", [0.1, 0.33, 0.5, 0.77, 0.9])
def test_zeros_to_the_end_are_reported(tmp_path: Path, share: float) -> None:
    whole = model(**LAYERS)
    assert checked(tmp_path / "run", "model.safetensors", whole) == []
    at = int(len(whole) * share) + 6
    (warning,) = checked(tmp_path / "run", "model.safetensors", whole[:at] + bytes(len(whole) - at))
    assert "model.safetensors may be damaged: its bytes are zero from " in warning
    assert f"to its end at {len(whole)}" in warning


def test_a_hole_from_a_page_on_is_reported_though_a_row_begins_there(tmp_path: Path) -> None:
    whole = model(w=weights(512, 1024))
    start = 8 + struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8:start])
    padded = json.dumps(header).encode().ljust(4096 - 8)
    whole = struct.pack("<Q", len(padded)) + padded + whole[start:]
    at = 4096 * 100
    assert checked(tmp_path / "run", "model.safetensors", whole[:at] + bytes(len(whole) - at))


def test_one_dimension(tmp_path: Path) -> None:
    flat = model(w=weights(5000))
    assert checked(tmp_path / "run", "m.safetensors", flat[:-8000] + bytes(8000))


ORDINARY = {
    "bias that was never trained": {**LAYERS, "z.bias": np.zeros(5000, np.float32)},
    "all zero": {"a": np.zeros((64, 64), np.float32), "b": np.zeros(4096, np.float32)},
    "new adapter": {"a.lora_A": weights(8, 64), "b.lora_B": np.zeros((64, 8), np.float32)},
    "padded vocabulary": {"wte": np.concatenate([weights(250, 64), np.zeros((70, 64), np.float32)])},
    "padded columns": {"w": np.concatenate([weights(64, 60), np.zeros((64, 40), np.float32)], axis=1)},
    "padded statistics": {"mean": np.concatenate([weights(7), np.zeros(57, np.float32)])},
    "a counter": {"w": weights(4, 4), "z.steps": np.array([5], np.int64)},
    "small integers": {"w": weights(4, 4), "z.ids": np.arange(300, dtype=np.int64)[::-1].copy()},
    "two zero tensors": {**LAYERS, "x": np.zeros((3, 3), np.float32), "y": np.zeros((300, 300), np.float32)},
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_zeros_that_are_values_are_not(tmp_path: Path, name: str) -> None:
    assert checked(tmp_path / "run", "model.safetensors", model(**ORDINARY[name])) == []


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.json", "a.zip"])
@pytest.mark.parametrize("data", [b"", b"PK", b"PK\x03\x04" + bytes(40), b"\x10" + bytes(30), b"{}"])
def test_what_is_no_such_file_has_no_check(tmp_path: Path, name: str, data: bytes) -> None:
    assert checked(tmp_path / "run", name, data) == []
