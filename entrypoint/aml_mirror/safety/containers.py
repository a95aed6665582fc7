"""Checks whether a few bytes of a pickle represent very many values, in its lists, dictionaries and tuples.

A value from the memo is the same object again. A list of ten times the same list, ten levels deep, has a few
hundred bytes and 10^10 values. Printing, comparing or copying it runs out of time or memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# The most containers of one pickle that are followed. The largest known model has 10^5.
MAX_CONTAINERS = 1 << 20
# Values that a real file shares (the same settings in each of many episodes) give it at most as many values
# as the square of its steps. Below this number nothing is proven.
_FEWEST = 100_000
_FLAT = 4  # The most values in a tuple that is not followed.


@dataclass(slots=True, eq=False)
class Container:
    """One container: how many plain values it contains, and which other containers."""

    plain: int = 1
    inside: list[Container] = field(default_factory=list)
    unhashable: bool = False

    def add(self, value: object) -> None:
        """Add a value."""
        held = of(value)
        if held is None:
            self.plain += 1 + (len(value) if isinstance(value, tuple) else 0)
        else:
            self.inside.append(held)

    def __contains__(self, value: object) -> bool:
        return of(value) is self


class DeepTuple(tuple[object, ...]):
    """The first values of a tuple that is long, or contains other containers."""

    container: Container


def of(value: object) -> Container | None:
    """Return the container of a value; None: it is not one, or is a short tuple of plain values."""
    if isinstance(value, Container):
        return value
    return value.container if isinstance(value, DeepTuple) else None


def tuple_of(shown: tuple[object, ...], values: list[object]) -> tuple[object, ...]:
    """Return the tuple of ``shown`` that represents all ``values``."""
    if len(values) <= _FLAT and not any(isinstance(value, (tuple, Container)) for value in values):
        return shown
    made = DeepTuple(shown)
    made.container = Container()
    for value in values:
        made.container.add(value)
    return made


def expands(containers: list[Container], steps: int) -> bool:
    """Tell whether containers represent more values than a real pickle with so many steps."""
    limit = max(_FEWEST, steps * steps)
    sizes: dict[int, int] = {}
    for root in containers:
        # Each container comes after everything in it. One that contains itself indirectly counts once.
        pending = [(root, False)]
        while pending:
            item, done = pending.pop()
            if done:
                sizes[id(item)] = size = item.plain + sum(sizes[id(below)] for below in item.inside)
                if size > limit:
                    return True
            elif id(item) not in sizes:
                sizes[id(item)] = 0
                pending.append((item, True))
                pending += [(below, False) for below in item.inside if id(below) not in sizes]
    return False
