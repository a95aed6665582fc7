"""A sample of generated pickles, read in three ways. ``pickle_differences.py`` generates any number."""

from __future__ import annotations

import pickle
import struct

import pytest

from safety.pickle_differences import c_readings, differences, generated, our_reading


@pytest.mark.parametrize("seed", range(2))
def test_nothing_that_is_clean_is_read_in_another_way(seed: int) -> None:
    assert list(differences(list(generated(4000, seed)))) == []


def test_the_reader_in_c_says_what_it_imports_and_does_nothing_else() -> None:
    class Marks:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("1/0",)

    (imported, events), (none, _) = c_readings([pickle.dumps(Marks(), 4), pickle.dumps({"a": 1}, 4)])
    assert (imported, events, none) == ({"builtins.exec"}, [], set())


def frame(length: int) -> bytes:
    return b"\x95" + struct.pack("<Q", length)


HIDDEN = b"cos\nsystem\n0"
FRAMES = {
    # A text that ends after its frame: one reader continues after the frame, another after the text.
    "argument past its frame": b"\x80\x04" + frame(4) + b"\x8c\x20ab" + HIDDEN.ljust(30, b"0") + b"N.",
    "name past its frame": b"\x80\x04" + frame(3) + b"Vab\n" + b"0N.",
    "frame in a frame": b"\x80\x04" + frame(30) + b"N0" + frame(4) + b"N0N0" + b"N0" * 3 + b"N..",
    "end before the frame's": b"\x80\x04" + frame(20) + b"N." + b"0" * 18,
    "frame longer than the file": b"\x80\x04" + frame(1 << 40) + b"N.",
    "empty frame in a frame": b"\x80\x04" + frame(12) + frame(0) + b"N0.",
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_that_do_not_fit_are_suspicious(name: str) -> None:
    assert our_reading(FRAMES[name])[1] == "suspicious"


@pytest.mark.parametrize(
    "value", [{"a": [1, 2, 3]}, b"x" * 200_000, ["y" * 70_000, {"z": 1}], list(range(50_000))]
)
@pytest.mark.parametrize("protocol", [4, 5])
def test_the_frames_of_real_pickles_fit(protocol: int, value: object) -> None:
    assert our_reading(pickle.dumps(value, protocol))[1] == "clean"
