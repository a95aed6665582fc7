"""Code that a loader runs without a pickle: each kind is ``code``, ``suspicious`` or ``unknown``, with a
reason.
"""

# ruff: noqa: E501 - tables, one row a line

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml

from aml_mirror.core.errors import DataError, UsageError
from aml_mirror.core.option_values import accepted_file
from aml_mirror.pipeline.model_paths import artifact_path
from aml_mirror.safety import verdict as safety
from aml_mirror.safety.file_scan import File, scan_file
from aml_mirror.safety.known_code import target_problem
from aml_mirror.safety.words import CLEAN, CODE, HARMLESS, NO_CODE, SUSPICIOUS, UNKNOWN, current
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree


class Marks:
    """Pickles as a call that would set a flag."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("import builtins; builtins.marked = True",)


EVIL = pickle.dumps(Marks(), 4)
GOOD = pickle.dumps({"weights": [1, 2]}, 4)


def scan(folder: Path, path: str, data: bytes | str, **beside: bytes) -> File:
    for name, content in {path: data, **beside}.items():
        target = folder / "run" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    source = LocalSource(folder / "run")
    return scan_file(Tree(source, source.scan()), path)


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def processor(**step: object) -> str:
    return json.dumps({"name": "policy_preprocessor", "steps": [{"config": {}, **step}]})


def gguf(template: str = "") -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    pairs = {"general.name": "policy"} | ({"tokenizer.chat_template": template} if template else {})
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs))
    return head + b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in pairs.items())


def field(number: int, data: bytes) -> bytes:
    """A field of a protobuf message."""
    return bytes([number << 3 | 2, len(data)]) + data


def onnx_data(path: bytes) -> bytes:
    """A model with a tensor in another file. The entry's value comes before its key."""
    return field(7, field(5, field(13, field(2, path) + field(1, b"location")) + field(8, b"w")))


def hdf5(name: str, text: bytes) -> bytes:
    """A file whose root has one attribute, a text of fixed length."""
    kind = b"\x13\0\0\0" + struct.pack("<I", len(text))
    space = b"\x02\0\0\0"
    parts = name.encode() + b"\0" + kind + space + text
    body = struct.pack("<BBHHHB", 3, 0, len(name) + 1, len(kind), len(space), 0) + parts
    message = struct.pack("<BHB", 12, len(body), 0) + body
    root = b"OHDR\x02\x02" + struct.pack("<I", len(message)) + message + bytes(4)
    end = 48 + len(root)
    return b"\x89HDF\r\n\x1a\n\x02\x08\x08\0" + struct.pack("<QQQQI", 0, (1 << 64) - 1, end, 48, 0) + root


def saved_model(operation: str) -> bytes:
    node = field(1, field(1, b"node") + field(2, operation.encode()))
    return field(2, field(2, node))


def keras(layer: dict[str, object], weights: bytes = b"") -> bytes:
    config = {"class_name": "Sequential", "module": "keras", "config": {"layers": [layer]}}
    members = {"metadata.json": b"{}", "config.json": json.dumps(config).encode()}
    return zipped(members | ({"model.weights.npz": weights} if weights else {}))


DENSE = {"class_name": "Dense", "module": "keras.layers", "config": {"units": 2}, "registered_name": None}
LAMBDA = {
    "class_name": "Lambda",
    "module": "keras.layers",
    "config": {"function": {"class_name": "__lambda__"}},
}


def written(text: str) -> bytes:
    """A file of a few KiB that h5py 3 wrote."""
    return zlib.decompress(base64.b64decode(text))


