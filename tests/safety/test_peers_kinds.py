"""Malicious files of every kind in the test suites of picklescan, fickling and modelscan, generated here.

The kinds are facts from their repositories: what is imported, with which opcodes, and in which kind of file.
No payload is ever loaded. What picklescan calls dangerous must never be harmless for us.
"""

# ruff: noqa: E501 - tables, one row a line

from __future__ import annotations

import base64
import bz2
import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from picklescan.scanner import scan_bytes

from aml_mirror.safety.file_scan import scan_file
from aml_mirror.safety.words import CLEAN, CODE, HARMLESS, NO_CODE, SUSPICIOUS, UNKNOWN
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree

# What their samples import: a module, a space, a name.
IMPORTS = (
    "builtins eval", "builtins exec", "builtins getattr", "builtins __import__", "builtins compile", "builtins open",
    "builtins breakpoint", "__builtin__ eval", "os system", "posix system", "nt system", "os popen", "os execv",
    "subprocess run", "subprocess Popen", "subprocess check_output", "sys exit", "sys modules", "socket socket",
    "socket create_connection", "http.client HTTPSConnection", "requests.api get", "requests get",
    "aiohttp.client ClientSession", "aiohttp ClientSession", "urllib.request urlopen", "webbrowser open",
    "httplib HTTPSConnection", "shutil rmtree", "runpy _run_code", "runpy run_path", "bdb Bdb.run", "bdb Bdb",
    "pdb run", "pip main", "pip._internal main", "pydoc pipepager", "pydoc locate", "functools partial",
    "operator attrgetter", "operator methodcaller", "_operator methodcaller", "venv create", "timeit timeit",
    "numpy.testing._private.utils runstring", "numpy.f2py.crackfortran getlincoef", "trace Trace.run",
    "trace Trace.runctx", "profile Profile.run", "profile run", "cProfile run", "cProfile runctx",
    "lib2to3.pgen2.grammar Grammar.loads", "lib2to3.pgen2.pgen ParserGenerator.make_label",
    "idlelib.debugobj ObjectTreeItem.SetText", "idlelib.autocomplete AutoComplete.get_entity",
    "idlelib.calltip Calltip.fetch_tip", "idlelib.calltip get_entity", "idlelib.run Executive.runcode",
    "idlelib.pyshell ModifiedInterpreter.runcode", "code InteractiveInterpreter.runcode", "code InteractiveInterpreter",
    "ensurepip _run_pip", "pkgutil resolve_name", "doctest debug_script", "logging FileHandler", "io FileIO",
    "asyncio.unix_events _UnixSubprocessTransport._start", "asyncio.base_subprocess BaseSubprocessTransport",
    "distutils.file_util write_file", "ctypes CDLL", "pty spawn", "uuid _get_command_stdout",
    "_osx_support _read_output", "_osx_support _find_build_tool", "_aix_support _read_cmd_output",
    "imaplib IMAP4_stream", "smtplib SMTP", "ftplib FTP", "poplib POP3", "telnetlib Telnet", "nntplib NNTP",
    "_pyrepl.pager pipe_pager", "test.support.script_helper assert_python_ok", "importlib import_module",
    "importlib.machinery SourceFileLoader", "marshal loads", "pickle loads", "_pickle loads", "types CodeType",
    "types FunctionType", "multiprocessing.util spawnv_passfds", "_interpreters create", "_xxsubinterpreters create",
    "pathlib os.system", "ast parse", "__future__ _ssl.RAND_bytes", "dill _dill", "dill._dill _create_function",
    "cloudpickle.cloudpickle _make_function", "joblib load", "torch load", "torch.hub load", "torch.jit load",
    "torch._inductor.codecache compile_file", "torch.utils.bottleneck.__main__ run_cprofile",
    "torch.utils.bottleneck.__main__ run_autograd_prof", "torch._dynamo.guards GuardBuilder.get",
    "torch.fx.experimental.symbolic_shapes ShapeEnv.evaluate_guards_expression", "torch.utils.collect_env run",
    "torch.utils.collect_env run_and_read_all", "torch.utils.data.datapipes.utils.decoder basichandlers",
    "torch.jit.unsupported_tensor_ops execWrapper", "torch.utils._config_module ConfigModule.load_config",
    "torch.distributed.rpc rpc_sync", "torch.serialization load", "copyreg add_extension", "site main",
    "linecache getline", "configparser ConfigParser.read", "zipimport zipimporter", "ssl SSLContext", "tempfile mktemp",
)  # fmt: skip


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


