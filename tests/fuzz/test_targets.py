"""Each target of the fuzzer on its seeds, on truncated and changed seeds, and on bytes that Hypothesis
generates.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_spec = importlib.util.spec_from_file_location("fuzz_targets", Path(__file__).with_name("targets.py"))
assert _spec and _spec.loader
targets = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(targets)
TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = targets.TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_and_all_their_beginnings(name: str) -> None:
    target, seeds = TARGETS[name]
    for seed in seeds:
        for length in range(0, len(seed) + 1, 1 if len(seed) < 60 else 7):
            target(seed[:length])


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_seed_with_some_bytes_changed(name: str, data: st.DataObject) -> None:
    target, seeds = TARGETS[name]
    changed = bytearray(data.draw(st.sampled_from(seeds)) or b"x")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=6))
        changed = changed or bytearray(b"x")
    target(bytes(changed))
