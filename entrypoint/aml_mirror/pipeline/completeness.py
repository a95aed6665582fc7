"""Whether the bytes of a checkpoint are whole.

It is judged from the outside: a safetensors header against the file's size, a zip's directory against the
zip, a pickle's last byte, msgpack by its lengths, JSON by parsing. Nothing is unpickled, and of the large
files only some kilobytes are read.
"""

from __future__ import annotations

import json
import re
import struct

from aml_mirror.core.errors import DataError
from aml_mirror.formats.archives import LEGACY_TORCH, Archive
from aml_mirror.formats.msgpack import msgpack_problem
from aml_mirror.layouts.base import Checkpoint
from aml_mirror.sources.tree import MAX_TEXT_BYTES, Tree

# The format allows 100 MB of header (safetensors README); 10^5 tensors need a tenth of that. Parsing takes
# about ten times its size in memory, so this bounds what a hostile file can make us hold.
MAX_SAFETENSORS_HEADER = 32 << 20  # bytes
# Configuration files are parsed to see whether they are whole. Larger JSON, a tokenizer's above all, would
# take ten times its size in memory: its brackets are counted, up to MAX_TEXT_BYTES.
MAX_JSON_BYTES = 4 << 20
_JSON_PART_BYTES = 1 << 20
# torch.save in CleanRL's torch scripts, flax.serialization.to_bytes in its JAX ones.
_CLEANRL = ".cleanrl_model"
_ZIP_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".zip", _CLEANRL)
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".d3")
# An entry `policy` of `data` itself and not of one of its values, as data_to_json of SB3 indents it.
_POLICY_IN_DATA = re.compile(
    rb'\n    "policy": \{\s*":type:": "[^"\n]{1,200}",\s*":serialized:": "[A-Za-z0-9+/]{16}'
)
_MAX_HEAD_BYTES = 512


def judge(tree: Tree, checkpoint: Checkpoint) -> str:
    """Return why a checkpoint is not complete, or an empty string where it is.

    Raises:
        NotAllowed: one of its files may not be read.
    """
    if checkpoint.problem:
        return checkpoint.problem
    if not checkpoint.weights:
        return "it holds no weights"
    for path in checkpoint.files:
        if leftover := tree.leftover_of(path):
            return f"{path}: its copy was interrupted, {leftover} is what there is of it"
        try:
            why = _judge_file(tree, path, path in checkpoint.weights)
        except DataError as error:
            return error.message
        except KeyError:
            return f"{path} is missing"
        if why:
            return f"{path}: {why}"
    return ""


def _judge_file(tree: Tree, path: str, holds_weights: bool) -> str:
    size = tree.size(path)
    if size == 0:
        # Markers and __init__ files are empty by right; weights and configurations never are.
        return "it is empty" if holds_weights or path.endswith((".json", ".safetensors", ".pkl")) else ""
    if path.endswith(".safetensors"):
        return _judge_safetensors(tree, path, size)
    if path.endswith(".json"):
        return _judge_json(tree, path, size)
    if path.endswith(_ZIP_SUFFIXES) and (holds_weights or tree.read(path, 0, 2) == b"PK"):
        return _judge_saved(tree, path, size)
    if path.endswith(".msgpack"):
        return msgpack_problem(lambda offset, count: tree.read(path, offset, count), size)
    if path.endswith(".npz"):
        return _judge_archive(tree, path, size)
    if (
        path.endswith(_PICKLE_SUFFIXES)
        and tree.read(path, 0, 1) == b"\x80"
        and tree.read(path, size - 1, 1) != b"."
    ):
        return "its pickle has no end: the file was cut"
    return ""


def _judge_safetensors(tree: Tree, path: str, size: int) -> str:
    """8 bytes of header length, the header in JSON, then the tensors without a gap (safetensors README)."""
    if size < 8:
        return "it is too short for a safetensors file"
    (length,) = struct.unpack("<Q", tree.read(path, 0, 8))
    if length > MAX_SAFETENSORS_HEADER:
        return "it is not a safetensors file"
    if 8 + length > size:
        return "its header is cut"
    try:
        header = json.loads(tree.read(path, 8, length))
        end = 0
        for start, stop in sorted(
            entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"
        ):
            # The format allows no gap and no overlap; True is an integer to Python, and 10^5000 has no end.
            if type(start) is not int or type(stop) is not int or start != end or not end <= stop < 1 << 63:
                raise ValueError
            end = stop
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return "its safetensors header is damaged"
    if 8 + length + end != size:
        return f"it has {size} bytes, its header says {8 + length + end}"
    return ""


