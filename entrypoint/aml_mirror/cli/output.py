"""Writes the result to stdout, and nothing else."""

from __future__ import annotations

import os
import sys

from aml_mirror.core.errors import ServiceUnavailable
from aml_mirror.support import redaction
from aml_mirror.support.progress import harmless


def for_people(wants_json: bool) -> bool:
    """Tell whether a person reads stdout, and did not ask for JSON."""
    return not wants_json and sys.__stdout__ is not None and sys.__stdout__.isatty()


def print_text(text: str) -> None:
    """Print a result with its secrets masked. Raises the errors of :func:`print_line`."""
    print_line(harmless(redaction.text(text)))


def print_line(line: str) -> None:
    """Print JSON whose texts are already masked, and which contains no control characters.

    Raises:
        ServiceUnavailable: stdout cannot be written.
    """
    try:
        print(line, file=sys.__stdout__, flush=True)
    except BrokenPipeError:
        # The reader of our output has gone. That does not undo the work, and does not change its exit code.
        discard()
    except OSError as error:
        discard()
        raise ServiceUnavailable(
            f"the result cannot be written to stdout: {error.strerror}",
            "the work is done: free some space there and run the same command again",
        ) from error


def discard() -> None:
    """Discard further output: buffered output would fail again when Python ends."""
    if sys.__stdout__ is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
