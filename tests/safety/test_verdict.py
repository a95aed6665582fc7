"""Which files could run code when they are loaded: real, hostile and unreadable files."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import pickle
import random
import re
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from safetensors.numpy import save_file

from aml_mirror.core.errors import DataError
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.decide import plans
from aml_mirror.safety import inspection, pickle_vm
from aml_mirror.safety import verdict as safety
from aml_mirror.safety.verdict import Safety
from aml_mirror.safety.words import CLEAN, CODE, NO_CODE, SAFETENSORS, SUSPICIOUS, UNKNOWN
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from aml_mirror.support.progress import Console
from builders import torch_zip

DATA = Path(__file__).parents[1] / "data" / "runs"


class Payload:
    """Pickles as a call of ``os.system``; unpickled, it would leave a file."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/aml-mirror-was-fooled",)


EVIL = {protocol: pickle.dumps(Payload(), protocol) for protocol in range(6)}
GOOD = pickle.dumps({"weights": [1, 2]}, 2)


@pytest.fixture(autouse=True)
def _nothing_is_run() -> object:
    yield
    assert not os.path.exists("/tmp/aml-mirror-was-fooled")


def tree_of(folder: Path) -> Tree:
    source = LocalSource(folder)
    return Tree(source, source.scan())


def look(folder: Path, *weights: str) -> Safety:
    tree = tree_of(folder)
    return safety.inspect(tree, list(tree.files), weights or list(tree.files))


