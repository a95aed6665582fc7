"""Shows the progress, on stderr: a bar on a terminal, otherwise a line every ``LOG_SECONDS``."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from aml_mirror.support import redaction

LOG_SECONDS = 30.0


class Console:
    """Everything that the person sees besides the result. Secrets are masked."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._said: set[str] = set()
        self._doing = ""
        self.is_terminal = self._stream.isatty()

    def say(self, text: str) -> None:
        """Write a text, usually one line."""
        shown, self._doing = self._doing, self._clear()
        print(harmless(redaction.text(text)), file=self._stream, flush=True)
        self.doing(shown)

    def doing(self, text: str) -> None:
        """Show the current work in the last line of a terminal, replacing what was there; empty: nothing.

        Without a terminal, nothing is written.
        """
        if not self.is_terminal:
            return
        self._clear()
        self._doing = text
        if text:
            line = one_line(redaction.text(text))
            self._stream.write(line[: self._columns() - 1])
            self._stream.flush()

    def _clear(self) -> str:
        if self._doing:
            self._stream.write("\r\x1b[K")
        return ""

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def say_once(self, text: str) -> None:
        """Write a text unless it was already written: it concerns a whole run, not one of its versions."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def warn(self, text: str) -> None:
        """Write a one-line warning."""
        self.say("warning: " + one_line(text))

    def fail(self, text: str) -> None:
        """Write the one line that says why the work ended."""
        self.say("error: " + one_line(text))

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "B") -> Iterator[Callable[[int], None]]:
        """Show a stage of the work, and yield a function to call with each finished part.

        Args:
            name: the work, for example "hashing".
            total: its amount, in ``unit``.
            unit: ``B`` for bytes, shown as KiB, MiB, …; anything else is counted.
        """
        if not total:
            yield lambda count: None
        elif self.is_terminal:
            # The bar replaces the line with the current run, so it also names the run.
            shown, self._doing = self._doing, self._clear()
            with self._bar(
                f"{one_line(redaction.text(shown))}: {name}" if shown else name, total, unit
            ) as advance:
                yield advance
            self.doing(shown)
        else:
            with self._lines(name, total, unit) as advance:
                yield advance

    @contextmanager
    def _bar(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            Task,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class Speed(ProgressColumn):
            """Rich's own column uses MB, but everything else here MiB."""

            def render(self, task: Task) -> Text:
                speed = task.finished_speed or task.speed
                return Text(f"{amount(speed)}/s" if speed else "")

        done = DownloadColumn(binary_units=True) if unit == "B" else MofNCompleteColumn()
        speed = [Speed()] if unit == "B" else []
        columns = [TextColumn("{task.description}"), BarColumn(), done, *speed, TimeRemainingColumn()]
        with Progress(*columns, console=RichConsole(file=self._stream), transient=True) as progress:
            task = progress.add_task(name, total=total)
            yield lambda count: progress.advance(task, count)

    @contextmanager
    def _lines(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        done = 0
        started = time.monotonic()
        ended = threading.Event()

        def advance(count: int) -> None:
            nonlocal done
            done += count

        def log() -> None:
            # A separate thread: a single large file is one call, and an hour of silence looks like a hang.
            while not ended.wait(LOG_SECONDS):
                took = time.monotonic() - started
                share = 100 * done // total
                self.say(
                    f"{name}: {amount(done, unit)} of {amount(total, unit)} ({share} %) after {took:.0f} s"
                )

        thread = threading.Thread(target=log, name="progress", daemon=True)
        thread.start()
        try:
            yield advance
        finally:
            ended.set()
            thread.join()


def harmless(text: str) -> str:
    """Return a text, which may have several lines, without anything that controls a terminal."""
    return "\n".join(map(one_line, text.split("\n")))


def one_line(text: str) -> str:
    """Return a text as one line. Control characters are written in the same way as Python does.

    A file's name may contain a newline and a line that looks like ours, or a command to the terminal.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def amount(count: float, unit: str = "B") -> str:
    """Format an amount: ``1.5 MiB``, ``12,345 points``."""
    if unit != "B":
        return f"{count:,.0f} {unit}"
    for name in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {name}" if name == "B" else f"{count:.1f} {name}"
        count /= 1024
    return f"{count:.1f} TiB"
