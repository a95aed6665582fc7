"""Follows a pickle like its machine would, but imports, creates and calls nothing.

A pickle is a program for a small machine with a stack and a memo. Searching for two consecutive strings does
not find all imported names: a name may come from the memo, which has two ways of numbering, or from bytes
that another call encodes (picklescan#13, #14 and #22 are scanners that were misled in this way). So the
machine is followed, opcode by opcode, with values that represent the real ones.

Anything uncertain is a problem, never clean: an unknown opcode, a stream that ends, a computed name, a call
of what another call returned, a write to a class.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any, Protocol

from aml_mirror.safety.allowlist import (
    CALLS_ITS_ARGUMENT,
    CONTAINERS,
    ENCODES,
    GIVES_BACK,
    HARMLESS_TYPES,
    LOADS_BYTES,
    LOADS_TYPE,
    MADE_EMPTY,
    MAKES_BYTES,
    ONLY_CALLED,
    RANGES,
)
from aml_mirror.safety.containers import MAX_CONTAINERS, Container, expands, of, tuple_of
from aml_mirror.safety.findings import Findings, MalformedPickle, Name, TooMuch
from aml_mirror.safety.known_code import is_known_code

# For one file, all its pickles together. A tensor takes about 25 opcodes, and the largest known model has
# 10^5. Python follows about 400,000 per second, so a hostile file costs some seconds.
MAX_OPCODES = 4_000_000
# One pickle without its tensors has some MB in the largest models. A longer one is not called clean.
MAX_PICKLE_BYTES = 64 << 20
# What a pickle builds from its own strings, by calls of an encoder. Each call may build them all again.
MAX_MADE_BYTES = 64 << 20
MAX_MEMO = 1_000_000
# Pickles in strings of pickles: diffusion_policy nests one in another. Each level has its own copy.
MAX_DEPTH = 4
_LAST_PROTOCOL = 5


class Source(Protocol):
    """The source of bytes from which :mod:`pickletools` reads arguments."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, fewer only at the end."""

    def readline(self) -> bytes:
        """Return a line with its newline."""