# A link to another file, an array in another file by either form of header, and a link to a file next to it.
HDF5_LINKS = {
    "link": written(
        "eNrr9HBx4+WS4mIAAQ4OBhYGAQZk8B8KKthR+TD5BCjNCKU7oPQKJpg4I1hOAiouCDUfXV1IkKsrSPV/NACz5wErhOZgGAUjEXi4OgaA6AgoH5ZKTzChqktES48eFNrLCMwRyOlXAGqzBjQ/BDAgp18GnOl3FIymX+T0CyvHOljR0xtquqIUBPv5u4BKYJh9Csxo+QPKz2AdjSN8gAleAmDP4VzAEGZEUs8GVc/I4cBYASwy9FNLkvULEouLy1MY9CsZGACGKVZn"
    ),
    "array": written(
        "eNrr9HBx4+WS4mIAAQ4OBhYGAQZk8B8KDnCi8mHyCVCaEUp3QOkVTDBxRrCcBFRcEGo+urqQIFdXkOr/aABmzwNWCM3BMApGIvBwdQwA0RFQPiyVnmBCVZeTWJlaVIxIjx4U2osr/XowQ/gZrMSl3wqO0fQ7mn4x028HK6q6crTylNL0G+zn7wJKwbB0p8CMZj5aOh4FuMoBNkiYMcL4kBKBkREiwAJVB6OZgTHMCI1nRqSczwqkQXwmJiawMDuDBpjPCC1rLHCUEzBzOaD2MjPCShgWNJUJdE3PCmjpOQLN4Xp6+hXI6U0AR7rUYB9NY+QAADLAUdM="
    ),
    "latest": written(
        "eNrr9HBx4+WS4mLm4GCAgf9QUMUE4RtAxW8sYgzz93AJYmKoYBJCVggDXEwMjAwMbIIMQIotJ7Eytah4M8xQZwZqANaSmZnEOIEH5ATGcjNGqD4PBqqBSTOXaoKdALSAUYSBgYmRkZEFKgejmXkYGAUYQG4AAQ4GVqCrmLnYNYA6wKKMDE7QsOVAMx1mAgfQd8yMMF/BRBl6GAYVcH9ZeMrD1TEAxJaAisGCPIkJVa1+akmyfkFicXF5CpgPAKBwSp0="
    ),
    "inside": written(
        "eNrr9HBx4+WS4mIAAQ4OBhYGAQZk8B8KFnCg8mHyCVCaEUp3QOkVTDBxRrCcBFRcEGo+urqQIFdXkOr/aABmzwNWCI3qulEwUoCHq2MAiI6A8jWg9AkmVHWJULocShdDaf1y1HRqQKS9jMAcgZx+BaApUIMdwg9gQE6/DDjT7ygYTb/I6ZcDVl6yoqc31HRFKQj283dhZGCG26fAjGqPB5SfAXWHBFq5D8teCmjmwsrhCvaREX9MGCGDmsO5gCHMiKSeDaqekcOBsYKXgSG/JCO1SC/DlEG/Ehr+rBD1jLD4gKpnhAhAowWJlgArFVSwh8alA4MJN4PJf6gCVqj9TExMjJD0BTGPmbGDAzVmGdBq6sENAMV7Y4U="
    ),
}


FUNCTION: dict[str, object] = {"class_name": "function", "registered_name": "function"}


def npz(value: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.array([value], dtype=object) if not isinstance(value, np.ndarray) else value)
    return stream.getvalue()


ELF = b"\x7fELF\x02\x01\x01" + bytes(100)

