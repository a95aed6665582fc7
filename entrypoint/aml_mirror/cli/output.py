"""What goes to stdout: the result alone."""

from __future__ import annotations

import os
import sys

from aml_mirror.core.errors import ServiceUnavailable
from aml_mirror.support import redaction
from aml_mirror.support.progress import harmless


def for_people(wants_json: bool) -> bool:
    """Return whether a person reads stdout, and did not ask for JSON."""
    return not wants_json and sys.__stdout__ is not None and sys.__stdout__.isatty()


def print_text(text: str) -> None:
    """Print a result, its secrets masked. Raises as :func:`print_line`."""
    print_line(harmless(redaction.text(text)))


def print_line(line: str) -> None:
    """Print JSON in which each text was masked as it was put in, and which holds no control character.

    Raises:
        ServiceUnavailable: stdout cannot take the result.
    """
    try:
        print(line, file=sys.__stdout__, flush=True)
    except BrokenPipeError:
        # Whoever read our output has gone. The work is not undone by that, nor its exit code another one.
        discard()
    except OSError as error:
        discard()
        raise ServiceUnavailable(
            f"the result cannot be written to stdout: {error.strerror}",
            "what was done stays done: make room there and run the same command again",
        ) from error


def discard() -> None:
    """Send further output nowhere: what is still buffered would fail once more when Python ends."""
    if sys.__stdout__ is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