# How the import is written and called: the opening, the import itself, and the rest.
WAYS: dict[str, Callable[[str, str], bytes]] = {
    "GLOBAL": lambda module, name: f"c{module}\n{name}\n(S'id'\ntR.".encode(),
    "STACK_GLOBAL": lambda module, name: b"\x80\x04" + short(module) + short(name) + b"\x93" + short("id") + b"\x85R.",
    "STACK_GLOBAL from the memo": lambda module, name: b"\x80\x04" + short(module) + b"\x94" + short(name) + b"\x940"
    + b"0h\x00h\x01\x93)R.",
    "INST": lambda module, name: f"(S'id'\ni{module}\n{name}\n.".encode(),
    "OBJ": lambda module, name: f"(c{module}\n{name}\nS'id'\no.".encode(),
    "OBJ, popped": lambda module, name: f"(c{module}\n{name}\nS'id'\no0N.".encode(),
    "NEWOBJ": lambda module, name: f"\x80\x02c{module}\n{name}\n)".encode("latin-1") + b"\x81.",
    "NEWOBJ_EX": lambda module, name: b"\x80\x04" + short(module) + short(name) + b"\x93)}\x92.",
    "BUILD": lambda module, name: "\x80\x02cargparse\nNamespace\n)".encode("latin-1") + b"\x81}" + text("__setstate__")
    + f"c{module}\n{name}\n".encode() + b"sb" + text("id") + b"b.",
    "never called": lambda module, name: f"\x80\x02c{module}\n{name}\n0N.".encode("latin-1"),
    "then cut": lambda module, name: f"c{module}\n{name}\n(S'id'\ntR".encode() + b"\xff\xff",
    "framed": lambda module, name: (lambda body: b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body)(
        short(module) + short(name) + b"\x93)R."
    ),
}  # fmt: skip


def verdict(folder: Path, name: str, data: bytes) -> str:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    (run / name).write_bytes(data)
    source = LocalSource(run)
    return scan_file(Tree(source, source.scan()), name).safety


@pytest.mark.parametrize("way", WAYS)
def test_no_import_of_their_samples_is_harmless(tmp_path: Path, way: str) -> None:
    harmless = [
        item for item in IMPORTS if verdict(tmp_path, "a.pkl", WAYS[way](*item.split(" "))) in HARMLESS
    ]
    assert harmless == []


@pytest.mark.parametrize("way", WAYS)
def test_what_picklescan_calls_dangerous_is_never_harmless(tmp_path: Path, way: str) -> None:
    asked = 0
    for item in (*IMPORTS, "collections OrderedDict", "torch._utils _rebuild_tensor_v2", "numpy dtype"):
        data = WAYS[way](*item.split(" "))
        result = scan_bytes(io.BytesIO(data), "a.pkl", "a.pkl")
        if result.issues_count or result.scan_err:
            asked += 1
            assert verdict(tmp_path, "a.pkl", data) not in HARMLESS, item
    assert asked > 30, "the oracle has an opinion"


EVIL = WAYS["STACK_GLOBAL"]("builtins", "eval")
GOOD = pickle.dumps({"a": 1}, 2)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def object_array(compressed: bool) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, a=np.array([{"x": EVIL}], dtype=object))
    return stream.getvalue()


def flag_set(data: bytes) -> bytes:
    """Mark the first member as encrypted, in both of its headers."""
    changed = bytearray(data)
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        changed[changed.index(magic) + offset] |= 1
    return bytes(changed)


def crc_changed(data: bytes) -> bytes:
    """Change the first member's CRC-32 in both of its headers."""
    changed = bytearray(data)
    for magic, offset in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        changed[changed.index(magic) + offset] ^= 0xFF
    return bytes(changed)


def laughs(collect: bytes) -> bytes:
    """Ten levels, each ten times as large as the one below."""
    levels = (b"q%c" % level + b"h%c" % level * 9 + collect for level in range(10))
    return b"\x80\x04" + b"(" * 10 + short("lol") + b"".join(levels) + b"."


