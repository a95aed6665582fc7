"""Decides when telemetry is recorded, and when it is delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aml_mirror.support.progress import Console
from aml_mirror.telemetry import opentelemetry_export, record


@dataclass(frozen=True, slots=True)
class _Asked:
    environ: Mapping[str, str]
    metrics_file: str


_asked: _Asked | None = None


def begin(command: str, metrics_file: str, environ: Mapping[str, str], console: Console) -> None:
    """Begin to record, if the environment or ``--metrics-file`` asks for it.

    Args:
        command: its name.
        metrics_file: the value of ``--metrics-file``; empty: none.
        environ: the variables of the process, without those of ``.env``.
        console: shows what is not available.
    """
    global _asked
    _asked = None
    if why := opentelemetry_export.unsupported(environ):
        console.warn(why)
        environ = {**environ, "OTEL_SDK_DISABLED": "true"}
    if metrics_file or opentelemetry_export.signals(environ):
        _asked = _Asked(environ, metrics_file)
        record.start(command)


def deliver(console: Console, exit_code: int) -> None:
    """Deliver what was recorded since the last delivery. A failure only causes a warning."""
    done = record.current()
    if _asked is None or done is None or done.was_delivered:
        return
    done.end(exit_code)
    if _asked.metrics_file:
        _write(done, _asked.metrics_file, console)
    if why := opentelemetry_export.send(done, _asked.environ):
        console.warn(why)
    done.next_pass()


def _write(done: record.Record, path: str, console: Console) -> None:
    try:
        from aml_mirror.telemetry import prometheus_file

        prometheus_file.write(done, path)
    except OSError as failure:
        console.warn(f"--metrics-file {path} cannot be written: {failure.strerror or failure}")
    except ImportError:
        console.warn(
            "--metrics-file is not part of aml-mirror-pull, which is installed here: nothing was written"
        )