_RUNS: dict[str, tuple[str, bytes | str, str, str]] = {
    # what -> path, bytes, verdict, a word of the finding
    "LeRobot step": ("policy_preprocessor.json", processor(**{"class": "evil.module.Step"}), CODE, "evil.module.Step"),
    "LeRobot step, imported by a module": (
        "policy_preprocessor.json", processor(**{"class": "lerobot.utils.utils.subprocess.Popen"}), CODE, "Popen",
    ),
    "LeRobot step, function": ("p.json", processor(**{"class": "lerobot.scripts.train.train"}), CODE, "train"),
    "Hydra in YAML": ("config.yaml", "policy:\n  _target_: os.system\n  command: id\n", CODE, "os.system"),
    "Hydra in JSON": ("config.json", '{"policy": {"_target_": "builtins.eval"}}', CODE, "builtins.eval"),
    "Hydra through a framework": ("config.yaml", "_target_: diffusion_policy.common.os.system\n", CODE, "os.system"),
    "Hydra, a loader": ("config.yaml", "_target_: torch.load\n", CODE, "torch.load"),
    "Hydra, own class": ("config.yaml", "_target_: my_lab.policies.Walker\n", CODE, "my_lab.policies.Walker"),
    "Hydra in a checkpoint": (
        "model.ckpt", pickle.dumps({"cfg": {"_target_": "os.system", "_args_": ["id"]}}, 2), CODE, "os.system",
    ),
    "eval in a configuration": ("config.yaml", "n: \"${eval:'__import__(chr(111)).x'}\"\n", SUSPICIOUS, "evaluates"),
    "eval in a checkpoint": ("model.ckpt", pickle.dumps({"n": "${eval:open('x')}"}, 2), SUSPICIOUS, "evaluates"),
    "auto_map": ("config.json", '{"auto_map": {"AutoModel": "modeling.Net"}}', CODE, "trust_remote_code"),
    "MLmodel": ("MLmodel", "flavors:\n  python_function:\n    loader_module: evil\n", CODE, "loader_module"),
    "MLmodel with code": ("MLmodel", "flavors:\n  python_function:\n    code: code\n", CODE, "load_model"),
    "Keras Lambda": ("model.keras", keras(LAMBDA), CODE, "Lambda"),
    "Keras module": ("model.keras", keras({"class_name": "system", "module": "os", "config": {}}), CODE, "os.system"),
    "Keras weights": ("model.keras", keras(DENSE, npz(Marks())), SUSPICIOUS, "builtins.exec"),
    "pt2": ("policy.pt2", zipped({"p/archive_format": b"pt2", "p/models/model.json": b"{}"}), CODE, "torch.export"),
    "exported program": ("p.zip", zipped({"serialized_exported_program.json": b"{}"}), CODE, "torch.export"),
    "pt2 with a library": ("policy.pt2", zipped({"p/data/aotinductor/model/x.so": ELF}), CODE, "ELF"),
    "SavedModel": ("saved_model.pb", saved_model("MatMul"), CODE, "saved_model"),
    "SavedModel that reads": ("saved_model.pb", saved_model("ReadFile"), SUSPICIOUS, "ReadFile"),
    "SavedModel that writes": ("saved_model.pb", saved_model("WriteFile"), SUSPICIOUS, "WriteFile"),
    "GGUF template": ("model.gguf", gguf("{% for m in messages %}{{ m['content'] }}{% endfor %}"), CODE, "chat template"),
    "GGUF attack": ("model.gguf", gguf("{{ ''.__class__.__mro__ }}"), SUSPICIOUS, "sandbox"),
    "template attack": ("tokenizer_config.json", json.dumps({"chat_template": "{{ x|attr('a') }}"}), SUSPICIOUS, "sandbox"),
    "template attack, file": ("chat_template.jinja", "{{ self.__init__ }}", SUSPICIOUS, "sandbox"),
    "YAML apply": ("config.yaml", "!!python/object/apply:os.system [id]\n", SUSPICIOUS, "os.system"),
    "YAML new": ("config.yaml", "a: !!python/object/new:subprocess.Popen [id]\n", SUSPICIOUS, "Popen"),
    "YAML name": ("env.yml", "f: !!python/name:os.system ''\n", SUSPICIOUS, "os.system"),
    "YAML module": ("env.yml", "f: !!python/module:os ''\n", SUSPICIOUS, "module"),
    "YAML, whole tag": ("a.yaml", "!<tag:yaml.org,2002:python/object/apply:os.system> [id]\n", SUSPICIOUS, "os.system"),
    "YAML, tag directive": ("a.yaml", "%TAG !p! tag:yaml.org,2002:python/\n---\n!p!object/apply:os.system [id]\n", SUSPICIOUS, "os.system"),
    "native library": ("lib/libplugin.so", ELF, CODE, "ELF"),
    "native library under another name": ("weights.bin", ELF, CODE, "ELF"),
    "TensorRT engine": ("policy.engine", b"ftrt" + bytes(60), CODE, "TensorRT"),
    "TensorRT plan": ("policy.plan", bytes(60), CODE, "TensorRT"),
    "Python": ("modeling.py", "import os\n", CODE, "Python"),
    "shell": ("run.sh", "echo\n", CODE, "shell"),
    "script without a suffix": ("install", "#!/bin/sh\n", CODE, "script"),
    "TFLite": ("p.tflite", bytes(20), CODE, "interpreter"),
    "7-Zip": ("data.7z", b"7z\xbc\xaf\x27\x1c" + bytes(40), UNKNOWN, "7-Zip"),
    "zip of anything": ("data.zip", zipped({"a.txt": b"hello"}), UNKNOWN, "unknown kind"),
    "zip with a script": ("data.zip", zipped({"a.sh": b"echo"}), CODE, "shell"),
    "large JSON": ("tokenizer.json", '{"_target_": "os.system", "x": "' + "a" * (5 << 20) + '"}', UNKNOWN, "_target_"),
    "large JSON, escaped": ("t.json", '{"\\u005ftarget_": "os.system", "x": "' + "a" * (5 << 20) + '"}', UNKNOWN, "u005f"),
    "made-up name": ("policy.xyz", bytes(range(256)), UNKNOWN, "its format is unknown"),
    "class of LightningCLI": ("config.yaml", "model:\n  class_path: my_lab.Walker\n  init_args: {}\n", CODE, "my_lab"),
    "target of latent diffusion": ("config.yaml", "model:\n  target: os.system\n  params: {command: id}\n", CODE, "os.system"),
    "Hydra, key by an alias": ("c.yaml", "k: &t _target_\np:\n  *t : os.system\n", CODE, "os.system"),
    "Hydra, value by an alias": ("c.yaml", "k: &t os.system\np:\n  _target_: *t\n", CODE, "os.system"),
    "Hydra, value by reference": ("c.yaml", "k: os.system\np:\n  _target_: ${k}\n", CODE, "${k}"),
    "Hydra, twice": ("c.yaml", "_target_: os.system\n_target_: torch.nn.Linear\n", CODE, "os.system"),
    "Hydra, key of a key": ("c.yaml", "? {_target_: os.system}\n: 1\n", CODE, "os.system"),
    "Hydra, a module": ("c.json", '{"_target_": "evil"}', CODE, "evil"),
    "Isaac Lab, function": ("env.yaml", "rewards:\n  a: {func: 'os:system'}\n", SUSPICIOUS, "os:system"),
    "Isaac Lab, lambda": ("env.yaml", "a: 'lambda env: __import__(\"os\")'\n", SUSPICIOUS, "lambda"),
    "PEFT": ("adapter_config.json", '{"auto_mapping": {"base_model_class": "X", "parent_library": "evil"}}', CODE, "PEFT"),
    "shards elsewhere": ("m.index.json", '{"weight_map": {"a": "../../evil.bin"}}', SUSPICIOUS, "evil.bin"),
    "shards at a root": ("m.index.json", '{"weight_map": {"a": "C:/evil.bin"}}', SUSPICIOUS, "evil.bin"),
    "diffusers, pipeline": ("model_index.json", '{"_class_name": ["pipeline_evil", "Evil"]}', CODE, "pipeline_evil"),
    "diffusers, part": ("model_index.json", '{"unet": ["my_unet", "Net"]}', CODE, "my_unet"),
    "diffusers, custom pipeline": ("config.json", '{"custom_pipeline": "evil/pipe"}', CODE, "custom_pipeline"),
    "kernel of the Hub": ("config.json", '{"_attn_implementation": "evil/kernel"}', CODE, "evil/kernel"),
    "sentence-transformers": ("modules.json", '[{"idx": 0, "path": "", "type": "evil.Net"}]', CODE, "evil.Net"),
    "jsonpickle": ("a.json", '{"py/reduce": [{"py/function": "os.system"}, {"py/tuple": ["id"]}]}', SUSPICIOUS, "py/reduce"),
    "jsonpickle, object": ("a.json", '{"py/object": "subprocess.Popen"}', SUSPICIOUS, "Popen"),
    "notebook under another name": ("notes", '{"cells": [], "nbformat": 4}', CODE, "notebook"),
    "xacro": ("robot.xacro", '<robot name="${().__class__}"/>', SUSPICIOUS, "xacro"),
    "Zarr of pickles": (".zarray", '{"filters": [{"id": "pickle"}], "dtype": "|O"}', SUSPICIOUS, "pickle"),
    "Zarr 3 of pickles": ("zarr.json", '{"codecs": [{"name": "numcodecs.pickle"}]}', SUSPICIOUS, "pickle"),
    "Keras, file from the net": ("m.keras", keras(FUNCTION | {"module": "keras.utils", "config": "get_file"}), CODE, "get_file"),
    "Keras, safety off": ("m.keras", keras(FUNCTION | {"module": "keras.config", "config": "enable_unsafe_deserialization"}), CODE, "enable_unsafe"),
    "Keras, built-in function": ("m.keras", keras(FUNCTION | {"module": "builtins", "config": "exec"}), SUSPICIOUS, "exec"),
    "Keras, built-in class": ("m.keras", keras({"class_name": "exec", "module": "builtins", "config": {}}), CODE, "exec"),
    "Keras, function of the system": ("m.keras", keras(FUNCTION | {"module": "os", "config": "system"}), CODE, "os.system"),
    "Keras, file of words": ("m.keras", keras({**DENSE, "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}), CODE, "/etc/passwd"),
    "Keras, leads out": ("m.keras", zipped({"metadata.json": b"{}", "config.json": b"{}", "../x": b"x"}), SUSPICIOUS, "leads out"),
    "SavedModel as text": ("saved_model.pbtxt", "saved_model_schema_version: 1\n", CODE, "saved_model.load"),
    "graph as text": ("graph.pbtxt", 'node {\n  name: "x"\n  op: "ReadFile"\n}\n', CODE, "TensorFlow graph"),
    "ONNX, tensors elsewhere": ("m.onnx", onnx_data(b"../../etc/passwd"), SUSPICIOUS, "/etc/passwd"),
    "ONNX, tensors at a root": ("m.onnx", onnx_data(b"/etc/passwd"), SUSPICIOUS, "/etc/passwd"),
    "ONNX that calls Python": ("m.onnx", field(7, field(1, field(4, b"PyOp"))), CODE, "PyOp"),
    "ONNX, in a branch": ("m.onnx", field(7, field(1, field(5, field(6, field(1, field(4, b"PyOp")))))), CODE, "PyOp"),
    "XML with entities": ("robot.urdf", '<!DOCTYPE r [<!ENTITY e SYSTEM "file:///etc/passwd">]><robot/>', SUSPICIOUS, "entities"),
    "Arrow that is unpickled": ("a.feather", b"ARROW1\0\0" + b"arrow.py_extension_type", SUSPICIOUS, "py_extension_type"),
    "Parquet that is unpickled": ("a.parquet", b"PAR1" + base64.b64encode(b"??arrow.py_extension_type??"), SUSPICIOUS, "py_extension_type"),
    "make": ("Makefile", "all:\n\techo\n", CODE, "Makefile"),
    "Docker": ("Dockerfile", "FROM scratch\nRUN id\n", CODE, "Dockerfile"),
    "settings of a shell": (".bashrc", "alias ls=id\n", CODE, "bashrc"),
    "script without a mark": ("install", "rm -rf /\n", UNKNOWN, "its format is unknown"),
    "archive behind a picture": ("a.png", b"\x89PNG\r\n\x1a\n" + zipped({"__main__.py": b""}), UNKNOWN, "zip archive"),
    "variables that are none": ("ckpt.index", bytes(range(200)), UNKNOWN, "its format is unknown"),
    "events that are none": ("events.out.tfevents.1.host", b"hello" * 20, UNKNOWN, "its format is unknown"),
    "HDF5 of PyTables": ("m.h5", hdf5("PYTABLES_FORMAT_VERSION", b"2.1"), CODE, "PyTables"),
    "HDF5 with a link": ("m.h5", HDF5_LINKS["link"], SUSPICIOUS, "/etc/passwd"),
    "HDF5 with an array elsewhere": ("m.h5", HDF5_LINKS["array"], SUSPICIOUS, "../x"),
    "HDF5 with an array elsewhere, newer": ("m.h5", HDF5_LINKS["latest"], SUSPICIOUS, "/etc/passwd"),
    "HDF5 with a Lambda": ("m.h5", hdf5("model_config", json.dumps(LAMBDA).encode()), CODE, "Lambda"),
    "large JSON, blanks": ("t.json", '{"_target_"' + " " * (2 << 20) + ': "os.system", "x": "' + "a" * (5 << 20) + '"}', UNKNOWN, "_target_"),
    "JSON that is none": ("config.json", "hello", UNKNOWN, "JSON"),
    "safetensors that are none": ("model.safetensors", bytes(64), UNKNOWN, "safetensors"),
    "msgpack that is none": ("m.msgpack", b"hello", UNKNOWN, "msgpack"),
    "HDF5 that cannot be read": ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(600), UNKNOWN, "HDF5"),
}  # fmt: skip


@pytest.mark.parametrize("what", _RUNS)
def test_code_is_told_and_named(tmp_path: Path, what: str) -> None:
    path, data, verdict, word = _RUNS[what]
    file = scan(tmp_path, path, data)
    assert (file.safety, word in " ".join(file.problems)) == (verdict, True), file.problems


# Each anchor refers twice to the one before, which makes 2 to the power of 60 texts for a reader that follows
# all.
BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))])