class _Counted:
    """A source that counts the bytes that were read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.at = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self.at += len(data)
        return data

    def readline(self) -> bytes:
        line = self._source.readline()
        self.at += len(line)
        return line


class _Mark:
    pass


class _Any:
    """A value of which we only know that it does not come from an import."""


@dataclass(frozen=True, slots=True)
class _Loadable:
    """Bytes of a saved torch file that were examined."""


# A value that extends beyond the end of its frame, a nested frame, or a frame that continues after the end.
# CPython's reader in C and a sequential reader see different pickles in these (cpython#154848).
_FRAMES = "its frames do not fit its values: readers differ in what they see"
# What Hydra's instantiate and Lightning's load_from_checkpoint import and call.
_TARGET_KEYS = frozenset({"_target_", "_instantiator", "_class_path"})
# The shortest pickle of protocol 0 that imports and calls: "ca\nb\n)R.".
_SHORTEST = 8
# The beginnings of strings that are examined: a pickle of protocol 2 or later, a zip archive.
MAY_BE_INSIDE = (*(bytes([0x80, protocol]) for protocol in range(2, _LAST_PROTOCOL + 1)), b"PK\x03\x04")
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_MARK = _Mark()
_ANY = _Any()
_LOADABLE = _Loadable()
_WRAPPER = _Any()
_RANGE = _Any()
_ARRAY_WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")


def follow(source: Source, findings: Findings, inspect: Inspect, persistent: bool, depth: int = 0) -> None:
    """Follow one pickle to its STOP.

    Args:
        source: positioned at its first byte, and afterwards behind its last.
        findings: receives what is found.
        inspect: called with bytes inside that may be a separate file.
        persistent: whether the reader resolves persistent ids, as torch's does for tensors.
        depth: how many pickles this one is nested in.

    Raises:
        MalformedPickle: it cannot be followed to its end.
    """
    findings.pickles += 1
    machine = _Machine(findings, inspect, persistent, depth)
    try:
        machine.run(source)
    except (IndexError, ValueError, EOFError, UnicodeError, OverflowError, KeyError, TypeError) as error:
        raise MalformedPickle(
            f"a pickle that cannot be read: {str(error)[:100] or type(error).__name__}"
        ) from error


class RawBytes(Exception):
    """An object is followed by bytes that only its own reader can measure. Nothing further is followed."""


class Inspect(Protocol):
    """Examines bytes that a pickle contains. Returns whether they are a file of a known kind."""

    def __call__(self, data: bytes, depth: int, /) -> bool: ...


class _Machine:
    def __init__(self, findings: Findings, inspect: Inspect, persistent: bool, depth: int) -> None:
        self._findings = findings
        self._inspect = inspect
        self._persistent = persistent
        self._depth = depth
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._target_pending = False
        self._last_text: str | None = None
        self._containers: list[Container] = []
        self._shares = False
        self._steps = 0

    def run(self, given: Source) -> None:
        source = _Counted(given)
        frame_end = 0
        while True:
            start = source.at
            code = source.read(1)
            if not code:
                raise EOFError("it ends before its STOP")
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise ValueError(f"it has no opcode 0x{code.hex()}")
            self._findings.opcodes += 1
            self._steps += 1
            if self._findings.opcodes > MAX_OPCODES:
                raise TooMuch(f"it has more than {MAX_OPCODES:,} steps")
            name = opcode.name
            if name == "STOP":
                if source.at < frame_end:
                    self._findings.problem(_FRAMES)
                self._pop()
                if self._shares and expands(self._containers, self._steps):
                    self._findings.problem(
                        "its lists contain each other repeatedly: a few bytes represent very many values"
                    )
                return
            if name == "PROTO" and start:
                self._findings.problem("it states its protocol again, which no pickler does")
            if name in ("GLOBAL", "INST"):
                # pickletools would resolve escapes in these lines. The real machine does not.
                argument: Any = Name(_line(source), _line(source))
            else:
                argument = _argument(opcode, source)
            if name == "FRAME":
                if start < frame_end:
                    self._findings.problem(_FRAMES)
                frame_end = source.at + int(argument)
            elif start < frame_end < source.at:
                self._findings.problem(_FRAMES)
            handle = _HANDLERS.get(name)
            if handle is not None:
                handle(self, argument)
            else:
                self._plain(opcode, argument)

    def _plain(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """An opcode that only moves values. pickletools' table describes its effect on the stack."""
        if isinstance(argument, (str, bytes)) and not opcode.stack_before:
            self._text(argument)
            self._push_constant(argument)
            return
        if opcode.stack_after:
            self._last_text = None
        before = opcode.stack_before
        if pickletools.markobject in before:
            self._to_mark()
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            self._pop()
        self._stack.extend(_ANY for _ in opcode.stack_after)

    def _container(self, values: list[Any], unhashable: bool = True) -> Container:
        made = Container(unhashable=unhashable)
        self._count(made)
        self._fill(made, values)
        return made

    def _count(self, container: Container) -> None:
        self._containers.append(container)
        if len(self._containers) > MAX_CONTAINERS:
            raise TooMuch(f"it has over {MAX_CONTAINERS:,} lists, dictionaries and the like")

    def _fill(self, container: Any, values: list[Any]) -> None:
        held = of(container)
        if held is None:
            return
        for value in values:
            if value in held:
                self._findings.problem("it has a list or a dictionary that contains itself")
            else:
                held.add(value)

    def _hashed(self, values: list[Any]) -> None:
        if any(isinstance(value, Container) and value.unhashable for value in values):
            self._findings.problem("it has a list or a dictionary as a key, so nothing can load it")

    def _empty(self, argument: Any) -> None:
        self._last_text = None
        self._stack.append(self._container([]))

    def _collected(self, argument: Any) -> None:
        self._last_text = None
        self._stack.append(self._container(self._to_mark()))

    def _frozen(self, argument: Any) -> None:
        self._last_text = None
        values = self._to_mark()
        self._hashed(values)
        self._stack.append(self._container(values, unhashable=False))

    def _text(self, value: object) -> None:
        """Check which names a configuration wants to have called, as dictionaries or OmegaConf's nodes."""
        if not isinstance(value, str):
            self._last_text = None
            return
        self._findings.text(value)
        if self._last_text in _TARGET_KEYS or (self._target_pending and self._last_text == "_val"):
            self._findings.target(value)
            self._target_pending = False
        elif value in _TARGET_KEYS:
            # A node of OmegaConf also says in its metadata under which key it is.
            if self._last_text == "key":
                self._last_text = None
                return
            self._target_pending = True
        self._last_text = value

    def _push_constant(self, value: str | bytes | bytearray) -> None:
        self._stack.append(self._looked_into(bytes(value) if isinstance(value, bytearray) else value))

    def _looked_into(self, value: str | bytes) -> object:
        """Examine a constant that may itself be a pickle, or a zip with pickles."""
        if isinstance(value, str):
            if not value.startswith(("\x80", "PK")):
                return value
            try:
                data = value.encode("latin-1")
            except UnicodeError:
                return value
        else:
            data = value
        if not data.startswith(MAY_BE_INSIDE) and (isinstance(value, str) or len(data) < _SHORTEST):
            return value
        if self._depth >= MAX_DEPTH:
            self._findings.problem(f"it has nested pickles, more than {MAX_DEPTH} levels deep")
            return value
        known = self._inspect(data, self._depth + 1)
        return _LOADABLE if known and isinstance(value, bytes) else value

    def _top(self) -> Any:
        """Take the last value, to keep it unchanged or to call it."""
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("it uses a mark as a value")
        return value

    def _pop(self) -> Any:
        """Take the last value, to build something from it."""
        value = self._top()
        self._handed_on(value)
        return value

    def _handed_on(self, value: Any) -> None:
        if isinstance(value, Name) and value.key in ONLY_CALLED:
            self._findings.problem(f"it passes {value} on, to be called where we cannot see it")

    def _to_mark(self) -> list[Any]:
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at] is _MARK:
                found = self._stack[at + 1 :]
                del self._stack[at:]
                for value in found:
                    self._handed_on(value)
                return found
        raise ValueError("it goes back to a mark that does not exist")

    def _mark(self, argument: Any) -> None:
        self._stack.append(_MARK)

    def _proto(self, argument: Any) -> None:
        if argument > _LAST_PROTOCOL:
            raise ValueError(f"it has protocol {argument}")

    def _drop(self, argument: Any) -> None:
        self._stack.pop()

    def _drop_to_mark(self, argument: Any) -> None:
        self._to_mark()

    def _dup(self, argument: Any) -> None:
        self._findings.problem("it copies a value on its stack (DUP), which no pickler does")
        value = self._top()
        self._shares = True
        self._stack += [value, value]

    def _put(self, argument: Any) -> None:
        value = self._top()
        self._stack.append(value)
        # MEMOIZE numbers values by their count, whatever numbers the others have.
        self._memo[len(self._memo) if argument is None else int(argument)] = value
        if len(self._memo) > MAX_MEMO:
            raise TooMuch(f"it remembers over {MAX_MEMO:,} values")

    def _get(self, argument: Any) -> None:
        value = self._memo[int(argument)]
        self._text(value)
        self._shares = self._shares or of(value) is not None
        self._stack.append(value)

    def _tuple(self, argument: Any) -> None:
        self._stack.append(self._pair_up(self._to_mark()))

    def _tuple_of(self, count: int) -> None:
        self._stack.append(self._pair_up([self._pop() for _ in range(count)][::-1]))

    def _pair_up(self, values: list[Any]) -> object:
        # Only arguments of calls are examined, and only the first few. A nested tuple is a value.
        shown = tuple(_ANY if isinstance(value, (tuple, Container)) else value for value in values[:4])
        made = tuple_of(shown, values)
        if (held := of(made)) is not None:
            self._count(held)
        return made

    def _global(self, argument: Any) -> None:
        self._findings.name(argument)
        self._stack.append(argument)

    def _stack_global(self, argument: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            self._findings.problem("it computes the name of what it imports")
            self._stack.append(_ANY)
            return
        self._global(Name(module, name))

    def _inst(self, argument: Any) -> None:
        self._findings.name(argument)
        self._call(argument, tuple(self._to_mark()))

    def _obj(self, argument: Any) -> None:
        values = self._to_mark()
        self._call(values[0], tuple(values[1:]))

    def _reduce(self, argument: Any) -> None:
        arguments, function = self._pop(), self._top()
        self._call(function, arguments)

    def _newobj(self, argument: Any) -> None:
        arguments, kind = self._pop(), self._pop()
        self._call(kind, arguments)

    def _newobj_ex(self, argument: Any) -> None:
        self._pop()
        self._newobj(None)

    def _call(self, function: Any, arguments: Any) -> None:
        made: object = _ANY
        self._findings.calls += 1
        if not isinstance(function, Name):
            self._findings.problem("it calls what another call returned, or something that is not a name")
        elif isinstance(arguments, tuple) and any(value is _RANGE for value in arguments):
            self._findings.problem(f"it makes {function} use all numbers of a range, which may be very many")
        elif function.key == _ARRAY_WRAPPER:
            made = _WRAPPER
        elif function.allowed:
            made = self._made(function, arguments if isinstance(arguments, tuple) else None)
            if made is _ANY and function.key in CONTAINERS:
                made = self._container([arguments] if arguments else [], unhashable=False)
        self._stack.append(made)

    def _made(self, function: Name, given: tuple[Any, ...] | None) -> object:
        """Return the result of calling an allowed name. ``given`` is None if its arguments are unknown."""
        key = function.key
        if key == LOADS_BYTES and (given is None or len(given) != 1 or given[0] is not _LOADABLE):
            self._findings.problem(f"{function} loads something that cannot be examined")
        for at, expected in CALLS_ITS_ARGUMENT.get(key, {}).items():
            if given is None or (at < len(given) and not isinstance(given[at], Name)):
                self._findings.problem(f"{function} is made to call something that is not a name")
            elif at < len(given) and expected is not None and given[at].key not in expected:
                text = f"{function} is made to call {given[at]}"
                if is_known_code(*given[at].key):
                    self._findings.runs(text)
                else:
                    self._findings.problem(text)
        if key in MADE_EMPTY and given != ():
            self._findings.problem(f"{function} is called with arguments, some of which it may call")
        if key in GIVES_BACK and (given is None or any(isinstance(value, Name) for value in given)):
            self._findings.problem(f"{function} gets an import as an object")
        if key in RANGES:
            return _RANGE
        if key == ENCODES:
            return self._encoded(given)
        if key in MAKES_BYTES:
            return self._bytes(function, given)
        if key in LOADS_TYPE:
            if given is None or len(given) != 1 or given[0] not in HARMLESS_TYPES:
                self._findings.problem(f"{function} is asked for a type that is not known to be harmless")
                return _ANY
            return Name("builtins", given[0])
        return _ANY

    def _encoded(self, given: tuple[Any, ...] | None) -> object:
        """Protocols below 3 store bytes as a call of ``_codecs.encode`` on a string."""
        if not given or not isinstance(given[0], str):
            self._findings.problem("it encodes something that is not a string in the file")
            return _ANY
        if given[1:2] not in ((), ("latin1",), ("latin-1",)):
            self._findings.problem("it decodes a text with a codec that is not latin-1")
            return _ANY
        self._findings.made_bytes += len(given[0])
        if self._findings.made_bytes > MAX_MADE_BYTES:
            raise TooMuch(f"it makes more than {MAX_MADE_BYTES >> 20} MiB from its strings")
        return self._looked_into(given[0].encode("latin-1"))

    def _bytes(self, function: Name, given: tuple[Any, ...] | None) -> object:
        """Assembled bytes may be a pickle that was never stored as a whole."""
        if given == ():
            return b""
        if given is not None and len(given) == 1 and (given[0] is _LOADABLE or isinstance(given[0], bytes)):
            return given[0]
        if given is not None and len(given) == 2 and isinstance(given[0], str):
            return self._encoded(given)
        self._findings.problem(f"{function} assembles bytes, which are not examined")
        return _ANY

    def _append(self, argument: Any) -> None:
        value = self._pop()
        self._written(self._pop(), [value])

    def _set_item(self, argument: Any) -> None:
        value, key = self._pop(), self._pop()
        self._hashed([key])
        self._written(self._pop(), [key, value])

    def _extend(self, argument: Any) -> None:
        values = self._to_mark()
        self._written(self._pop(), values)

    def _set_items(self, argument: Any) -> None:
        values = self._to_mark()
        self._hashed(values[::2])
        self._written(self._pop(), values)

    def _add_items(self, argument: Any) -> None:
        values = self._to_mark()
        self._hashed(values)
        self._written(self._pop(), values)

    def _written(self, container: Any, values: list[Any]) -> None:
        if isinstance(container, bytes) or container is _LOADABLE:
            self._findings.problem("it writes into bytes, which are not examined afterwards")
        self._fill(container, values)
        self._stack.append(container if isinstance(container, Container) else _ANY)

    def _build(self, argument: Any) -> None:
        self._pop()
        written = self._pop()
        self._findings.calls += 1
        if written is _WRAPPER:
            raise RawBytes(
                "joblib.numpy_pickle.NumpyArrayWrapper is followed by the bytes of an array, and nothing "
                "after them is examined: joblib.load imports and runs what the pickle names"
            )
        if isinstance(written, Name):
            self._findings.problem("it writes to a class or function, not to an object")
        self._stack.append(_ANY)

    def _extension(self, argument: Any) -> None:
        self._findings.problem("it imports something from a numbered registry of the reader (an EXT opcode)")
        self._stack.append(_ANY)

    def _persistent_id(self, argument: Any) -> None:
        found = self._pop() if argument is None else argument
        if not self._persistent:
            self._findings.problem("it has a persistent id, which only its own reader understands")
        elif not (isinstance(found, tuple) and found[:1] == ("storage",)):
            # torch reads one more kind, for which it looks up source code, and may write a file beside it.
            self._findings.problem("it has a persistent id that does not belong to a tensor")
        self._stack.append(_ANY)

    def _buffer(self, argument: Any) -> None:
        self._findings.problem("it uses a buffer from outside the file")
        self._stack.append(_ANY)


def _argument(opcode: pickletools.OpcodeInfo, source: Any) -> Any:
    # pickletools only reads from it.
    return opcode.arg.reader(source) if opcode.arg is not None else None


def _line(source: Source) -> str:
    line = source.readline()
    if not line.endswith(b"\n"):
        raise ValueError("it ends within a name")
    return line[:-1].decode("utf-8")


_HANDLERS: dict[str, Any] = {
    "PROTO": _Machine._proto,
    "MARK": _Machine._mark,
    "POP": _Machine._drop,
    "POP_MARK": _Machine._drop_to_mark,
    "DUP": _Machine._dup,
    "PUT": _Machine._put,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._put,
    "GET": _Machine._get,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "EMPTY_TUPLE": lambda machine, argument: machine._tuple_of(0),
    "TUPLE1": lambda machine, argument: machine._tuple_of(1),
    "TUPLE2": lambda machine, argument: machine._tuple_of(2),
    "TUPLE3": lambda machine, argument: machine._tuple_of(3),
    "TUPLE": _Machine._tuple,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "INST": _Machine._inst,
    "OBJ": _Machine._obj,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._newobj,
    "NEWOBJ_EX": _Machine._newobj_ex,
    "BUILD": _Machine._build,
    "EXT1": _Machine._extension,
    "EXT2": _Machine._extension,
    "EXT4": _Machine._extension,
    "PERSID": _Machine._persistent_id,
    "BINPERSID": _Machine._persistent_id,
    "NEXT_BUFFER": _Machine._buffer,
    "READONLY_BUFFER": _Machine._buffer,
    "BYTEARRAY8": _Machine._push_constant,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._extend,
    "ADDITEMS": _Machine._add_items,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "EMPTY_LIST": _Machine._empty,
    "EMPTY_DICT": _Machine._empty,
    "EMPTY_SET": _Machine._empty,
    "LIST": _Machine._collected,
    "DICT": _Machine._collected,
    "FROZENSET": _Machine._frozen,
}