def _judge_json(tree: Tree, path: str, size: int) -> str:
    if size <= MAX_JSON_BYTES:
        try:
            tree.read_json(path)
        except DataError:
            return "it is not valid JSON"
        return ""
    if tree.read(path, max(0, size - 64), 64).rstrip()[-1:] not in (b"}", b"]"):
        return "its end is missing"
    return "" if size > MAX_TEXT_BYTES or _brackets_close(tree, path, size) else "its end is missing"


def _brackets_close(tree: Tree, path: str, size: int) -> bool:
    depth, in_string, rest = 0, False, b""
    for offset in range(0, size, _JSON_PART_BYTES):
        part = rest + tree.read(path, offset, _JSON_PART_BYTES)
        # A backslash and what follows it: neither closes a string.
        rest = b"\\" if (len(part) - len(part.rstrip(b"\\"))) % 2 else b""
        pieces = re.sub(rb"\\.", b"", part[: len(part) - len(rest)], flags=re.S).split(b'"')
        outside = b"".join(pieces[in_string::2])
        in_string ^= len(pieces) % 2 == 0
        depth += outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")
    return depth == 0 and not in_string


def _judge_archive(tree: Tree, path: str, size: int) -> str:
    try:
        Archive(lambda offset, count: tree.read(path, offset, count), size)
    except ValueError as error:
        return str(error)
    return ""


def _judge_saved(tree: Tree, path: str, size: int) -> str:
    """A file of torch.save, or a zip of them (Stable-Baselines3)."""
    if size < 4:
        return "it is too short for any format"
    if tree.read(path, 0, 2) != b"PK":
        if path.endswith(".zip"):
            return "it does not begin as a zip archive"
        return _judge_plain_pickle(tree, path, size)
    try:
        archive = Archive(lambda offset, count: tree.read(path, offset, count), size)
        if archive.find("_stable_baselines3_version") or path.endswith(".zip"):
            return _judge_stable_baselines3(tree, path, archive)
        if archive.find("data.pkl") is None:
            return "it is a zip archive, but not one of torch: data.pkl is missing"
    except ValueError as error:
        return str(error)
    return ""


def _judge_stable_baselines3(tree: Tree, path: str, archive: Archive) -> str:
    # What BaseAlgorithm.load asks for (stable_baselines3.common.save_util): the hyperparameters in
    # `data` and at least one set of parameters; the version is written after both. SBX, the same in JAX, has
    # no parameters of torch and leaves the policy itself in `data`.
    if "_stable_baselines3_version" not in archive.members:
        return "" if archive.find("data.pkl") else "it is a zip archive, but of no known kind"
    parameters = [
        name for name in archive.members if name.endswith(".pth") and name != "pytorch_variables.pth"
    ]
    if "data" not in archive.members or not (parameters or _holds_policy(tree, path, archive)):
        return "it lacks what a Stable-Baselines3 file must hold (data and policy.pth)"
    for name in parameters:
        inner = archive.members[name]
        if inner.stored and tree.read(path, inner.start, 2) == b"PK":
            try:
                Archive(
                    lambda offset, count, start=inner.start: tree.read(path, start + offset, count),  # type: ignore[misc]
                    inner.bytes,
                )
            except ValueError as error:
                return f"in {name}: {error}"
    return ""


def _holds_policy(tree: Tree, path: str, archive: Archive) -> bool:
    """Tell whether `data` holds a pickled policy (sbx/common/on_policy_algorithm.py; a file of 0.28 seen)."""
    data = archive.members["data"]
    if not data.stored:
        return False
    # The whole model is in there, as text: it is searched by parts, not parsed.
    rest = b""
    for offset in range(0, data.bytes, _JSON_PART_BYTES):
        part = rest + tree.read(path, data.start + offset, min(_JSON_PART_BYTES, data.bytes - offset))
        if _POLICY_IN_DATA.search(part):
            return True
        rest = part[-_MAX_HEAD_BYTES:]
    return False


def _judge_plain_pickle(tree: Tree, path: str, size: int) -> str:
    head = tree.read(path, 0, len(LEGACY_TORCH))
    if head == LEGACY_TORCH:
        # The old format ends with raw tensors, whose sizes only the pickle knows: only an all too early
        # end can be seen.
        return "it ends where its tensors should begin" if size < 512 else ""
    if head.startswith(b"\x80"):
        return "" if tree.read(path, size - 1, 1) == b"." else "its pickle has no end: the file was cut"
    if path.endswith(_CLEANRL):
        why = msgpack_problem(lambda offset, count: tree.read(path, offset, count), size)
        return f"it is no file of torch.save, and as msgpack: {why}" if why else ""
    # .bin is many things; the other suffixes are torch's.
    return "" if path.endswith(".bin") else "it is no file of torch.save"