@pytest.mark.parametrize(
    ("end", "verdict"),
    [
        ("chat_template: *a59", NO_CODE),
        ("chat_template: &s {of: *s}", NO_CODE),
        ("py/object: *a59", SUSPICIOUS),
        ("class_name: function\nconfig: *a59", NO_CODE),
        ("class_name: x\nmodule: *a59\nconfig: *a59", CODE),
    ],
)
def test_anchors_that_unfold_without_end_are_looked_at_once(tmp_path: Path, end: str, verdict: str) -> None:
    assert scan(tmp_path, "c.yaml", f"{BOMB}\n{end}\n").safety == verdict


@pytest.mark.parametrize(
    "name", ["m.sav", "m.pkl.gz", "m.pbz2", "m.pklz", "m.p", "m.bin", "weights", "m.joblib.xz", "x.json"]
)
@pytest.mark.parametrize("how", ["gzip", "bzip2", "xz", "lzma", "zlib", "zstd", "twice"])
def test_a_compressed_pickle_is_found_under_any_name(tmp_path: Path, how: str, name: str) -> None:
    from aml_mirror.safety.unpacking import zstd

    pack = {
        "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zlib": zlib.compress,
        "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE), "zstd": zstd.compress,
        "twice": lambda data: gzip.compress(bz2.compress(data)),
    }[how]  # fmt: skip
    assert scan(tmp_path, name, pack(EVIL)).safety == SUSPICIOUS
    assert scan(tmp_path, name, pack(GOOD)).safety == CLEAN
    assert scan(tmp_path, name, pack(EVIL)[:-9]).safety == SUSPICIOUS
    # A second stream after the first is part of the file.
    assert scan(tmp_path, name, pack(GOOD) + pack(EVIL)).safety == SUSPICIOUS


