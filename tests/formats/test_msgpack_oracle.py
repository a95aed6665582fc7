"""formats/msgpack.py compared with msgpack's own library: complete files are complete, truncated ones are
not.
"""

from __future__ import annotations

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from aml_mirror.formats.msgpack import msgpack_problem

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=70)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=40))
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=18) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=25,
)


def problem(data: bytes) -> str:
    return msgpack_problem(lambda offset, count: data[offset : offset + count], len(data))


def is_whole(data: bytes) -> bool:
    """Whether the library reads exactly one map or array that ends at the end of the bytes."""
    try:
        found = msgpack.unpackb(data, strict_map_key=False, raw=True)
    # A TypeError is a key that Python cannot hash, such as a list.
    except (ValueError, TypeError, msgpack.UnpackException):
        return False
    return isinstance(found, (dict, list))


@settings(max_examples=60)
@given(st.lists(TREES, max_size=4) | st.dictionaries(st.text(max_size=9), TREES, max_size=20), st.data())
def test_what_the_library_writes_is_whole_and_no_part_of_it_is(value: object, data: st.DataObject) -> None:
    whole = msgpack.packb(value)
    assert problem(whole) == ""
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert not is_whole(whole[:cut]) and problem(whole[:cut]) != ""
    assert not is_whole(whole + b"\x00") and problem(whole + b"\x00") != ""


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=40))
def test_no_bytes_are_whole_that_the_library_refuses_for_their_length(noise: bytes) -> None:
    for data in (noise, b"\x91" + noise, b"\x81\xa1a" + noise):
        if is_whole(data):
            assert problem(data) == ""
