"""One place knows the suffixes of files, what they mean, and how to tell whether a file is complete."""

from __future__ import annotations

import ast
import io
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import aml_mirror
from aml_mirror.formats.base import Format, Kind, Weights
from aml_mirror.formats.registry import FORMATS, format_of, problem_of, suffixes_of, weight_suffixes
from aml_mirror.sources import azure_blob
from aml_mirror.sources.leftovers import unfinished
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree

PACKAGE = Path(aml_mirror.__file__).parent
_ALL = {suffix.lstrip(".") for suffix in weight_suffixes(Weights.ALWAYS, Weights.OFTEN, Weights.NAMED)}


def problem(folder: Path, name: str, data: bytes, **beside: bytes) -> str:
    folder.mkdir(exist_ok=True)
    for other, content in {name: data, **beside}.items():
        (folder / other).write_bytes(content)
    source = LocalSource(folder)
    return problem_of(Tree(source, source.scan()), name, True)


def lists_of_suffixes(source: str) -> Iterator[str]:
    """Find collections and regular expressions that name at least three suffixes of weights."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            texts = [item.value for item in node.elts if isinstance(item, ast.Constant)]
            words = [text for text in texts if isinstance(text, str)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "|" in node.value:
            groups = re.findall(r"\\\.\((?:\?:)?([^()]*)\)", node.value)
            words = [word for group in groups for word in group.split("|")]
            words += re.findall(r"\w+", " ".join(re.findall(r"(?:\\\.\w+\|)+\\\.\w+", node.value)))
        else:
            continue
        named = {word.replace("\\", "").lstrip(".") for word in words} & _ALL
        if len(named) >= 3:
            yield f"line {node.lineno}: {sorted(named)}"


def test_no_other_module_lists_the_suffixes_of_weights() -> None:
    listed = {
        path.relative_to(PACKAGE).as_posix(): found
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent.name != "formats" and (found := list(lists_of_suffixes(path.read_text())))
    }
    # Sources are below the formats and cannot import them, so the next test compares the two. Logs use some
    # of the same containers as weights.
    assert listed.keys() == {"sources/leftovers.py", "sources/azure_blob.py", "metrics/unread_logs.py"}


def test_a_copy_of_weights_that_was_interrupted_is_seen_whatever_the_format() -> None:
    for suffix in weight_suffixes(Weights.ALWAYS, Weights.OFTEN, Weights.NAMED):
        assert suffix in azure_blob._LARGE, "an empty blob of it may be one that was never committed"
        assert unfinished(f"run/model{suffix}.part") == f"run/model{suffix}", suffix


@pytest.mark.parametrize(
    "source",
    [
        "SUFFIXES = ('.pt', '.pth', '.ckpt')",
        "X = {'.onnx', '.keras', '.h5'}",
        r"re.compile(r'x\.(?:pt|pth|bin)')",
    ],
)
def test_a_list_elsewhere_would_be_seen(source: str) -> None:
    assert list(lists_of_suffixes(source))


def test_no_two_formats_have_one_suffix_or_name() -> None:
    suffixes = [suffix for kind in FORMATS for suffix in kind.suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in suffixes)
    assert len({kind.name for kind in FORMATS}) == len(FORMATS)


def test_every_format_of_the_package_is_registered() -> None:
    declared = set()
    for path in (PACKAGE / "formats").glob("*.py"):
        module = __import__(f"aml_mirror.formats.{path.stem}", fromlist=["_"])
        declared |= {value.name for value in vars(module).values() if isinstance(value, Format)}
    assert declared == {kind.name for kind in FORMATS}


def test_what_runs_code_names_who_runs_it() -> None:
    assert [kind.name for kind in FORMATS if kind.kind is Kind.CODE and not kind.run_by] == []


def test_what_once_drifted_apart_is_known_as_weights() -> None:
    suffixes = weight_suffixes()
    for suffix in (".onnx", ".keras", ".h5", ".hdf5", ".cleanrl_model", ".safetensors", ".distcp", ".ocdbt"):
        assert suffix in suffixes
    assert ".json" not in suffixes
    assert ".npz" in weight_suffixes(Weights.NAMED)
    assert suffixes_of("torch.save") == (".pt", ".pth", ".ckpt", ".pth.tar", ".pt.tar", ".ckpt.tar")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/model.PT", "torch.save"),
        ("a/model.onnx.data", "tensors of ONNX"),
        ("checkpoint_100", "msgpack"),
        ("x/lib.so.1.2", "native library"),
        ("x/.metadata", "metadata of a torch distributed checkpoint"),
        ("stats.pkl.gz", "compressed file"),
        ("a.b/c", ""),
        ("v1.5.safetensors", "safetensors"),
        ("checkpoint.pth.tar", "torch.save"),
        ("logs.tar", "archive"),
    ],
)
def test_a_name_stands_for_a_format(path: str, name: str) -> None:
    known = format_of(path)
    assert (known.name if known else "") == name


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"{}" * 40)
    return stream.getvalue()


def field(number: int, data: bytes) -> bytes:
    length, size = b"", len(data)
    while size >= 128:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def hdf5(version: int, size: int = 600) -> bytes:
    head = b"\x89HDF\r\n\x1a\n" + bytes([version])
    if version == 0:
        head += bytes([0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHI", 4, 16, 0)
    elif version == 1:
        head += bytes([0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHIHH", 4, 16, 0, 32, 0)
    else:
        head += bytes([8, 8, 0])
    return (head + struct.pack("<QQQ", 0, (1 << 64) - 1, size)).ljust(size, b"\0")


def gguf(tensor_bytes: int = 64) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2)
    head += text("general.name") + struct.pack("<I", 8) + text("policy")
    head += text("tokenizer.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    head += text("w") + struct.pack("<IQIQ", 1, 16, 0, 0)
    return head.ljust(-(-len(head) // 32) * 32, b"\0") + b"\1" * tensor_bytes


WHOLE = {
    "policy.onnx": b"\x08\x08" + field(7, b"graph" * 100),
    "model.keras": zipped("metadata.json", "config.json", "model.weights.h5"),
    "policy.pt2": zipped("archive_format", "models/model.json"),
    "v0.h5": hdf5(0),
    "v1.h5": hdf5(1),
    "v2.hdf5": hdf5(2),
    "v3.h5": hdf5(3),
    "model.gguf": gguf(),
    "graph.pb": b"\x08\x01" + field(2, b"meta" * 100),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_was_cut_is_never_complete(tmp_path: Path, name: str) -> None:
    data = WHOLE[name]
    assert problem(tmp_path / "run", name, data) == ""
    assert problem(tmp_path / "run", name, b"") == "it is empty"
    for length in {3, 10, 20, 40, len(data) // 2, len(data) - 65 if "gguf" in name else len(data) - 1}:
        assert problem(tmp_path / "run", name, data[:length]), length


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", "model.zip", "a.cleanrl_model"])
def test_what_is_too_short_for_any_format_is_never_complete(tmp_path: Path, name: str) -> None:
    for data in (b"a", b"PK", b"abc"):
        assert problem(tmp_path / "run", name, data) == "it is too short for any format"


@pytest.mark.parametrize("version", [0, 1, 4])
def test_gguf_of_another_version_is_not_read(tmp_path: Path, version: int) -> None:
    data = b"GGUF" + struct.pack("<I", version) + gguf()[8:]
    assert problem(tmp_path / "run", "m.gguf", data) == "it is not a GGUF file of version 2 or 3"


@pytest.mark.parametrize(
    "name", ["policy.onnx", "model.keras", "v0.h5", "model.gguf", "a.d3", "a.cleanrl_model"]
)
def test_what_is_of_another_format_is_said(tmp_path: Path, name: str) -> None:
    # .d3 contains a pickle of any protocol. A pickle of the oldest one starts like any text.
    said = problem(tmp_path / "run", name, b"<!DOCTYPE html> not found" * 40)
    assert (said == "") == (name == "a.d3")


def test_a_distributed_checkpoint_is_as_long_as_its_metadata_says(tmp_path: Path) -> None:
    place = (
        b"\x80\x02}(X\x0d\x00\x00\x00relative_pathX\x0c\x00\x00\x00__0_0.distcpX\x06\x00\x00\x00offset"
        b"K\x0aX\x06\x00\x00\x00lengthK\x32u."
    )
    assert problem(tmp_path / "run", "__0_0.distcp", b"x" * 60, **{".metadata": place}) == ""
    said = problem(tmp_path / "run", "__0_0.distcp", b"x" * 59, **{".metadata": place})
    assert said == "it has 59 bytes, but .metadata says 60"
