"""Malicious files of every kind in the test suites of picklescan, fickling and modelscan, generated here.

The kinds are facts from their repositories: what is imported, by which opcodes, and in which file it hides.
No payload is ever loaded; picklescan is asked, and what it calls dangerous is never harmless to us.
"""

# ruff: noqa: E501 - tables, one row a line

from __future__ import annotations

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
import pytest
from picklescan.scanner import scan_bytes

from aml_mirror.safety.file_scan import scan_file
from aml_mirror.safety.words import CODE, HARMLESS, SUSPICIOUS, UNKNOWN
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree

# What their samples import: a module, a blank, a name.
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


# How the import is written, and called: what opens, the import itself, and what follows.
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
    "pickle that is cut": ("a.pkl", EVIL[:-1]),
    "broken pickle": ("a.pkl", b"cbuiltins\nexec\n(X>\0\0\0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_no_file_of_their_kinds_is_harmless(tmp_path: Path, kind: str) -> None:
    assert verdict(tmp_path, *FILES[kind]) in (CODE, SUSPICIOUS, UNKNOWN)


@pytest.mark.parametrize("compressed", [False, True])
def test_an_array_of_objects_in_an_archive(tmp_path: Path, compressed: bool) -> None:
    assert verdict(tmp_path, "a.npz", object_array(compressed)) == SUSPICIOUS