def verdict(folder: Path, name: str, data: bytes) -> str:
    """The verdict on a folder with this one file, the weights."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / name).write_bytes(data)
    return look(folder).verdict


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def torch_file(pickled: bytes, method: int = zipfile.ZIP_STORED, **more: bytes) -> bytes:
    members = {"archive/data.pkl": pickled, "archive/data/0": b"\x80\x04" * 32, "archive/version": b"3\n"}
    return zipped({**members, **more}, method)


def legacy_torch_file(pickled: bytes, tensors: bytes = b"\x00" * 600) -> bytes:
    head = [
        pickle.dumps(0x1950A86A20F9469CFC6C, 2),
        pickle.dumps(1001, 2),
        pickle.dumps({"little_endian": True}, 2),
    ]
    return b"".join([*head, pickled, pickle.dumps(["0"], 2), tensors])


def tarred(name: bytes, mark: bool = True) -> bytes:
    """A tar archive with one empty file."""
    head = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT))
    head[: len(name)] = name
    if not mark:  # as before 1988
        head[257:265] = b"\0" * 8
    head[148:156] = b"%06o\0 " % (8 * 32 + sum(head[:148]) + sum(head[156:512]))
    return bytes(head)


def sb3_file(serialized: bytes, key: str = ":serialized:") -> bytes:
    data = {"n_envs": 1, "policy_class": {":type:": "x", key: base64.b64encode(serialized).decode()}}
    return zipped(
        {
            "data": json.dumps(data).encode(),
            "policy.pth": torch_file(GOOD),
            "_stable_baselines3_version": b"2.7.0",
        }
    )


# What the real frameworks wrote (tests/data/README.md says how): the checkpoint of each that a mirror takes.
_REAL = {
    "act": CLEAN,
    "brax": NO_CODE,
    "diffusion_policy": CLEAN,
    "fasttd3": CLEAN,
    "groot_n16": SAFETENSORS,
    "huggingface_best_reloaded": SAFETENSORS,
    "huggingface_peft": SAFETENSORS,
    "lerobot_act": SAFETENSORS,
    "lightning": CLEAN,
    "lightning_custom": CLEAN,
    "lightning_slash": CLEAN,
    "lightning_two_callbacks": CLEAN,
    "octo": NO_CODE,
    "openpi_jax": NO_CODE,
    "openpi_jax_committed": NO_CODE,
    "openpi_torch": SAFETENSORS,
    "prismatic": CLEAN,
    "protomotions": CLEAN,
    "rl_games": CLEAN,
    "rl_games_frames": CLEAN,
    "rlinf": CLEAN,
    "rllib": CLEAN,
    "robomimic": CLEAN,
    "rsl_rl": CLEAN,
    "skrl": CLEAN,
    "skrl_modules_1x": CLEAN,
    "skrl_modules_2x": CLEAN,
    "stable_baselines3": CLEAN,
    "stable_baselines3_isaac_lab": CLEAN,
    "tdmpc2": CLEAN,
    "tianshou": CLEAN,
}


def test_every_real_run_is_in_the_table() -> None:
    assert sorted(_REAL) == sorted(path.name for path in DATA.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", _REAL)
def test_what_frameworks_write_is_not_suspicious(name: str) -> None:
    settings = Settings(source=str(DATA / name), refuse_pickle=True)
    for plan in plans(settings, Console(io.StringIO())):
        assert plan.safety.verdict == _REAL[name], list(plan.safety.problems)


def test_a_file_that_carries_code_is_code_though_its_framework_wrote_it() -> None:
    # TorchScript; and the arguments of transformers' trainer, which none of our versions contains.
    found = safety.inspect(tree_of(DATA / "rsl_rl"), ["exported/policy.pt"], ["exported/policy.pt"])
    assert found.verdict == CODE
    assert any("TorchScript" in problem for problem in found.problems)
    found = safety.inspect(tree_of(DATA / "huggingface_peft"), ["training_args.bin"], [])
    assert found.verdict == CODE
    assert "transformers.training_args.TrainingArguments" in next(found.problems)


def test_a_function_by_value_in_stable_baselines3_is_suspicious(tmp_path: Path) -> None:
    # A learning rate as a lambda: its code is in the file, and runs when the model is loaded.
    assert (
        verdict(tmp_path / "run", "model.zip", sb3_file(cloudpickle.dumps(lambda left: left * 3e-4)))
        == SUSPICIOUS
    )
    assert verdict(tmp_path / "run", "model.zip", sb3_file(cloudpickle.dumps({"a": 1}))) == CLEAN


@pytest.mark.parametrize(
    "name",
    [
        "sb3_contrib.ars.policies ARSLinearPolicy",
        "sb3_contrib.common.maskable.buffers MaskableRolloutBuffer",
        "sb3_contrib.common.maskable.policies MaskableActorCriticPolicy",
        "sb3_contrib.common.recurrent.policies RecurrentActorCriticPolicy",
        "sb3_contrib.crossq.policies CrossQPolicy",
        "sb3_contrib.qrdqn.policies QRDQNPolicy",
        "sb3_contrib.tqc.policies TQCPolicy",
    ],
)
def test_policies_of_sb3_contrib_are_those_of_a_framework(tmp_path: Path, name: str) -> None:
    # As files of its release 2.9 name them: policy_class, or the class of the rollout buffer.
    by_reference = pickle.PROTO + b"\x02" + pickle.GLOBAL + name.replace(" ", "\n").encode() + b"\n."
    assert verdict(tmp_path / "run", "model.zip", sb3_file(by_reference)) == CLEAN


@pytest.mark.parametrize("protocol", EVIL)
@pytest.mark.parametrize("name", ["random", "pattern", "masked"])
def test_values_of_the_standard_library_and_masked_arrays_are_clean(
    tmp_path: Path, name: str, protocol: int
) -> None:
    value = {
        "random": random.Random(1),
        "pattern": re.compile("a+", re.IGNORECASE),
        "masked": np.ma.array([1.0, 2.0], mask=[0, 1]),
    }[name]
    assert verdict(tmp_path, "state.pkl", pickle.dumps({name: value}, protocol)) == CLEAN


@pytest.mark.parametrize("subtype", ["os system", "builtins type", "collections OrderedDict"])
def test_a_masked_array_of_another_class_is_not_clean(tmp_path: Path, subtype: str) -> None:
    made = f"c{subtype.replace(' ', chr(10))}\ncnumpy\nndarray\n(I0\ntS'b'\ntR.".encode()
    assert verdict(tmp_path, "state.pkl", b"cnumpy.ma.core\n_mareconstruct\n(" + made) not in (CLEAN, NO_CODE)


@pytest.mark.parametrize("protocol", EVIL)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: data,
        torch_file,
        lambda data: torch_file(data, zipfile.ZIP_DEFLATED),
        legacy_torch_file,
        sb3_file,
        lambda data: zipped({"_stable_baselines3_version": b"2", "policy.pth": torch_file(data)}),
        lambda data: zipped({"policy.pth": torch_file(data), "data": b"{}"}, zipfile.ZIP_DEFLATED),
        lambda data: GOOD + data,
        lambda data: torch_file(GOOD + data),
        lambda data: torch_file(pickle.dumps({"payload": pickle.dumps({"deeper": data}, 4)}, 2)),
        lambda data: torch_file(GOOD, **{"archive/DATA.PKL": data}),
        lambda data: zipped({"archive/Data.pkl": data, "archive/data/0": b""}),
        lambda data: zipped({"archive\\data.pkl": data, "archive/data.pkl": GOOD}),
        lambda data: torch_file(GOOD, **{"archive/extra/x.bin": data}),
    ],
    ids=[
        "pickle", "torch", "torch deflated", "legacy torch", "settings of SB3", "weights of SB3",
        "weights of SB3 deflated", "second pickle", "second pickle in torch",
        "pickle in a pickle in a pickle",
        "data.pkl in capitals beside it", "data.pkl in another case", "backslash in a name", "another member",
    ],
)  # fmt: skip
def test_a_call_is_found_wherever_it_hides(
    tmp_path: Path, wrap: Callable[[bytes], bytes], protocol: int
) -> None:
    data = wrap(EVIL[protocol])
    for name in ("model.zip",) if b"_stable_baselines3" in data else ("model.pt", "model.pth.tar"):
        assert verdict(tmp_path / "run", name, data) == SUSPICIOUS


@pytest.mark.parametrize("protocol", EVIL)
@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "pytorch_model.bin",
        "config.json",
        "notes.txt",
        "weights.msgpack",
        "model.onnx",
        "x",
    ],
)
def test_a_pickle_is_one_under_any_name(tmp_path: Path, name: str, protocol: int) -> None:
    assert verdict(tmp_path / "run", name, EVIL[protocol]) == SUSPICIOUS


@pytest.mark.parametrize("name", ["model.bin", "model.safetensors", "model.dat"])
def test_a_zip_of_torch_is_one_under_any_name(tmp_path: Path, name: str) -> None:
    assert verdict(tmp_path / "run", name, torch_file(EVIL[2])) == SUSPICIOUS
    assert verdict(tmp_path / "run", name, torch_file(GOOD)) == CLEAN


def test_safetensors_that_are_a_pickle_too_are_found(tmp_path: Path) -> None:
    # The length of the header is the opcode of a text that ends inside the tensors. A call follows.
    header = b'{"w":{"dtype":"U8","shape":[4096],"data_offsets":[0,4096]}}'
    length = (0x0003 << 8) | ord("X")  # "X", then 00 03 00 00 …: 0x…
    head = struct.pack("<Q", length)
    assert head[:1] == b"X"
    (text,) = struct.unpack("<I", head[1:5])
    body = header.ljust(length) + b"a" * 4096
    at = 5 + text - 8
    evil = EVIL[0]
    body = body[:at] + evil + body[at + len(evil) :]
    assert verdict(tmp_path / "run", "model.safetensors", head + body) == SUSPICIOUS
    assert (
        verdict(tmp_path / "run", "model.safetensors", head + header.ljust(length) + b"a" * 4096)
        == SAFETENSORS
    )


def test_an_array_of_objects_is_a_pickle(tmp_path: Path) -> None:
    def saved(value: object) -> bytes:
        stream = io.BytesIO()
        np.save(stream, np.array([value], dtype=object) if not isinstance(value, np.ndarray) else value)
        return stream.getvalue()

    def saved_many(value: object) -> bytes:
        stream = io.BytesIO()
        np.savez(stream, a=np.arange(3), b=np.array([value], dtype=object))
        return stream.getvalue()

    run = tmp_path / "run"
    assert verdict(run, "stats.npy", saved(np.arange(5))) == NO_CODE
    assert verdict(run, "stats.npy", saved(Payload())) == SUSPICIOUS
    assert verdict(run, "stats.npy", saved({"a": 1})) == CLEAN
    assert verdict(run, "stats.npz", saved_many(Payload())) == SUSPICIOUS
    assert verdict(run, "stats.npz", saved_many({"a": 1})) == CLEAN
    evil = saved(Payload())
    for dtype in (b"'\\x7cO'", b"'o''bject'", b"'o' b'bject'"):
        assert verdict(run, "stats.npy", evil.replace(b"'|O'", dtype, 1)) == SUSPICIOUS


_UNREADABLE: dict[str, tuple[str, bytes]] = {
    "cut pickle": ("a.pkl", GOOD[:-1]),
    "compressed pickle that was cut": ("a.pkl.gz", gzip.compress(GOOD)[:-9]),
    "compressed text named as a pickle": ("a.pkl.gz", gzip.compress(b"hello")),
    "text named as a pickle": ("a.pt", b"hello"),
    "bytes behind a pickle": ("a.pkl", GOOD + b"\x00\x01"),
    "pickle cut within legacy torch": ("a.pt", legacy_torch_file(GOOD)[:60]),
    "zip without a directory": ("a.pt", torch_file(GOOD)[:-30]),
    "zip with bytes behind it": ("a.pt", torch_file(GOOD) + EVIL[2]),
    "zip inside a pickle, cut": ("a.pkl", pickle.dumps(torch_file(GOOD)[:-30], 4)),
    "settings that are not JSON": ("a.zip", zipped({"data": b"{", "policy.pth": torch_file(GOOD)})),
    "settings with a damaged pickle": ("a.zip", sb3_file(b"\x80\x04.")),
    "tar": ("a.bin", tarred(b"tensors")),
    "tar without a mark": ("pytorch_model.bin", tarred(b"tensors", mark=False)),
    "tar that begins as legacy torch": ("a.pt", tarred(legacy_torch_file(pickle.dumps(1, 2), b""))),
    "zip behind other bytes": ("model.zip", b"\0" + sb3_file(EVIL[2])),
    "zip behind legacy torch": ("model.zip", legacy_torch_file(GOOD) + sb3_file(EVIL[2])),
    "HDF5": ("model.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 600),
    "HDF5 behind a user's block": ("model.hdf5", b"\0" * 512 + b"\x89HDF\r\n\x1a\n" + b"\0" * 600),
    "model of Keras": ("model.keras", zipped({"model.weights.h5": b"\x89HDF\r\n\x1a\n"})),
    "encrypted member": ("a.pt", torch_file(GOOD, zipfile.ZIP_DEFLATED).replace(GOOD[:4], b"ABCD")),
    "method that is not known": ("a.pt", torch_file(GOOD, zipfile.ZIP_LZMA)),
    "numpy header cut": ("a.npy", b"\x93NUMPY\x01\x00\xff\xff{'descr'"),
}  # fmt: skip


@pytest.mark.parametrize("name", _UNREADABLE)
def test_what_cannot_be_read_is_never_clean(tmp_path: Path, name: str) -> None:
    if name == "encrypted member":
        path, data = _UNREADABLE[name][0], bytearray(torch_file(GOOD))
        at = data.index(GOOD)
        data[at + 3] ^= 0xFF  # the CRC shows it
        assert verdict(tmp_path / "run", path, bytes(data)) == SUSPICIOUS
        return
    assert verdict(tmp_path / "run", *_UNREADABLE[name]) in (SUSPICIOUS, UNKNOWN)


@pytest.mark.parametrize(
    "long",
    [
        b"N0" * 600,
        b"N" + b"".join(b"r" + struct.pack("<I", at) for at in range(60)) + b"0",
        b"X" + struct.pack("<I", 5000) + b"x" * 5000 + b"0",
        b"S'" + b"x" * 5000 + b"'\n0",
    ],
    ids=["steps", "memo", "text", "line"],
)
def test_a_call_behind_more_than_is_followed_is_not_passed_over(
    tmp_path: Path, long: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle_vm, "MAX_OPCODES", 1000)
    monkeypatch.setattr(pickle_vm, "MAX_MEMO", 50)
    monkeypatch.setattr(inspection, "MAX_PICKLE_BYTES", 4000)
    assert verdict(tmp_path / "run", "pytorch_model.bin", long + EVIL[0]) == SUSPICIOUS
    inside = pickle.dumps({"payload": b"\x80\x02" + long + EVIL[0]}, 4)
    assert verdict(tmp_path / "run", "a.pkl", inside) == SUSPICIOUS
    # A text that would be truncated within its first value is not used.
    assert verdict(tmp_path / "run", "a.txt", b"X\xff\xff\xff\x00" + b"x" * 5000) == UNKNOWN


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/data.pkl", EVIL[2])
        archive.writestr("a/data.pkl", GOOD)
    assert verdict(tmp_path / "run", "model.pt", stream.getvalue()) == SUSPICIOUS


@pytest.mark.parametrize("claimed", [None, 100])
def test_a_zip_bomb_costs_no_memory(tmp_path: Path, claimed: int | None) -> None:
    bomb = bytearray(torch_file(b"\x80\x02" + b"N0" * (100 << 20) + b"N.", zipfile.ZIP_DEFLATED))
    if claimed is not None:
        # The size in the directory, which a reader would believe.
        at = bomb.rindex(b"PK\x01\x02", 0, bomb.index(b"archive/data.pkl", bomb.index(b"PK\x01\x02")))
        bomb[at + 24 : at + 28] = struct.pack("<I", claimed)
    tracemalloc.start()
    try:
        assert verdict(tmp_path / "run", "model.pt", bytes(bomb)) == SUSPICIOUS
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_all_that_is_inflated_of_one_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "MAX_INFLATED_BYTES", 10_000)
    few = zipped({f"{number}.txt": b"x" * 1000 for number in range(9)}, zipfile.ZIP_DEFLATED)
    assert verdict(tmp_path / "run", "model.zip", few) == UNKNOWN
    # Archives in archives and in pickles count together.
    assert verdict(tmp_path / "run", "model.zip", zipped({"a": few, "b": few})) == SUSPICIOUS
    assert verdict(tmp_path / "run", "a.pkl", pickle.dumps([few, bytearray(few)], 5)) == SUSPICIOUS


def test_no_tensor_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 64 << 20
    (tmp_path / "run").mkdir()
    torch_zip.save(tmp_path / "run" / "model.pt", {"step": 3}, tensor=b"\x80\x04" * (size // 2))
    save_file({"w": np.zeros(1 << 20, np.float32)}, tmp_path / "run" / "model.safetensors")
    read = 0
    real = LocalSource.read

    def counting(self: LocalSource, entry: object, offset: int, length: int) -> bytes:
        nonlocal read
        data = real(self, entry, offset, length)  # type: ignore[arg-type]
        read += len(data)
        return data

    monkeypatch.setattr(LocalSource, "read", counting)
    assert look(tmp_path / "run").verdict == CLEAN
    assert read < 1 << 20


def test_the_worst_file_decides(tmp_path: Path) -> None:
    run = tmp_path
    save_file({"w": np.zeros(4, np.float32)}, run / "model.safetensors")
    (run / "config.json").write_text('{"a": 1}')
    (run / "config.yaml").write_text("cfg:\n  iterations: 3\nRuns: [1]\n")
    assert look(run, "model.safetensors").verdict == SAFETENSORS
    (run / "stats.pkl").write_bytes(GOOD)
    assert look(run, "model.safetensors").verdict == CLEAN
    (run / "other.pkl").write_bytes(EVIL[4])
    found = look(run, "model.safetensors")
    assert found.verdict == SUSPICIOUS
    assert list(found.problems) == [
        f"other.pkl: it imports {os.system.__module__}.system, which is not known to be harmless"
    ]
    with pytest.raises(DataError, match=r"ckpt is suspicious: other\.pkl: it imports"):
        safety.require_harmless(found, "ckpt")


@pytest.mark.parametrize(
    "text",
    ["cfg:\n  a: 1\n", "import os\nfrom x import y\n", "Regular words. And more.\n", "(a)\n", "0.5\n",
     "}\n", "# title\n", "[1, 2]\n", "I am text\n", "Very\n", "S'quoted'\n", "build:\n  x: b\n", "c\nd\n"],
)  # fmt: skip
def test_a_text_is_no_pickle(tmp_path: Path, text: str) -> None:
    assert verdict(tmp_path / "run", "README.md", text.encode()) == NO_CODE


def test_the_artifact_names_every_import_and_finding(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.pt").write_bytes(torch_file(pickle.dumps({"a": np.arange(3)}, 2)))
    (run / "evil.pkl").write_bytes(EVIL[2])
    found = json.loads(look(run).as_json())
    assert found["schema"] == "aml-mirror/safety/v1"
    assert found["safety"] == SUSPICIOUS
    files = {file["path"]: file for file in found["files"]}
    assert files["model.pt"]["safety"] == CLEAN
    assert "numpy.dtype" in files["model.pt"]["imports"]
    assert files["evil.pkl"]["findings"] == [
        f"it imports {os.system.__module__}.system, which is not known to be harmless"
    ]