TORCH = {"archive/data.pkl": EVIL, "archive/version": b"3\n", "archive/data/0": b"\0" * 8}
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
FILES: dict[str, tuple[str, bytes]] = {
    "pickle": ("a.pkl", EVIL),
    "pickle behind a pickle": ("a.pkl", GOOD + EVIL),
    "pickle with bytes before": ("a.pkl", b"\n" + EVIL),
    "wrong suffix": ("a.txt", EVIL),
    "no suffix": ("model", EVIL),
    "zip": ("a.zip", zipped({"data.pkl": EVIL})),
    "zip under another suffix": ("a.jpg", zipped({"data.pkl": EVIL})),
    "zip, file of any name": ("a.zip", zipped({"weights/x": EVIL})),
    "zip, wrong CRC": ("a.zip", crc_changed(zipped({"data.pkl": EVIL}))),
    "zip, encrypted": ("a.zip", flag_set(zipped({"data.pkl": EVIL}))),
    "zip in a zip": ("a.zip", zipped({"b.zip": zipped({"data.pkl": EVIL})})),
    "torch": ("a.pt", zipped(TORCH)),
    "torch as bin": ("pytorch_model.bin", zipped(TORCH)),
    "torch, deflated": ("a.pth", zipped(TORCH, zipfile.ZIP_DEFLATED)),
    "torch, legacy": ("a.pt", LEGACY + EVIL + pickle.dumps([], 2) + b"\0" * 600),
    "torch, legacy with another magic number": ("a.pt", pickle.dumps(1, 2) + LEGACY[19:] + EVIL + GOOD),
    "torch, tar": ("a.pt", tarred({"pickle": EVIL, "sys_info": GOOD, "storages": b"", "tensors": b""})),
    "TorchScript": ("a.pt", zipped({"a/data.pkl": GOOD, "a/code/__torch__.py": b"def f(): ..."})),
    "TorchScript and a model": ("a.pt", zipped({**TORCH, "archive/code/x.py": b"", "archive/constants.pkl": GOOD})),
    "7z": ("a.7z", b"7z\xbc\xaf\x27\x1c" + EVIL),
    "7z as bin": ("a.bin", b"7z\xbc\xaf\x27\x1c" + EVIL),
    "numpy": ("a.npy", b"\x93NUMPY\x01\x00\x36\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n" + EVIL),
    "gzip": ("a.pkl.gz", gzip.compress(EVIL)),
    "bzip2": ("a.dat", bz2.compress(EVIL)),
    "dill": ("a.dill", WAYS["GLOBAL"]("dill._dill", "_create_function")),
    "Keras, HDF5 with a Lambda": ("a.h5", b"\x89HDF\r\n\x1a\n" + b'{"class_name": "Lambda"}' * 40),
    "Keras, zip with a Lambda": (
        "a.keras",
        zipped({"metadata.json": b"{}", "config.json": b'{"class_name": "Lambda", "config": {}}'}),
    ),
    "SavedModel that reads": ("saved_model.pb", b"\x12\x10\x12\x0e\x0a\x0c\x0a\x01n\x12\x08ReadFile"[:18]),
    "zip that leads out": ("a.zip", zipped({"_stable_baselines3_version": b"2", "data": b"{}", "../../.bashrc": b"x"})),
    "pickle that is cut": ("a.pkl", EVIL[:-1]),
    "protocol stated twice": ("a.pkl", b"\x80\x04\x80\x04N."),
    "protocol in the middle": ("a.pkl", b"\x80\x02N0\x80\x04N."),
    "lists of one list, copied": ("a.pkl", b"\x80\x04(((" + short("lol") + (b"2" * 9 + b"l") * 3 + b"."),
    "copies on the stack": ("a.pkl", b"\x80\x04]" + b"2" * 150 + b"."),
    "lists of one list, remembered": ("a.pkl", laughs(b"l")),
    "tuples of one tuple, remembered": ("a.pkl", laughs(b"t")),
    "lists of one list, filled afterwards": (
        "a.pkl", b"\x80\x04" + b"".join(b"]q%c" % level for level in range(10))
        + b"".join(b"h%c(" % level + b"h%c" % (level + 1) * 10 + b"e0" for level in range(9)) + b".",
    ),
    "dictionaries of one dictionary": (
        "a.pkl", b"\x80\x04ccollections\nOrderedDict\n)Rq\0" + b"".join(
            b"ccollections\nOrderedDict\n)R(" + b"".join(b"K%ch%c" % (key, level) for key in range(10))
            + b"uq%c" % (level + 1) for level in range(9)) + b".",
    ),
    "list of itself": ("a.pkl", b"\x80\x04]\x94" + b"h\0a" * 60 + b"."),
    "dictionary as its key": ("a.pkl", b"\x80\x04}\x94h\0K\x01s."),
    "set of itself": ("a.pkl", b"\x80\x04\x8f\x94(h\0\x90."),
    "list of a range": ("a.pkl", b"\x80\x02cbuiltins\nlist\ncbuiltins\nrange\nJ\xff\xff\xff\x7f\x85R\x85R."),
    "in base64": ("a.json", b'{"state": "' + base64.b64encode(EVIL) + b'"}'),
    "in base64, of YAML": ("a.yaml", b"state: !!binary |\n  " + base64.b64encode(EVIL) + b"\n"),
    "in base64, compressed": ("a.json", b'["' + base64.b64encode(gzip.compress(EVIL)) + b'"]'),
    "in digits, as Ray Tune does": ("a.json", b'{"_type": "CLOUDPICKLE_FALLBACK", "value": "' + EVIL.hex().encode() + b'"}'),
    "in base64 in a pickle": ("a.pkl", pickle.dumps({"policy": base64.b64encode(EVIL).decode()}, 2)),
    "arrays of msgpack-numpy": (
        "a.msgpack", b"\x82\xc4\x04kind\xc4\x01O\xc4\x04data\xc4" + bytes([len(EVIL)]) + EVIL,
    ),
    "broken pickle": ("a.pkl", b"cbuiltins\nexec\n(X>\0\0\0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_no_file_of_their_kinds_is_harmless(tmp_path: Path, kind: str) -> None:
    assert verdict(tmp_path, *FILES[kind]) in (CODE, SUSPICIOUS, UNKNOWN)


SHARED = {"settings": [1, 2.5, ("a", "b")]}
PLAIN = {
    "the same settings in each episode": [{"settings": SHARED, "reward": number} for number in range(300)],
    "the same list twice, twice": [[[[SHARED] * 2] * 2] * 2] * 2,
    "a range": {"steps": range(10), "names": {"a": [range(3)]}},
    "objects that refer to each other": (lambda one, two: (one.update(other=two), two.update(other=one), one))({}, {}),
    "base64 that is a picture": {"picture": base64.b64encode(b"\x80\x02" + bytes(range(200))).decode()},
}  # fmt: skip


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_real_pickles_share_is_clean(tmp_path: Path, protocol: int, kind: str) -> None:
    assert verdict(tmp_path, "a.pkl", pickle.dumps(PLAIN[kind], protocol)) == CLEAN


def test_a_table_of_pandas_is_code_that_is_named(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [1, 2], "t": pd.to_datetime(["2026-01-01", "2026-01-02"]), "s": ["x", "y"]})
    assert verdict(tmp_path, "a.pkl", pickle.dumps(table.set_index("t"))) == CODE


def test_the_version_of_torch_is_a_text(tmp_path: Path) -> None:
    made = b"\x80\x02ctorch.torch_version\nTorchVersion\n" + text("2.13.0") + b"\x85\x81."
    assert verdict(tmp_path, "a.pkl", made) == CLEAN


def test_files_in_texts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aml_mirror.safety.findings._MAX_EMBEDDED_BYTES", 1000)
    held = base64.b64encode(GOOD).decode()
    once = text(held) + b"q\0"
    assert verdict(tmp_path, "a.pkl", b"\x80\x02" + once + b".") == CLEAN
    assert verdict(tmp_path, "a.pkl", b"\x80\x02" + once + b"0h\0" * 60 + b".") == SUSPICIOUS


def data_beside(folder: Path, index: tuple[str, bytes], name: str, data: bytes) -> str:
    """The verdict on raw numbers with a file that describes them."""
    (folder / "run" / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "run" / index[0]).write_bytes(index[1])
    return verdict(folder, name, data)


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (("policy.onnx", b"\x08\x08"), "policy.onnx.data"),
        ((".zarray", b"{}"), "1000"),
        (("manifest.ocdbt", b"\x0c\xdb\x3a\x2a"), "d/" + "a" * 32),
        (("ckpt.index", b"x"), "ckpt.data-00001-of-00002"),
        (("meta.json", b"{}"), "actor.memmap"),
    ],
)
def test_numbers_that_an_index_describes_are_no_hiding_place(
    tmp_path: Path, index: tuple[str, bytes], name: str
) -> None:
    protocol_0 = WAYS["GLOBAL"]("os", "system")
    for data in (EVIL, protocol_0, zipped(TORCH), b"\x7fELF\x02\x01\x01" + bytes(60), b"#!/bin/sh\n"):
        assert data_beside(tmp_path, index, name, data) in (CODE, SUSPICIOUS)
    for numbers in (bytes(64), b"\x80\x04" * 32, np.arange(64.0).tobytes(), b"cos is a word\nof some\n"):
        assert data_beside(tmp_path, index, name, numbers) == NO_CODE


@pytest.mark.parametrize("compressed", [False, True])
def test_an_array_of_objects_in_an_archive(tmp_path: Path, compressed: bool) -> None:
    assert verdict(tmp_path, "a.npz", object_array(compressed)) == SUSPICIOUS
