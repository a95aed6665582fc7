"""archives.py: truncated, inconsistent and malicious zip files and pickles. Nothing is unpickled."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.formats import archives, pickle_values
from aml_mirror.formats.archives import Archive, Read
from aml_mirror.formats.pickle_values import MAX_VALUE, pickled_pairs, pickled_values

LOCAL = b"PK\x03\x04"
CENTRAL = b"PK\x01\x02"
END = b"PK\x05\x06"


def reader(data: bytes) -> Read:
    def read(offset: int, count: int) -> bytes:
        # An archive must not contain names that a file system refuses.
        assert 0 <= offset < 1 << 62 and 0 <= count < 1 << 62
        return data[offset : offset + count]

    return read


def opened(data: bytes) -> Archive:
    return Archive(reader(data), len(data))


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.comment = comment
    return stream.getvalue()


def torch_like(folder: str = "policy") -> bytes:
    """As torch.save writes it: stored, with a first folder named like the file."""
    value = pickle.dumps({"iter": 7, "infos": None}, protocol=2)
    return zipped({f"{folder}/data.pkl": value, f"{folder}/data/0": b"\x07" * 40, f"{folder}/version": b"3"})


def sb3_like() -> bytes:
    """As Stable-Baselines3 writes it: stored members that are torch archives themselves."""
    return zipped(
        {
            "data": b"{}",
            "pytorch_variables.pth": torch_like("pytorch_variables"),
            "policy.pth": torch_like(),
            "policy.optimizer.pth": torch_like("policy.optimizer"),
            "_stable_baselines3_version": b"2.3.2",
        }
    )


@pytest.mark.parametrize(
    "whole",
    [
        torch_like(),
        sb3_like(),
        zipped({"a": b"x" * 99}, zipfile.ZIP_DEFLATED),
        zipped({"a": b"x"}, comment=b"c" * 30),
    ],
    ids=["torch", "sb3", "deflated", "with comment"],
)
def test_a_zip_cut_at_any_byte_is_not_whole(whole: bytes) -> None:
    opened(whole)
    for length in range(len(whole)):
        with pytest.raises(ValueError):
            opened(whole[:length])


@pytest.mark.parametrize("extra", [b"\0", b"\0" * 500, END + b"\0" * 18])
def test_what_stands_behind_the_end_of_a_zip_is_noticed(extra: bytes) -> None:
    with pytest.raises(ValueError):
        opened(torch_like() + extra)


def test_a_zip_whose_start_is_lost_is_not_whole() -> None:
    whole = sb3_like()
    for start in range(1, len(whole) - 1):
        with pytest.raises(ValueError):
            opened(whole[start:])


def test_members_have_their_place_and_their_bytes() -> None:
    members = {"policy/data.pkl": b"pickle", "policy/data/0": b"tensor" * 100}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        data = zipped(members, method)
        archive = opened(data)
        assert {name: archive.read(name, 1 << 20) for name in archive.members} == members
        assert archive.read("policy/data/0", 6) == b"tensor"
        assert archive.find("data.pkl") == "policy/data.pkl" and archive.find("pkl") is None
    with pytest.raises(ValueError):
        archive.read("policy/none", 1)


def test_contents_are_equal_whatever_the_file_is_called() -> None:
    assert opened(torch_like("a")).contents() == opened(torch_like("b")).contents()
    assert opened(torch_like("a")).contents() != opened(zipped({"a/data.pkl": b"other"})).contents()


def test_a_zip_bomb_is_inflated_no_further_than_asked() -> None:
    archive = opened(zipped({"data.pkl": b"\0" * (200 << 20)}, zipfile.ZIP_DEFLATED))
    tracemalloc.start()
    assert len(archive.read("data.pkl", 1 << 20)) == 1 << 20
    assert len(archive.read("data.pkl", 0)) <= 1
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_damaged_deflate_data_is_an_error_of_the_file() -> None:
    data = bytearray(zipped({"data.pkl": b"abc" * 100}, zipfile.ZIP_DEFLATED))
    data[38:44] = b"\xff" * 6
    with pytest.raises(ValueError, match="damaged"):
        opened(bytes(data)).read("data.pkl", 100)


def patched(data: bytes, mark: bytes, offset: int, layout: str, value: int) -> bytes:
    """Change one field of the last record that begins with ``mark``."""
    changed = bytearray(data)
    struct.pack_into(layout, changed, data.rfind(mark) + offset, value)
    return bytes(changed)


@pytest.mark.parametrize(
    "data",
    [
        patched(torch_like(), CENTRAL, 42, "<L", 0xFFFFFFF0),
        patched(torch_like(), CENTRAL, 42, "<L", 5),
        patched(torch_like(), CENTRAL, 42, "<L", 0),
        patched(torch_like(), CENTRAL, 20, "<L", 1 << 30),
        patched(torch_like(), CENTRAL, 24, "<L", 1 << 30),
        patched(torch_like(), END, 16, "<L", 1 << 30),
        patched(torch_like(), END, 16, "<L", 0),
        patched(torch_like(), END, 12, "<L", 1 << 31),
        patched(torch_like(), END, 20, "<H", 9),
        patched(patched(torch_like(), CENTRAL, 20, "<L", 1 << 30), CENTRAL, 24, "<L", 1 << 30),
    ],
    ids=[
        *("offset far behind", "offset into another", "two members at one place", "data behind the end"),
        *("two sizes", "directory behind the end", "directory at 0", "directory larger than the file"),
        *("comment behind the end", "member behind the end"),
    ],
)
def test_a_directory_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        opened(data)


def _with_a_second_directory(records: str) -> bytes:
    """A zip whose records lead some readers to a second directory, which lists the member
    ``archi/data.pkl``.
    """
    evil = zipped({"archi/data.pkl": b"evil"})
    theirs = evil[evil.index(CENTRAL) : evil.index(END)]
    # The tensor, which nobody reads, contains the second directory and the pickle that it lists.
    honest = zipped({"archive/data/0": evil[: evil.index(CENTRAL)] + theirs})
    directory, end = honest.rindex(CENTRAL, 0, honest.rindex(END)), honest.rindex(END)
    ours = honest[directory:end]
    data, at = honest[:directory], honest.index(theirs)
    if records == "offset":
        # The end record points to the second directory, in the comment after it. zipfile counts back from the
        # record.
        shift = len(ours) + 22
        shifted = ours[:42] + struct.pack("<L", shift) + ours[46:]
        record = struct.pack("<4s4H2LH", END, 0, 0, 1, 1, len(ours), len(data) + shift, len(ours))
        return data + shifted + record + theirs
    long = struct.Struct("<4sQ2H2L4Q")
    if records == "locator":
        # zipfile reads the record before the locator; torch's reader reads the record that the locator points
        # to.
        other = long.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(theirs), at)
        mine = long.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(ours), len(data) + len(other))
        locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(data), 1)
        record = struct.pack("<4s4H2LH", END, 0, 0, 1, 1, len(ours), len(data) + len(other), 0)
        return data + other + ours + mine + locator + record
    # The two records differ, and readers differ in which one they use.
    mine = long.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(ours), len(data))
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(data) + len(ours), 1)
    record = struct.pack("<4s4H2LH", END, 0, 0, 1, 1, len(theirs), at, 0)
    return data + ours + mine + locator + record


@pytest.mark.parametrize("records", ["offset", "locator", "short"])
def test_a_directory_that_only_some_readers_see_is_refused(records: str) -> None:
    data = _with_a_second_directory(records)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:  # what one reader sees
        assert archive.namelist() == ["archive/data/0"]
    with pytest.raises(ValueError, match="not where its records say"):
        opened(data)


def test_records_of_64_bits_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 0)
    data = torch_like()
    assert b"PK\x06\x07" in data
    monkeypatch.undo()
    assert opened(data).contents() == opened(torch_like()).contents()


def test_a_member_with_two_names_is_refused() -> None:
    data = zipped({"archive/data/0_data.pkl": b"x"}).replace(b"/0_", b"/0\0")
    with pytest.raises(ValueError, match="two names"):
        opened(data)


def test_a_wrong_number_of_entries_hides_none() -> None:
    # zipfile uses the directory's size, so a reader that uses the number of entries sees no more than we do.
    data = patched(torch_like(), END, 10, "<H", 0)
    assert opened(data).contents() == opened(torch_like()).contents()


def test_offsets_of_2_to_the_60_are_refused_before_they_are_read() -> None:
    whole = torch_like()
    start = whole.rfind(CENTRAL)
    name_length = struct.unpack_from("<H", whole, start + 28)[0]
    extra = struct.pack("<HHQQQ", 1, 24, 1 << 62, 1 << 62, 1 << 62)
    entry = bytearray(whole[start : start + 46 + name_length])
    struct.pack_into("<LL", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", entry, 30, len(extra))
    struct.pack_into("<L", entry, 42, 0xFFFFFFFF)
    end = bytearray(whole[-22:])
    struct.pack_into("<L", end, 12, struct.unpack_from("<L", end, 12)[0] + len(extra))
    with pytest.raises(ValueError):
        opened(whole[:start] + bytes(entry) + extra + bytes(end))


def test_a_directory_larger_than_any_models_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_DIRECTORY_BYTES", 70_000)
    asked: list[int] = []
    data = zipped({f"policy/data/{number}": b"" for number in range(2000)})

    def read(offset: int, count: int) -> bytes:
        asked.append(count)
        return data[offset : offset + count]

    with pytest.raises(ValueError):
        Archive(read, len(data))
    assert max(asked) <= 70_000


def test_a_hundred_thousand_members_are_read_each_with_a_few_bytes() -> None:
    data = zipped({f"policy/data/{number}": b"" for number in range(100_000)})
    read = 0

    def counted(offset: int, count: int) -> bytes:
        nonlocal read
        read += count
        return data[offset : offset + count]

    assert len(Archive(counted, len(data)).members) == 100_000
    assert read < 2 * len(data)


@given(data=st.binary(max_size=300))
@settings(max_examples=150)
def test_any_bytes_are_an_archive_or_a_value_error(data: bytes) -> None:
    for candidate in (data, LOCAL + data, torch_like() + data, LOCAL + data + torch_like()[-200:]):
        try:
            opened(candidate)
        except ValueError:
            continue
        assert candidate == torch_like()


@given(at=st.integers(0, len(sb3_like()) - 1), byte=st.integers(0, 255))
@settings(max_examples=300)
def test_one_wrong_byte_never_crashes(at: int, byte: int) -> None:
    data = bytearray(sb3_like())
    data[at] = byte
    try:
        archive = opened(bytes(data))
        for name in archive.members:
            archive.read(name, 1 << 20)
    except ValueError:
        pass


# --- pickles -------------------------------------------------------------------------------------------

KEYS = frozenset(("iter", "epoch", "name", "blob"))
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 62), 1 << 62),
    st.floats(allow_nan=False),
    st.text(max_size=20).filter(lambda text: text not in KEYS),
    st.binary(max_size=20),
)


@pytest.mark.parametrize("protocol", range(6))
@given(value=PLAIN, other=PLAIN)
@settings(max_examples=40)
def test_a_plain_value_behind_its_key_is_found_in_every_protocol(
    protocol: int, value: object, other: object
) -> None:
    found = pickled_values(pickle.dumps({"x": other, "iter": value, "y": [other]}, protocol), KEYS)
    if protocol < 3 and isinstance(value, bytes) and (not value or value == other):
        return  # this only refers to the result of a call, which is not followed
    if protocol == 0 and isinstance(value, bool):
        assert found["iter"] == value
        return
    assert found == {"iter": value} and type(found["iter"]) is type(value)


def test_a_value_that_is_no_plain_one_is_not_taken_for_the_next() -> None:
    assert pickled_values(pickle.dumps({"iter": [5], "epoch": 3}), KEYS) == {"epoch": 3}
    assert pickled_values(pickle.dumps({"iter": {"a": 5}}), KEYS) == {}


def test_pairs_come_in_the_files_order_and_the_first_counts() -> None:
    data = pickle.dumps([{"iter": 1}, {"iter": 2}])
    assert pickled_pairs(data, KEYS) == [("iter", 1), ("iter", 2)]
    assert pickled_values(data, KEYS) == {"iter": 1}


def test_a_hostile_pickle_is_looked_at_and_never_run() -> None:
    class Bad:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return exec, ("raise SystemExit('the pickle was run')",)

    for protocol in range(6):
        data = pickle.dumps({"iter": 4, "bad": Bad(), "epoch": 2}, protocol)
        assert pickled_values(data, KEYS)["iter"] == 4
    # INST imports and calls in one opcode. Its argument is the name of a function, not a string.
    assert pickled_values(b"(S'name'\nios\nsystem\n.", KEYS) == {}


def test_text_is_cut_and_integers_stay_printable() -> None:
    long = pickle.dumps({"name": "x" * 10_000, "iter": 10**5000, "epoch": 3})
    found = pickled_values(long, KEYS)
    assert found == {"name": "x" * MAX_VALUE, "epoch": 3}


def test_a_damaged_pickle_yields_what_stood_before_the_damage() -> None:
    data = pickle.dumps({"iter": 4, "epoch": 2})
    assert pickled_values(data[: data.index(b"epoch")], KEYS) == {"iter": 4}
    for length in range(len(data)):
        assert pickled_values(data[:length], KEYS).items() <= {"iter": 4, "epoch": 2}.items()


def test_a_pickle_of_endless_opcodes_is_left_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_values, "MAX_OPCODES", 1000)
    found = pickled_values(b"\x80\x02" + b"N" * 5000 + pickle.dumps({"iter": 1}, 0), KEYS)
    assert found == {}


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


PARTS = st.one_of(st.sampled_from(OPCODES), st.binary(max_size=9), st.just(b"X\x04\0\0\0iter"))


@given(parts=st.lists(PARTS, max_size=40))
@settings(max_examples=400)
def test_any_opcodes_are_read_without_harm(parts: list[bytes]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # of escapes in the strings of protocol 0
        warnings.simplefilter("ignore", SyntaxWarning)
        for key, value in pickled_pairs(b"".join(parts), KEYS):
            assert key in KEYS
            assert value is None or isinstance(value, (str, bytes, int, float))
            str(value)


@pytest.mark.parametrize("code", [b"\x8b", b"X", b"B", b"T", b"\x8d", b"\x8e", b"\x95"])
def test_length_fields_of_any_size_hold_no_memory(code: bytes) -> None:
    tracemalloc.start()
    for length in (b"\xff" * 8, b"\xff\xff\xff\x7f" + b"\0" * 4, b"\0" * 7 + b"\x10"):
        pickled_values(b"\x80\x04X\x04\0\0\0iter" + code + length, KEYS)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_crc_of_members_is_that_of_their_bytes() -> None:
    assert opened(zipped({"a": b"abc"})).members["a"].crc == zlib.crc32(b"abc")