_HARMLESS: dict[str, tuple[str, bytes | str, str]] = {
    "LeRobot, registered": ("p.json", processor(registry_name="normalizer_processor"), NO_CODE),
    "LeRobot, own class": ("p.json", processor(**{"class": "lerobot.processor.rename.RenameProcessorStep"}), NO_CODE),
    "Hydra, known class": ("c.yaml", "_target_: diffusers.schedulers.scheduling_ddpm.DDPMScheduler\n", NO_CODE),
    "Hydra, known function": ("c.yaml", "_target_: diffusion_policy.model.vision.model_getter.get_resnet\n", NO_CODE),
    "Hydra in a checkpoint": ("a.ckpt", pickle.dumps({"_target_": "torch.optim.AdamW"}, 2), CLEAN),
    "arithmetic": ("c.yaml", "n: ${eval:'15 if ${task.n} else 2*${n_obs_steps}-1'}\n", NO_CODE),
    "YAML tuple": ("env.yaml", yaml.dump({"size": (1, 2), "name": "x"}), NO_CODE),
    "YAML, slice": ("env.yaml", "a: !!python/object/apply:builtins.slice [null, null, null]\n", NO_CODE),
    "chat template": ("tokenizer_config.json", '{"chat_template": "{% for m in messages %}{{ m }}{% endfor %}"}', NO_CODE),
    "empty auto_map": ("config.json", '{"auto_map": {}}', NO_CODE),
    "Keras": ("model.keras", keras(DENSE), NO_CODE),
    "Keras with arrays": ("model.keras", keras(DENSE, npz(np.arange(3))), NO_CODE),
    "GGUF": ("model.gguf", gguf(), NO_CODE),
    "Hydra by an alias": ("c.yaml", "k: &t torch.optim.AdamW\np: &p\n  _target_: *t\nq: *p\n", NO_CODE),
    "Isaac Lab": ("env.yaml", "func: isaaclab.envs.mdp:joint_pos\nb: my_lab.mdp:reward\nc: 'random:uniform'\nd: 'lambda x: x'\n", NO_CODE),
    "class of LightningCLI": ("config.yaml", "class_path: lightning.pytorch.callbacks.ModelCheckpoint\n", NO_CODE),
    "PEFT": ("adapter_config.json", '{"auto_mapping": {"base_model_class": "X", "parent_library": "transformers.models"}}', NO_CODE),
    "shards": ("m.index.json", '{"weight_map": {"a": "model-00001.safetensors"}}', NO_CODE),
    "diffusers": ("model_index.json", '{"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"], "safety": [null, null]}', NO_CODE),
    "attention": ("config.json", '{"_attn_implementation": "sdpa", "auto_map": null}', NO_CODE),
    "Zarr": (".zarray", '{"filters": null, "compressor": {"id": "blosc"}}', NO_CODE),
    "Keras, functions": ("model.keras", keras({**DENSE, "config": {"activation": FUNCTION | {"module": "keras.activations", "config": "relu"}}}), NO_CODE),
    "Keras, function by name": ("model.keras", keras(FUNCTION | {"module": "builtins", "config": "relu"}), NO_CODE),
    "ONNX with data": ("m.onnx", onnx_data(b"m.onnx.data"), NO_CODE),
    "labels as text": ("labels.pbtxt", 'item {\n  id: 1\n  name: "cup"\n}\n', NO_CODE),
    "XML": ("robot.urdf", '<?xml version="1.0"?><robot name="x"/>', NO_CODE),
    "pointer of TensorFlow": ("checkpoint", 'model_checkpoint_path: "ckpt-10"\nall_model_checkpoint_paths: "ckpt-10"\n', NO_CODE),
    "pointer of DeepSpeed": ("latest", "global_step100", NO_CODE),
    "variables": ("ckpt.index", bytes(60) + bytes.fromhex("57fb808b247547db"), NO_CODE),
    "HDF5": ("m.h5", hdf5("note", b"x"), NO_CODE),
    "HDF5 with links inside": ("m.h5", HDF5_LINKS["inside"], NO_CODE),
    "licence": ("LICENSE", "Permission is granted\n", NO_CODE),
    "README": ("README.md", "# A policy\n", NO_CODE),
    "picture": ("x.png", b"\x89PNG\r\n\x1a\n" + bytes(20), NO_CODE),
    "empty": ("__init__.py", b"", NO_CODE),
    "table": ("stats.csv", "a,b\n1,2\n", NO_CODE),
    "Orbax metadata": ("_METADATA", '{"tree_metadata": {}}', NO_CODE),
    "large tokenizer": ("tokenizer.json", '{"vocab": {"class": 4871, "filters": 1}, "x": "' + "ä\\u0120" * (1 << 20) + '"}', NO_CODE),
}  # fmt: skip


