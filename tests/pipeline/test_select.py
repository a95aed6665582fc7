"""checkpoints.py: what counts as complete, and which checkpoint is selected."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.core.errors import DataError, Unreadable, UsageError
from aml_mirror.formats import json_text
from aml_mirror.formats.safetensors import MAX_HEADER_BYTES
from aml_mirror.layouts import find_run
from aml_mirror.layouts.base import Checkpoint, Run
from aml_mirror.pipeline.completeness import judge
from aml_mirror.pipeline.select import SelectedCheckpoint, choose, narrow
from aml_mirror.sources import Entry, Listing, Source, Tree
from aml_mirror.sources.local import LocalSource
from builders.saved import safetensors, write_bytes, write_json


def tree_of(path: Path) -> Tree:
    source = LocalSource(path)
    return Tree(source, source.scan())


class Memory(Source):
    """A source with its files in memory, so that a file can be truncated at every byte quickly."""

    uri = name = "memory"

    def __init__(self, **files: bytes) -> None:
        self.files = files

    def scan(self) -> Listing:
        return Listing({path: Entry(path, len(data), "") for path, data in self.files.items()})

    def read(self, entry: Entry, offset: int, length: int) -> bytes:
        assert 0 <= offset < 1 << 62 and 0 <= length < 1 << 62  # what a file system accepts
        return self.files[entry.path][offset : offset + length]


def verdict(name: str, data: bytes, weights: bool = True) -> str:
    """Why a checkpoint of only this file, or with this companion, is not complete."""
    files = (name,) if weights else ("other", name)
    source = Memory(**{"other": b"x", name: data})
    return judge(Tree(source, source.scan()), Checkpoint(name, 1, "periodic", files, files[:1]))


def headed(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def tensors(body: int = 8, **offsets: Any) -> bytes:
    """A safetensors file with ``body`` bytes of data and tensors at these offsets."""
    entries = {name: {"dtype": "U8", "shape": [1], "data_offsets": found} for name, found in offsets.items()}
    return headed(json.dumps(entries).encode(), b"\1" * body)


def torch_like(folder: str = "policy") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{folder}/data.pkl", pickle.dumps({"iter": 1}, 2))
        archive.writestr(f"{folder}/data/0", b"\7" * 16)
    return stream.getvalue()


def packed(value: Any) -> bytes:
    """msgpack of maps with short names, and of bytes as flax packs an array: an extension of type 1."""
    if isinstance(value, dict):
        entries = (bytes([0xA0 + len(name)]) + name.encode() + packed(item) for name, item in value.items())
        return bytes([0x80 + len(value)]) + b"".join(entries)
    assert isinstance(value, bytes)
    return b"\xc9" + struct.pack(">I", len(value)) + b"\1" + value


FLAX = packed({"params": {"kernel": b"\x93\x92\x04\x04" + bytes(16), "bias": b"\x93\x91\x04" + bytes(4)}})


def sb3_like(
    *leave_out: str, version: str = "_stable_baselines3_version", policy: bytes | None = None
) -> bytes:
    members = {
        "data": b"{}",
        "pytorch_variables.pth": torch_like("pytorch_variables"),
        "policy.pth": policy if policy is not None else torch_like(),
        version: b"2.3.2",
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            if name not in leave_out:
                archive.writestr(name, data)
    return stream.getvalue()


def sbx_like(policy: Any, name: str = "policy", notes: str = "") -> bytes:
    """A zip as SBX saves it: no torch parameters, and the policy in ``data``, which SB3 indents by 4."""
    data = {"policy_class": {":type:": "<class 'abc.ABCMeta'>"}, "notes": notes, name: policy, "gamma": 0.99}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("data", json.dumps(data, indent=4))
        archive.writestr("pytorch_variables.pth", torch_like("pytorch_variables"))
        archive.writestr("_stable_baselines3_version", "2.9.2")
        archive.writestr("system_info.txt", "- OS: Linux")
    return stream.getvalue()


# As sbx 0.28 writes it. The pickle itself is not examined.
SBX_POLICY = {":type:": "<class 'sbx.ppo.policies.PPOPolicy'>", ":serialized:": "gAWVBwABAAAAAACM" * 4}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("model.safetensors", tensors(8, a=[0, 4], b=[4, 8])),
        ("model.pt", torch_like()),
        ("model.pth", torch_like()),
        ("last.ckpt", torch_like()),
        ("pytorch_model.bin", torch_like()),
        ("model.zip", sb3_like()),
        ("model.zip", sbx_like(SBX_POLICY)),
        ("dqn.cleanrl_model", torch_like()),
        ("dqn_jax.cleanrl_model", FLAX),
        ("flax_model.msgpack", FLAX),
        ("policy.json", json.dumps({"a": [1, {"b": "]"}]}).encode()),
    ],
)
def test_a_file_cut_at_any_byte_is_never_whole(name: str, data: bytes) -> None:
    assert verdict(name, data) == ""
    for length in range(len(data)):
        assert verdict(name, data[:length]) != "", length


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", (1 << 64) - 1) + b"{}",
        struct.pack("<Q", MAX_HEADER_BYTES + 1) + b" " * 100,
        headed(b""),
        headed(b"[]"),
        headed(b"null"),
        headed(b"\xff\xfe"),
        headed(b"[" * 100_000),
        headed(b'{"a":' * 50_000),
        headed(b'{"a": 5}'),
        headed(b'{"a": {}}'),
        headed(b'{"a": {"data_offsets": {}}}'),
        tensors(a=8),
        tensors(a=[0]),
        tensors(a=[0, 4, 8]),
        tensors(a=[0, -8]),
        tensors(a=[-4, 4]),
        tensors(a=["0", "8"]),
        tensors(a=[0, "8"]),
        tensors(a=[0, 8.0]),
        tensors(a=[0, None]),
        tensors(1, a=[0, True]),
        tensors(a=[False, 8]),
        tensors(a=[0, 1 << 60]),
        headed(b'{"a": {"data_offsets": [0, ' + b"9" * 4299 + b"]}}"),
        headed(b'{"a": {"data_offsets": [0, ' + b"9" * 100_000 + b"]}}"),
        headed(b'{"a": {"data_offsets": [0, NaN]}}'),
        tensors(a=[0, 3], b=[4, 8]),
        tensors(a=[0, 5], b=[4, 8]),
        tensors(a=[1, 8]),
        tensors(a=[0, 8], b=[0, 8]),
        tensors(9, a=[0, 8]),
        tensors(7, a=[0, 8]),
    ],
)
def test_a_hostile_safetensors_header_is_said_to_be_damaged(data: bytes) -> None:
    assert len(verdict("model.safetensors", data)) < 300
    assert verdict("model.safetensors", data) != ""


def test_no_more_of_a_header_is_read_than_is_allowed() -> None:
    class Huge(Memory):
        def scan(self) -> Listing:
            return Listing({"m.safetensors": Entry("m.safetensors", 1 << 40, "")})

        def read(self, entry: Entry, offset: int, length: int) -> bytes:
            assert length <= MAX_HEADER_BYTES
            return super().read(entry, offset, length)

    files = ("m.safetensors",)
    for length in (MAX_HEADER_BYTES + 1, 1 << 39):
        source = Huge(**{"m.safetensors": struct.pack("<Q", length)})
        assert judge(Tree(source, source.scan()), Checkpoint(".", 1, "final", files, files)) != ""


@given(
    offsets=st.dictionaries(
        st.sampled_from("abc"),
        st.one_of(
            st.lists(st.integers(-2, 9), min_size=2, max_size=2),
            st.recursive(
                st.none() | st.booleans() | st.floats() | st.text(max_size=2), st.lists, max_leaves=3
            ),
        ),
    ),
    body=st.integers(0, 9),
)
@settings(deadline=None, max_examples=150)
def test_only_tensors_that_fill_the_file_without_gap_are_whole(offsets: dict[str, Any], body: int) -> None:
    why = verdict("model.safetensors", tensors(body, **offsets))
    spans = sorted(offsets.values()) if all(
        isinstance(span, list) and len(span) == 2 and all(type(at) is int for at in span)
        for span in offsets.values()
    ) else None  # fmt: skip
    whole = spans is not None and all(0 <= start <= stop for start, stop in spans)
    if whole and spans is not None:
        edges = [0, *(edge for span in spans for edge in span), body]
        whole = edges[::2] == edges[1::2]
    assert (why == "") == whole


def test_metadata_in_the_header_is_no_tensor() -> None:
    header = {"__metadata__": {"format": "pt"}, "a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}
    assert verdict("model.safetensors", headed(json.dumps(header).encode(), b"ab")) == ""


def test_a_zip_must_hold_what_its_format_writes() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("readme.txt", "no model")
    assert "data.pkl" in verdict("model.pt", stream.getvalue())
    assert "an unknown kind" in verdict("model.zip", stream.getvalue())
    assert "required parts" in verdict("model.zip", sb3_like("data"))
    assert "required parts" in verdict("model.zip", sb3_like("policy.pth"))
    # Other data that a model stores with its parameters is not a policy.
    assert "required parts" in verdict("model.zip", sb3_like("data", "pytorch_variables.pth"))
    assert "an unknown kind" in verdict("model.zip", sb3_like(version="x"))


@pytest.mark.parametrize(
    "data",
    [
        sbx_like("MlpPolicy"),
        sbx_like({}),
        sbx_like({":type:": SBX_POLICY[":type:"], ":serialized:": ""}),
        # With another name, or with that name inside another value.
        sbx_like(SBX_POLICY, name="vf"),
        sbx_like({"policy": SBX_POLICY}, name="policy_kwargs"),
        sbx_like(json.dumps({"policy": SBX_POLICY}, indent=4), name="notes"),
    ],
)
def test_without_parameters_of_torch_data_must_hold_the_policy(data: bytes) -> None:
    assert "required parts" in verdict("model.zip", data)


def test_the_policy_in_data_is_found_across_the_parts_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "PART_BYTES", 700)
    for length in range(0, 1400, 25):
        assert verdict("model.zip", sbx_like(SBX_POLICY, notes="x" * length)) == ""


def test_the_archives_inside_a_stable_baselines3_file_are_judged_too() -> None:
    whole = torch_like()
    for length in range(len(whole)):
        if whole[:length].startswith(b"PK"):
            assert "policy.pth" in verdict("model.zip", sb3_like(policy=whole[:length])), length


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("model.pt", b"no zip and no pickle", "not a file of torch.save"),
        ("model.zip", b"\x80\x02}.", "does not begin like a zip"),
        ("model.pth", pickle.dumps({"a": 1})[:-1], "no end"),
        ("model.pth", pickle.dumps({"a": 1}), ""),
        ("model.bin", b"any other format", ""),
        ("vecnormalize.pkl", pickle.dumps([1, 2]), ""),
        ("vecnormalize.pkl", pickle.dumps([1, 2])[:-1], "no end"),
        ("model_30.d3", pickle.dumps({"a": 1}), ""),
        ("model_30.d3", pickle.dumps({"a": 1})[:-1], "no end"),
    ],
)
def test_pickles_are_judged_by_their_ends(name: str, data: bytes, why: str) -> None:
    found = verdict(name, data)
    assert why in found and bool(why) == bool(found)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        # One of each kind that stores a length or a size.
        (bytes.fromhex("9f 00 ff c0 c2 c3 ca00000000 cb0000000000000000 cc00 cd0000 ce00000000"
                       "cf0000000000000000 d000 d10000 d200000000 d30000000000000000"), ""),
        (bytes.fromhex("9f d401aa d501aaaa d601aaaaaaaa") + b"\xd7\1" + bytes(8) + b"\xd8\1" + bytes(16)
         + bytes.fromhex("c401aa c50001aa c600000001aa c70101aa c8000101aa c90000000101aa"
                         "d90161 da000161 db0000000161 dc000100"), ""),
        (bytes.fromhex("93 dd0000000100 de0001a16101 df00000001a16101"), ""),
        (bytes.fromhex("81a161c1"), "damaged"),
        (bytes.fromhex("81a16101 00"), "5 bytes"),
        (bytes.fromhex("dfffffffff a16101"), "truncated"),
        (bytes.fromhex("81a161c6ffffffff") + bytes(9), "truncated"),
        (bytes.fromhex("dd7fffffff") + bytes(3 << 19), "more objects"),
        (b"plain text", "not a map"),
    ],
)  # fmt: skip
def test_msgpack_is_judged_by_its_lengths(data: bytes, why: str) -> None:
    for name in ("model.msgpack", "dqn_jax.cleanrl_model"):
        found = verdict(name, data)
        assert why in found and bool(why) == bool(found)


def test_of_the_arrays_in_msgpack_no_byte_is_read() -> None:
    count = 1 << 31
    head = b"\x82\xa1a\xc9" + struct.pack(">I", count) + b"\1"
    tail = b"\xa1b\1"

    class Huge(Memory):
        def scan(self) -> Listing:
            return Listing({"m.msgpack": Entry("m.msgpack", len(head) + count + len(tail), "")})

        def read(self, entry: Entry, offset: int, length: int) -> bytes:
            assert length <= 1 << 16
            return head.ljust(length, b"\0") if offset == 0 else tail[offset - len(head) - count :]

    source = Huge()
    files = ("m.msgpack",)
    assert judge(Tree(source, source.scan()), Checkpoint(".", 1, "final", files, files)) == ""


def test_archives_of_numpy_are_judged_as_zips() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("w.npy", bytes(100))
    assert verdict("policy_10.npz", stream.getvalue()) == ""
    assert "truncated" in verdict("policy_10.npz", stream.getvalue()[:-30])


def test_the_old_format_of_torch_that_ends_at_once_is_cut() -> None:
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    assert "end" in verdict("model.pt", magic)
    assert verdict("model.pt", magic + b"\0" * 2000) == ""


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "config.json", "norm.pkl", "policy.onnx"])
def test_an_empty_file_is_incomplete(name: str) -> None:
    assert "empty" in verdict(name, b"")


def test_an_empty_companion_is_incomplete_only_where_its_format_cannot_be_empty() -> None:
    assert verdict("merges.txt", b"", weights=False) == ""
    assert "empty" in verdict("config.json", b"", weights=False)


def test_a_cut_companion_makes_a_checkpoint_incomplete() -> None:
    assert "config.json" in verdict("config.json", b'{"a": 1', weights=False)
    assert verdict("config.json", b'\xef\xbb\xbf{"a": 1}\n', weights=False) == ""


TEXTS = st.text(alphabet='a"\\[]{}é', max_size=6)
NESTED = st.recursive(TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=12)


@given(value=NESTED.filter(lambda value: isinstance(value, (list, dict))), part=st.integers(1, 9))
@settings(deadline=None, max_examples=60)
def test_large_json_is_judged_by_its_brackets(value: Any, part: int) -> None:
    data = json.dumps(value, ensure_ascii=False).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "MAX_PARSED_BYTES", 0)
        patch.setattr(json_text, "PART_BYTES", part)
        assert verdict("tokenizer.json", data, weights=False) == ""
        for length in range(1, len(data)):
            assert verdict("tokenizer.json", data[:length], weights=False) != ""


def test_json_beyond_all_bounds_is_judged_by_its_last_bytes(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    write_bytes(tmp_path / "other")
    with path.open("wb") as stream:  # sparse: takes no disk space
        stream.truncate(1 << 30)
        stream.seek((1 << 30) - 1)
        stream.write(b"}")
    found = Checkpoint(".", 1, "periodic", ("huge.json", "other"), ("other",))
    assert judge(tree_of(tmp_path), found) == ""
    with path.open("r+b") as stream:
        stream.seek((1 << 30) - 1)
        stream.write(b",")
    assert "end" in judge(tree_of(tmp_path), found)


def test_what_the_layout_holds_against_a_checkpoint_counts(tmp_path: Path) -> None:
    safetensors(tmp_path / "m.safetensors")
    tree = tree_of(tmp_path)
    files = ("m.safetensors",)
    assert (
        judge(tree, Checkpoint(".", 1, "periodic", files, files, problem="it is temporary"))
        == "it is temporary"
    )
    assert judge(tree, Checkpoint(".", 1, "periodic", files, ())) == "it holds no weights"
    assert "missing" in judge(tree, Checkpoint(".", 1, "periodic", ("gone.pt",), ("gone.pt",)))


def test_what_a_listing_says_of_a_companion_counts(tmp_path: Path) -> None:
    """Its format may have no check for completeness, and nothing reads it before it is sent."""
    write_bytes(tmp_path / "stats.txt")
    tree, run = run_of(tmp_path, 100, 20)
    newest = replace(run.checkpoints[0], files=("model_100.safetensors", "stats.txt"))
    run = replace(run, checkpoints=[newest, *run.checkpoints[1:]])
    assert chosen_steps(tree, run, "final") == [100]
    entry = tree.files["stats.txt"]
    tree.files["stats.txt"] = replace(entry, incomplete="its blocks are not committed")
    (chosen,) = choose(tree, run, "final")
    assert chosen.checkpoint.step == 20
    assert chosen.passed_over == (("model_100.safetensors", "stats.txt: its blocks are not committed"),)
    tree.files["stats.txt"] = replace(entry, obstacle="it is archived")
    with pytest.raises(Unreadable, match="it is archived"):
        chosen_steps(tree, run, "final")


def test_a_file_that_changes_after_the_listing_is_not_judged_whole(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "m.safetensors")
    tree = tree_of(tmp_path)
    path.write_bytes(path.read_bytes())
    files = ("m.safetensors",)
    # Its content is unknown, so no older checkpoint may replace it.
    with pytest.raises(Unreadable, match="changed while it was read"):
        judge(tree, Checkpoint(".", 1, "periodic", files, files))


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def sharded(folder: Path) -> Path:
    for name in SHARDS:
        safetensors(folder / name)
    write_json(folder / "model.safetensors.index.json", {"weight_map": dict(zip("ab", SHARDS, strict=True))})
    write_json(folder / "config.json", {"model_type": "act"})
    write_json(folder / "trainer_state.json", {"global_step": 1})
    return folder


@pytest.mark.parametrize("lost", [*SHARDS, "model.safetensors.index.json"])
def test_a_missing_shard_or_index_is_passed_over(tmp_path: Path, lost: str) -> None:
    sharded(tmp_path / "checkpoint-10")
    (sharded(tmp_path / "checkpoint-20") / lost).unlink()
    chosen = take(tmp_path)
    assert chosen.checkpoint.step == 10
    assert [path for path, _ in chosen.passed_over] == ["checkpoint-20"]


def test_an_index_that_names_files_outside_the_checkpoint_is_incomplete(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "run" / "checkpoint-10")
    safetensors(tmp_path / "evil.safetensors")
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "../../evil.safetensors"}})
    with pytest.raises(DataError):
        take(tmp_path / "run")


# --- which one -----------------------------------------------------------------------------------------


def take(root: Path, wanted: str = "final", strict: bool = False) -> SelectedCheckpoint:
    whole = tree_of(root)
    found = find_run(whole)
    tree = whole.below(found.root)
    (chosen,) = choose(tree, found.layout.read(tree), wanted, strict)
    return chosen


def run_of(root: Path, *steps: int, cut: tuple[int, ...] = (), best: int | None = None) -> tuple[Tree, Run]:
    """A run with one file per step, newest first. Those in ``cut`` are truncated."""
    made = []
    for step in steps:
        path = safetensors(root / f"model_{step}.safetensors", seed=step)
        if step in cut:
            path.write_bytes(path.read_bytes()[:-1])
        made.append(Checkpoint(path.name, step, "periodic", (path.name,), (path.name,)))
    found = next((item for item in made if item.step == best), None)
    return tree_of(root), Run(made, best=found)


def chosen_steps(tree: Tree, run: Run, wanted: str, strict: bool = False) -> list[int | None]:
    return [chosen.checkpoint.step for chosen in choose(tree, run, wanted, strict)]


def test_the_newest_complete_one_is_the_final_one_and_the_others_are_named(tmp_path: Path) -> None:
    tree, run = run_of(tmp_path, 100, 20, 3, cut=(100, 20))
    (chosen,) = choose(tree, run, "final")
    assert (chosen.checkpoint.step, chosen.checkpoint.role) == (3, "final")
    assert [path for path, _ in chosen.passed_over] == ["model_100.safetensors", "model_20.safetensors"]
    assert all("bytes" in why for _, why in chosen.passed_over)


def test_strict_makes_an_incomplete_one_an_error(tmp_path: Path) -> None:
    tree, run = run_of(tmp_path, 100, 20, cut=(100,))
    with pytest.raises(DataError, match="model_100") as caught:
        chosen_steps(tree, run, "final", strict=True)
    assert caught.value.exit_code == 65
    with pytest.raises(DataError):
        chosen_steps(tree, run, "all", strict=True)
    tree, run = run_of(tmp_path, 100, 20)
    assert chosen_steps(tree, run, "final", strict=True) == [100]


@pytest.mark.parametrize("wanted", ["final", "all"])
def test_no_complete_checkpoint_is_65(tmp_path: Path, wanted: str) -> None:
    tree, run = run_of(tmp_path, 2, 1, cut=(1, 2))
    with pytest.raises(DataError) as caught:
        chosen_steps(tree, run, wanted)
    assert caught.value.exit_code == 65 and caught.value.hint
    with pytest.raises(DataError, match="no checkpoint"):
        chosen_steps(tree, Run([]), wanted)


def test_all_are_the_complete_ones_oldest_first(tmp_path: Path) -> None:
    tree, run = run_of(tmp_path, 10, 9, 8, cut=(9,), best=8)
    assert chosen_steps(tree, run, "all") == [8, 10]
    path = safetensors(tmp_path / "best.safetensors").name
    run = replace(run, best=Checkpoint(path, None, "best", (path,), (path,)))
    assert [item.checkpoint.path for item in choose(tree_of(tmp_path), run, "all")][-1] == path


def test_a_step_or_a_path_means_that_one_or_none(tmp_path: Path) -> None:
    tree, run = run_of(tmp_path, 10, 9, cut=(9,))
    for wanted in ("10", "010", "model_10.safetensors", "./model_10.safetensors", "model_10.safetensors/"):
        assert chosen_steps(tree, run, wanted) == [10]
    with pytest.raises(DataError, match="not complete"):
        chosen_steps(tree, run, "9")
    for wanted in ("11", "9" * 5000, "²", "nothing.pt", "", "../x", "-1"):
        with pytest.raises(UsageError) as caught:
            chosen_steps(tree, run, wanted)
        assert caught.value.exit_code == 64


def test_of_a_step_that_several_have_a_path_decides_unless_they_are_copies(tmp_path: Path) -> None:
    _, run = run_of(tmp_path, 10, 9)
    other = safetensors(tmp_path / "other.safetensors", seed=10).name
    twin = Checkpoint(other, 10, "periodic", (other,), (other,))
    run = replace(run, checkpoints=[*run.checkpoints, twin])
    assert chosen_steps(tree_of(tmp_path), run, "10") == [10]
    safetensors(tmp_path / "other.safetensors", seed=11)
    with pytest.raises(UsageError, match="several checkpoints have the step 10") as caught:
        chosen_steps(tree_of(tmp_path), run, "10")
    assert "model_10.safetensors" in str(caught.value.hint) and other in str(caught.value.hint)


def test_weights_that_no_layout_lists_are_taken_by_their_path(tmp_path: Path) -> None:
    safetensors(tmp_path / "exported" / "policy.safetensors")
    write_json(tmp_path / "exported" / "policy.json", {})
    write_json(tmp_path / "dataset_stats.json", {})
    safetensors(tmp_path / "exported" / "optimizer.safetensors")
    (tmp_path / "newest").symlink_to("exported")
    tree, run = run_of(tmp_path, 10, 9, best=9)
    policy, stats = ("exported/policy.json", "exported/policy.safetensors"), "dataset_stats.json"
    for wanted, path in (
        ("exported/policy.safetensors", "exported/policy.safetensors"),
        ("newest/policy.safetensors", "exported/policy.safetensors"),
        ("./exported/", "exported"),
        ("newest", "exported"),
    ):
        (chosen,) = choose(tree, run, wanted)
        assert chosen.is_unlisted
        assert (chosen.checkpoint.path, chosen.checkpoint.role) == (path, "unknown")
        assert (chosen.checkpoint.files, chosen.checkpoint.weights) == ((stats, *policy), policy[1:])
        assert dict(chosen.checkpoint.left_out) == {"exported/optimizer.safetensors": "optimizer state"}
    (listed,) = choose(tree, run, "model_9.safetensors")
    assert not listed.is_unlisted
    for wanted in ("exported/policy.json", "exported/optimizer.safetensors", "dataset_stats.json", "."):
        with pytest.raises(UsageError):
            chosen_steps(tree, run, wanted)


def test_weights_that_no_layout_lists_are_judged_as_well(tmp_path: Path) -> None:
    _, run = run_of(tmp_path / "run", 10)
    cut = safetensors(tmp_path / "run" / "exported" / "policy.safetensors")
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"exported/policy\.safetensors is not complete") as caught:
        chosen_steps(tree_of(tmp_path / "run"), run, "exported/policy.safetensors")
    assert "--checkpoint" not in (caught.value.hint or "")


def test_what_lies_inside_a_checkpoint_is_no_other_one(tmp_path: Path) -> None:
    safetensors(tmp_path / "step_5" / "model.safetensors")
    safetensors(tmp_path / "step_5" / "more" / "model.safetensors")
    safetensors(tmp_path / "optimizer_5.safetensors")
    safetensors(tmp_path / "model_6.safetensors")
    tree = tree_of(tmp_path)
    folder = Checkpoint("step_5", 5, "periodic", ("step_5/model.safetensors",), ("step_5/model.safetensors",))
    alone = ("model_6.safetensors",)
    left_out = (("optimizer_5.safetensors", "optimizer state"),)
    run = Run([Checkpoint("model_6.safetensors", 6, "periodic", alone, alone, left_out), folder])
    for wanted, whole in (
        ("step_5/model.safetensors", "step_5"),
        ("step_5/more", "step_5"),
        ("optimizer_5.safetensors", "model_6.safetensors"),
    ):
        with pytest.raises(UsageError, match=f"is part of the checkpoint {whole}"):
            chosen_steps(tree, run, wanted)


def test_the_folder_around_a_checkpoint_and_a_link_to_it_mean_it(tmp_path: Path) -> None:
    name = "checkpoints/005000/pretrained_model"
    safetensors(tmp_path / name / "model.safetensors")
    (tmp_path / "checkpoints" / "last").symlink_to("005000")
    file = f"{name}/model.safetensors"
    run = Run([Checkpoint(name, 5000, "periodic", (file,), (file,))])
    for wanted in ("005000", "checkpoints/005000", "checkpoints/last", "checkpoints/last/pretrained_model"):
        assert chosen_steps(tree_of(tmp_path), run, wanted) == [5000]


def test_best_is_the_best_or_an_error_never_another_one(tmp_path: Path) -> None:
    tree, run = run_of(tmp_path, 10, 9, best=9)
    assert chosen_steps(tree, run, "best") == [9]
    tree, run = run_of(tmp_path, 10, 9, best=9, cut=(9,))
    with pytest.raises(DataError):
        chosen_steps(tree, run, "best")
    with pytest.raises(DataError, match="best"):
        chosen_steps(tree, Run(run.checkpoints), "best")


def test_a_trusted_checkpoint_is_not_read_again(tmp_path: Path) -> None:
    tree, run = run_of(tmp_path, 10, 9, cut=(10,))
    (chosen,) = choose(tree, run, "final", trusted=lambda checkpoint: checkpoint.step == 10)
    assert chosen.checkpoint.step == 10


# --- --include and --exclude ---------------------------------------------------------------------------

FILES = ("ckpt/config.json", "ckpt/model.safetensors", "stats/norm.json")
WHOLE = Checkpoint("ckpt", 1, "final", FILES, FILES[1:2])


def test_patterns_match_the_path_the_path_in_the_checkpoint_or_the_name() -> None:
    for pattern in ("stats/norm.json", "norm.json", "stats/*"):
        assert "stats/norm.json" not in narrow(WHOLE, (), (pattern,)).files
    kept = narrow(WHOLE, ("*.safetensors", "config.json"), ())
    assert kept.files == ("ckpt/config.json", "ckpt/model.safetensors")
    assert kept.left_out == (("stats/norm.json", "not named by --include"),)
    assert narrow(WHOLE, (), ()) is WHOLE


def test_patterns_that_leave_no_weights_are_refused() -> None:
    for include, exclude in ((("*.json",), ()), ((), ("*.safetensors",)), (("*",), ("model.*",))):
        with pytest.raises(UsageError, match="weights"):
            narrow(WHOLE, include, exclude)
