"""Following a pickle without running it: everything that the real machine imports is seen, on any path."""

from __future__ import annotations

import _compat_pickle
import collections
import contextlib
import io
import pickle
import resource
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.safety import pickle_vm
from aml_mirror.safety.allowlist import ALLOWED
from aml_mirror.safety.findings import MAX_NAMES, Findings, MalformedPickle
from aml_mirror.safety.pickle_vm import follow


def findings_of(data: bytes, persistent: bool = False) -> Findings:
    """Follow one pickle. Damage is reported as a problem, as for a file."""
    findings = Findings()
    try:
        follow(io.BytesIO(data), findings, lambda inside, depth: False, persistent)
    except MalformedPickle as damaged:
        findings.problem(str(damaged))
    return findings


def short(text: str) -> bytes:
    """The opcode that pushes a text in protocol 4."""
    return b"\x8c" + bytes([len(text)]) + text.encode()


class Stub:
    """A stub for everything that a pickle imports. It accepts any arguments and any state."""

    def __init__(self, *arguments: object, **more: object) -> None: ...

    def __call__(self, *arguments: object, **more: object) -> Stub:
        return Stub()

    def __setstate__(self, state: object) -> None: ...

    def append(self, item: object) -> None: ...

    def extend(self, items: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def __hash__(self) -> int:
        return 0


@contextlib.contextmanager
def one_gigabyte_more() -> Iterator[None]:
    """Limit the memory of this process, because the C reader allocates a memo whose size is a number of four
    bytes.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 30), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def imported_by(unpickler: type[Any], data: bytes) -> set[tuple[str, str]]:
    """What a real unpickler imports, until it ends or fails. It gets only stubs."""
    seen: set[tuple[str, str]] = set()

    class Recorder(unpickler):  # type: ignore[misc]
        def find_class(self, module: str, name: str) -> type[Stub]:
            seen.add((module, name))
            return Stub

        def persistent_load(self, pid: object) -> object:
            return Stub()

    # A stub cannot support everything that a random program does.
    with contextlib.suppress(Exception), one_gigabyte_more():
        Recorder(io.BytesIO(data)).load()
    return seen


_WORDS = ("os", "system", "collections", "OrderedDict", "torch._utils", "_rebuild_tensor_v2", "eval", "")
_PIECES: list[bytes] = [
    *(bytes([0x80, number]) for number in range(6)),
    *(short(word) for word in _WORDS),
    *(b"U" + bytes([len(word)]) + word.encode() for word in _WORDS),  # SHORT_BINSTRING
    *(b"X" + struct.pack("<I", len(word)) + word.encode() for word in _WORDS),  # BINUNICODE
    b"S'os'\n", b"Vsystem\n", b"cos\nsystem\n", b"ccollections\nOrderedDict\n", b"cbuiltins\neval\n",
    b"ios\nsystem\n", b"icollections\nOrderedDict\n", b"(", b"0", b"1", b"2", b"\x93", b"R", b"o", b"b",
    b"\x81", b"\x92", b"\x94", b")", b"\x85", b"\x86", b"\x87", b"t", b"l", b"d", b"]", b"}", b"a", b"e",
    b"s", b"u", b"N", b"\x88", b"K\x01", b"\x82\x01", b"\x83\x01\x00", b"P1\n", b"Q",
    b"\x8f", b"\x90", b"\x91",
    b"\x95" + struct.pack("<Q", 4), b"\x97", b"\x98", b".",
    *(b"q" + bytes([number]) for number in range(3)),
    *(b"h" + bytes([number]) for number in range(3)),
    *(b"p%d\n" % number for number in range(3)),
    *(b"g%d\n" % number for number in range(3)),
    *(b"r" + struct.pack("<I", number) for number in range(2)),
    *(b"j" + struct.pack("<I", number) for number in range(2)),
]  # fmt: skip


@pytest.mark.parametrize("unpickler", [pickle.Unpickler, pickle._Unpickler], ids=["C", "Python"])
@settings(max_examples=600, deadline=None)
@given(pieces=st.lists(st.sampled_from(_PIECES), max_size=24))
def test_what_the_real_machine_imports_is_seen_or_the_pickle_is_suspicious(
    unpickler: type[Any], pieces: list[bytes]
) -> None:
    data = b"".join(pieces) + b"."
    imported = imported_by(unpickler, data)
    findings = findings_of(data)
    if not findings.problems:
        assert imported <= ALLOWED
        assert {f"{module}.{name}" for module, name in imported} <= set(findings.names)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=400))
def test_no_bytes_crash_it(data: bytes) -> None:
    findings_of(data)


_LOAD = b"ctorch.storage\n_load_from_bytes\n"
_RELAY = b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n("
_TYPE = b"cdill._dill\n_load_type\nX\x0c\x00\x00\x00FunctionType\x85R"
_BYTES = b"cbuiltins\nbytes\n](K\x80K\x04K.e\x85R"
_EVASIONS: dict[str, bytes] = {
    "protocol 0": b"cos\nsystem\n(S'id'\ntR.",
    "protocol 4": b"\x80\x04" + short("os") + short("system") + b"\x93" + short("id") + b"\x85R.",
    "python 2's name of a module": b"\x80\x02c__builtin__\neval\n(X\x01\x00\x00\x001tR.",
    # picklescan#14: a mix of the two ways of numbering the memo.
    "memo numbered in two ways": b"\x80\x04" + short("os") + b"q\x00" + short("system") + b"q\x01"
    + short("torch._utils") + b"\x94" + short("_rebuild_tensor_v2") + b"\x94"
    + b"h\x00h\x01\x93" + short("id") + b"\x85R.",
    "memo written over": b"\x80\x04" + short("collections") + b"\x94" + short("os") + b"q\x00"
    + short("system") + b"q\x01h\x00h\x01\x93" + short("id") + b"\x85R.",
    # picklescan#13
    "INST": b"(S'id'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'id'\no.",
    "NEWOBJ": b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04" + short("os") + short("system") + b"\x93" + short("id") + b"\x85}\x92.",
    "never called": b"\x80\x02cos\nsystem\n.",
    "popped at once": b"\x80\x02cos\nsystem\n0N.",
    "name with dots": b"\x80\x04" + short("builtins") + short("list.__class__") + b"\x93.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "name that is encoded": b"\x80\x02c_codecs\nencode\nX\x02\x00\x00\x00osX\x06\x00\x00\x00latin1\x86R"
    + b"X\x06\x00\x00\x00system\x93.",
    "name that a codec makes": b"\x80\x02c_codecs\nencode\nX\x02\x00\x00\x00bfX\x05\x00\x00\x00rot13\x86R.",
    "writing to a class": b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00xK\x01sb.",
    "calling what a call returned": b"\x80\x02cdill._dill\n_load_type\nX\x08\x00\x00\x00CodeType\x85R)R.",
    "made to call what a call returned": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n"
    b"cdill._dill\n_load_type\nX\x08\x00\x00\x00CodeType\x85R})}(tR.",
    # The called function is hidden in the arguments of another call, in an attribute, or in a class made with
    # them.
    "made to call what loads bytes": _RELAY + _LOAD + b"N" + _BYTES + b"\x85}tR.",
    "made to make itself call": _RELAY + _RELAY[2:-1] + b"N(" + _TYPE + b"N)}t}tR.",
    "generator made by what loads bytes": b"\x80\x02cnumpy.random._pickle\n__generator_ctor\n"
    + _BYTES + _LOAD + b"\x86R.",
    "loads bytes as an attribute": b"\x80\x02cargparse\nNamespace\n)\x81}X\x0c\x00\x00\x00__setstate__"
    + _LOAD + b"sb" + _BYTES + b"b.",
    "loads bytes as an attribute, many at once": b"\x80\x02cargparse\nNamespace\n)\x81}("
    b"X\x06\x00\x00\x00append" + _LOAD + b"ub" + _BYTES + b"a.",
    "loads bytes as a factory": b"\x80\x02ccollections\ndefaultdict\n" + _LOAD + b"\x85R.",
    "loads bytes from the memo": b"\x80\x02" + _LOAD + b"q\x000N]h\x00a.",
    "policy that is made": b"\x80\x02cstable_baselines3.common.policies\nActorCriticPolicy\n"
    b"(" + _BYTES + b"NNNNNNtR.",
    "noise that copies": b"\x80\x02cstable_baselines3.common.noise\nVectorizedActionNoise\nNK\x01\x86R.",
    "type of code": b"\x80\x02" + _TYPE + b".",
    "type that is computed": b"\x80\x02cdill._dill\n_load_type\ncbuiltins\nstr\n" + _BYTES + b"\x85R\x85R.",
    "class in the guise of an object": b"\x80\x02cnumpy._core.multiarray\nscalar\nNcargparse\nNamespace\n"
    b"\x86R}X\x01\x00\x00\x00xK\x01sb.",
    "source of a container": b"\x80\x02(X\x06\x00\x00\x00modulecargparse\nNamespace\n"
    b"X\x01\x00\x00\x00fX\x01\x00\x00\x00stQ.",
    # Bytes that are joined for a reader that unpickles them.
    "bytes of numbers": b"\x80\x02" + _BYTES + b".",
    "bytearray of numbers": b"\x80\x02cbuiltins\nbytearray\n](K\x80K\x04e\x85R.",
    "bytearray that grows": b"\x80\x02cbuiltins\nbytearray\n)R(K\x80K\x04e.",
    "bytearray that is written to": b"\x80\x05\x96\x08" + bytes(7) + b"????????K\x00K\x80s.",
    "text that a call decodes": b"\x80\x02c_codecs\nencode\ncbuiltins\nstr\n"
    b"C\x03abcX\x05\x00\x00\x00utf-7\x86RX\x06\x00\x00\x00latin1\x86R.",
    "torch file that is not seen": b"\x80\x02ctorch.storage\n_load_from_bytes\nN\x85R.",
    "persistent id": b"\x80\x02X\x01\x00\x00\x00xQ.",
    # Only torch's own reader resolves a tensor's reference.
    "persistent id of a tensor elsewhere": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.",
    "persistent id in a line": b"Pstorage\n.",
    "buffer from outside": b"\x80\x05\x97.",
    "buffer that is made read-only": b"\x80\x05C\x03abc\x98.",
    "protocol of the future": b"\x80\x06N.",
    "escape in a name": b"ccoll\\x65ctions\nOrderedDict\n.",
    "name of two words": b"ccollections OrderedDict\nx\n.",
    "opcode that is none": b"\x80\x04\xff.",
    "mark as a value": b"\x80\x04(\x85.",
    "memo that is empty": b"\x80\x04h\x05.",
    "text of 2^60 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.",
    "integer of 2^31 bytes": b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"\x01.",
    "integer of 10^5 digits": b"L" + b"9" * 100_000 + b"L\n.",
    "nothing": b"",
}  # fmt: skip


# What must be found in pickles with other findings.
_EXPECTED = {
    "calling what a call returned": "it calls what another call returned",
    "made to call what a call returned": "it calls what another call returned",
    "made to call what loads bytes": "_rebuild_from_type_v2 is made to call torch.storage._load_from_bytes",
    "made to make itself call": "it passes torch._tensor._rebuild_from_type_v2 on",
    "generator made by what loads bytes": "__generator_ctor is made to call torch.storage._load_from_bytes",
    "loads bytes as an attribute": "it passes torch.storage._load_from_bytes on",
    "loads bytes as an attribute, many at once": "it passes torch.storage._load_from_bytes on",
    "policy that is made": "ActorCriticPolicy is called with arguments",
    "type that is computed": "_load_type is asked for a type",
}


@pytest.mark.parametrize("name", _EVASIONS)
def test_is_never_clean(name: str) -> None:
    problems = findings_of(_EVASIONS[name], persistent=name.startswith("source")).problems
    assert len(problems) == 1 or name in _EXPECTED, list(problems)
    assert any(_EXPECTED.get(name, "") in problem for problem in problems), list(problems)


@pytest.mark.parametrize("key", ["_target_", "_instantiator", "_class_path"])
def test_what_a_configuration_names_to_be_called_is_code(key: str) -> None:
    for protocol in (0, 2, 4):
        assert "os.system" in str(findings_of(pickle.dumps({key: "os.system"}, protocol)).code)
        assert findings_of(pickle.dumps({key: "torch.optim.AdamW"}, protocol)).code == {}
        assert findings_of(pickle.dumps({"key": key, "name": "os.system"}, protocol)).code == {}


_FORBIDDEN = (
    "os.system posix.system nt.system subprocess.Popen builtins.eval builtins.exec "
    "builtins.getattr builtins.__import__ builtins.open builtins.map builtins.type "
    "importlib.import_module runpy.run_path pkgutil.resolve_name operator.attrgetter "
    "operator.methodcaller functools.partial functools.reduce marshal.loads pickle.loads "
    "types.FunctionType types.CodeType torch.load torch.hub.load numpy.load "
    "numpy.f2py.crackfortran.getlincoef cloudpickle.cloudpickle._make_function "
    "dill._dill._create_function joblib.load pip.main webbrowser.open timeit.timeit pdb.run "
    "shutil.rmtree socket.create_connection stable_baselines3.common.save_util.load_from_pkl "
    "omegaconf.OmegaConf.load sys.modules copyreg.add_extension"
)


@pytest.mark.parametrize(
    "name",
    _FORBIDDEN.split(),
)
def test_nothing_that_runs_code_or_opens_something_is_allowed(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert (module, attribute) not in ALLOWED
    assert findings_of(b"\x80\x02c" + module.encode() + b"\n" + attribute.encode() + b"\n.").problems


def test_the_old_names_that_python_changes_lead_to_allowed_ones() -> None:
    # Below protocol 3 the real machine renames what it imports, after we have examined it.
    for module, name in ALLOWED:
        renamed = _compat_pickle.NAME_MAPPING.get(
            (module, name), (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
        )
        assert renamed in ALLOWED, (module, name, renamed)


def _values() -> Iterable[object]:
    yield {"step": 3, "lr": 1e-3, "text": "ü" * 300, "none": None, "flag": True, "big": 1 << 80}
    yield collections.OrderedDict(
        a=[1, (2, 3), {4, 5}], b=frozenset({6}), c=b"x" * 300, d=bytearray(b"y" * 9)
    )
    yield np.arange(6, dtype=np.float32).reshape(2, 3)
    yield [np.float64(1.5), np.dtype("int64"), np.bool_(True)]
    yield np.random.default_rng(3)
    yield collections.defaultdict(list, {"a": [1]})
    yield [b"", bytearray(), bytearray(b"x" * 300)]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_clean_in_every_protocol(protocol: int) -> None:
    for value in _values():
        findings = findings_of(pickle.dumps(value, protocol))
        assert not findings.problems, (value, list(findings.problems))


def test_what_frameworks_call_is_clean() -> None:
    for data in (
        # A torch parameter with an attribute of its own.
        _RELAY + b"ctorch._utils\n_rebuild_parameter\nctorch.nn.parameter\nParameter\n(N\x88Nt}tR.",
        # A generator of numpy 1.
        b"\x80\x02cnumpy.random._pickle\n__generator_ctor\nX\x05\x00\x00\x00PCG64"
        b"cnumpy.random._pickle\n__bit_generator_ctor\n\x86R.",
        b"\x80\x02ccollections\ndefaultdict\ncdill._dill\n_load_type\nX\x04\x00\x00\x00list\x85R\x85R.",
        b"\x80\x02cstable_baselines3.common.noise\nNormalActionNoise\n)\x81}b.",
    ):
        assert findings_of(data).problems == {}
    pid = (
        b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ."
    )
    assert findings_of(pid, persistent=True).problems == {}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_prefix_of_a_pickle_is_clean(protocol: int) -> None:
    whole = pickle.dumps(next(iter(_values())), protocol)
    for length in range(len(whole)):
        assert findings_of(whole[:length]).problems, length


def _nested(data: bytes, wrap: Callable[[bytes], bytes]) -> list[bytes]:
    inside: list[bytes] = []
    follow(io.BytesIO(wrap(data)), Findings(), lambda found, depth: bool(inside.append(found)), False)
    return inside


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_bytes_that_are_a_pickle_are_handed_over(protocol: int) -> None:
    inner = pickle.dumps([1, 2], 4)
    # Protocol 2 stores bytes as encoded text. Both are examined.
    assert set(_nested(inner, lambda data: pickle.dumps({"payload": data}, protocol))) == {inner}


def test_a_bytearray_and_a_text_that_are_a_pickle_are_handed_over() -> None:
    inner = pickle.dumps([1, 2], 4)
    assert _nested(inner, lambda data: pickle.dumps(bytearray(data), 5)) == [inner]
    assert _nested(inner, lambda data: pickle.dumps(data.decode("latin-1"), 4)) == [inner]


def test_the_steps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_vm, "MAX_OPCODES", 1000)
    assert findings_of(b"\x80\x04" + b"N0" * 400 + b"N.").problems == {}
    assert "1,000 steps" in next(iter(findings_of(b"\x80\x04" + b"N0" * 600 + b"N.").problems))


def test_what_it_makes_of_its_texts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_vm, "MAX_MADE_BYTES", 10_000)
    text = b"X" + struct.pack("<I", 4000) + b"x" * 4000
    once = b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R0"
    head = b"\x80\x02c_codecs\nencode\nq\x00" + text + b"q\x01"
    assert findings_of(head + 2 * once + b".").problems == {}
    assert "it makes more than" in next(iter(findings_of(head + 3 * once + b".").problems))


def test_what_it_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_vm, "MAX_MEMO", 10)
    assert "it remembers over" in next(iter(findings_of(b"\x80\x04N" + b"\x94" * 11 + b".").problems))


def test_the_list_of_names_is_bounded() -> None:
    data = b"\x80\x02" + b"".join(b"cm%d\nx\n0" % number for number in range(1000)) + b"N."
    findings = findings_of(data)
    assert len(findings.names) == len(findings.problems) == MAX_NAMES
    assert findings.names_count == 1000