@pytest.mark.parametrize("what", _HARMLESS)
def test_what_runs_nothing_is_no_false_alarm(tmp_path: Path, what: str) -> None:
    path, data, verdict = _HARMLESS[what]
    file = scan(tmp_path, path, data)
    assert file.safety == verdict, file.problems


def header(descr: object) -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": (1,)}).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("descr", "objects"),
    [
        ([("Obs", "<f4"), ("obj", "<i8", (3,))], False),
        ([(("title O", "name"), "|V2")], False),
        ([("a", [("inner O", "<U7")])], False),
        ("<M8[ns]", False),
        (("<f4", (2,)), False),
        ("|O", True),
        ([("a", "|O")], True),
        ([("a", "<f4"), ("b", [("c", "O8")])], True),
        ([("a", ("object", (2,)))], True),
        ("f4,O", True),
        ("(2,)O", True),
    ],
)
def test_an_array_of_fields_holds_objects_by_their_types(
    tmp_path: Path, descr: object, objects: bool
) -> None:
    file = scan(tmp_path, "a.npy", header(descr) + (EVIL if objects else bytes(64)))
    assert file.safety == (SUSPICIOUS if objects else NO_CODE)


def test_a_runs_own_mlmodel_is_never_where_the_loader_reads_it() -> None:
    for path in ("MLmodel", "mlmodel", "a/MLmodel", "MLMODEL/x"):
        assert "mlmodel" not in artifact_path(path).lower().split("/")


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "torch.hub.load",
        "torch.nn.Module.__init__",
        "lerobot.x.Popen",
        "a b.C",
        "numpy.DataSource",
    ],
)
def test_a_path_to_what_is_no_class_of_a_framework_is_told(path: str) -> None:
    assert target_problem(path)


