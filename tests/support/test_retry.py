"""retry.py: retries end in time, measured with the test's own clock and sleep."""

from __future__ import annotations

import pytest

from aml_mirror.core.errors import (
    ConfigurationError,
    Interrupted,
    MirrorError,
    NotAllowed,
    ServiceUnavailable,
)
from aml_mirror.support.retry import LONGEST_PAUSE, Retry


class World:
    """A clock that only sleeping advances, and a record of messages and calls."""

    def __init__(self, for_seconds: float, failures: int = 10**9, cost: float = 0.0) -> None:
        self.now, self.cost, self.failures, self.calls = 1000.0, cost, failures, 0
        self.pauses: list[float] = []
        self.said: list[str] = []
        self.error: BaseException = OSError("down")
        self.retry = Retry(for_seconds, self.translate, self.said.append, self.sleep, lambda: self.now)

    def translate(self, error: Exception) -> MirrorError:
        known = isinstance(error, OSError)
        return ServiceUnavailable("it is down") if known else ConfigurationError("it is wrong")

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.pauses.append(seconds)
        self.now += seconds

    def operation(self) -> str:
        self.calls += 1
        self.now += self.cost
        if self.calls <= self.failures:
            raise self.error
        return "done"


def test_what_works_is_called_once() -> None:
    world = World(60, failures=0)
    assert world.retry(world.operation) == "done"
    assert world.calls == 1 and not world.pauses and not world.said


def test_what_fails_for_now_is_called_again_and_said_once() -> None:
    world = World(900, failures=5)
    assert world.retry(world.operation) == "done"
    assert world.calls == 6 and len(world.said) == 1 and "900 s (--retry-for)" in world.said[0]


@pytest.mark.parametrize(("for_seconds", "cost"), [(0, 0), (1, 0), (90, 0), (900, 0), (90, 17), (10, 100)])
def test_it_gives_up_when_the_time_is_up_with_75(for_seconds: float, cost: float) -> None:
    world = World(for_seconds, cost=cost)
    with pytest.raises(ServiceUnavailable, match="it is down") as caught:
        world.retry(world.operation)
    assert caught.value.exit_code == 75 and isinstance(caught.value.__cause__, OSError)
    # Not before the time is over, and at most one call later.
    assert for_seconds <= world.now - 1000 + 1e-6 <= for_seconds + 2 * cost + 1e-3
    assert for_seconds or world.calls == 1


def test_pauses_grow_to_a_bound_and_are_not_all_alike() -> None:
    world = World(900)
    with pytest.raises(ServiceUnavailable):
        world.retry(world.operation)
    assert 0.5 <= world.pauses[0] <= 1.0 and max(world.pauses) <= LONGEST_PAUSE
    assert len(set(world.pauses)) > 10 and world.calls < 90


def test_each_operation_has_its_own_patience() -> None:
    world = World(30, failures=3)
    world.retry(world.operation)
    world.now, world.calls = 9000.0, 0
    assert world.retry(world.operation) == "done"


@pytest.mark.parametrize("error", [ValueError("wrong"), NotAllowed("no"), ConfigurationError("no")])
def test_what_trying_again_does_not_mend_is_raised_at_once(error: Exception) -> None:
    world = World(900)
    world.error = error
    with pytest.raises(MirrorError) as caught:
        world.retry(world.operation)
    assert world.calls == 1 and not world.pauses
    if isinstance(error, MirrorError):
        assert caught.value is error
    else:
        assert isinstance(caught.value, ConfigurationError) and caught.value.__cause__ is error


def test_our_own_error_that_passes_is_tried_again_too() -> None:
    world = World(900, failures=2)
    world.error = ServiceUnavailable("arrived cut")
    assert world.retry(world.operation) == "done"
    world = World(5)
    world.error = ServiceUnavailable("arrived cut")
    with pytest.raises(ServiceUnavailable, match="arrived cut") as caught:
        world.retry(world.operation)
    assert caught.value.__cause__ is not caught.value


def test_a_signal_is_never_waited_out() -> None:
    world = World(900)
    world.error = Interrupted(15)
    with pytest.raises(Interrupted):
        world.retry(world.operation)
    assert world.calls == 1