def test_named_files_are_accepted_and_the_reason_is_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "modeling.py").write_text("x = 1\n")
    (run / "policy.engine").write_bytes(b"ftrt" + bytes(60))
    source = LocalSource(run)
    tree = Tree(source, source.scan())
    found = safety.inspect(tree, list(tree.files), [])
    with pytest.raises(
        DataError, match=r"^the checkpoint x is code: modeling\.py: it is a file of Python"
    ) as refused:
        safety.require_harmless(found, "x")
    assert "--allow 'modeling.py=REASON'" in refused.value.hint
    some = safety.inspect(tree, list(tree.files), [], [("*.py", "reviewed by us")])
    with pytest.raises(DataError, match=r"policy\.engine"):
        safety.require_harmless(some, "x")
    both = safety.inspect(
        tree, list(tree.files), [], [("*.py", "reviewed by us"), ("policy.engine", "built = by CI")]
    )
    safety.require_harmless(both, "x")
    assert both.verdict == CODE
    assert both.as_dict()["allowed"] == [
        {"path": "modeling.py", "safety": CODE, "reason": "reviewed by us"},
        {"path": "policy.engine", "safety": CODE, "reason": "built = by CI"},
    ]


@pytest.mark.parametrize("item", ["*.py", "*.py=", "=why", "*.py=  "])
def test_a_file_is_not_accepted_without_a_reason(item: str) -> None:
    with pytest.raises(UsageError, match="lacks a pattern or a reason"):
        accepted_file(item, "--allow")


def test_a_reason_may_hold_anything() -> None:
    assert accepted_file(" *.engine = built = by CI", "--allow") == ("*.engine", "built = by CI")


def test_the_words_of_earlier_releases_are_understood() -> None:
    earlier = ("safetensors", "no-pickle", "pickle-clean", "pickle-suspicious")
    assert [current(word) for word in earlier] == ["safetensors", "no-code", "pickle-clean", "suspicious"]
    assert {current(word) for word in HARMLESS | {CODE, UNKNOWN, SUSPICIOUS}} == HARMLESS | {
        CODE,
        UNKNOWN,
        SUSPICIOUS,
    }
    assert current("anything") == UNKNOWN
