"""The program: what the person types, what the person sees, and the exit code. No logic.

On stdout stands the result and nothing else: the receipt as one line of JSON where ``--json`` asks for it
or stdout is no terminal, the plan, the status. Everything else goes to stderr.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from io import TextIOWrapper
from pathlib import Path
from types import FrameType

from aml_mirror.cli.arguments import parser, with_default_command
from aml_mirror.core.errors import (
    ConfigurationError,
    Interrupted,
    MirrorError,
    ServiceUnavailable,
    UsageError,
    of_the_system,
)
from aml_mirror.core.settings import Settings, read_dotenv, resolve
from aml_mirror.pipeline.receipt import Progress, failed, write_termination_log
from aml_mirror.support import redaction
from aml_mirror.support.progress import Console, harmless

BUG = 70

# What the libraries we call do unasked: send telemetry, draw bars of their own.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # MLflow retries a few times by itself and honours Retry-After; --retry-for is the patience above it.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    _standard_streams()
    console = Console()
    given = list(sys.argv[1:] if arguments is None else arguments)
    started = time.monotonic()
    progress = Progress()
    try:
        _catch_signals()
        _require_utf8()
        flags = parser().parse_args(with_default_command(given))
        settings = _settings(flags)
        _quiet_loggers(settings.debug)
        # Libraries print as they like; stdout is for the result alone.
        with redirect_stdout(sys.stderr):
            return _COMMANDS[flags.command](settings, console, progress)
    except SystemExit as done:  # --help, --version
        return int(done.code or 0)
    except (MirrorError, Interrupted) as error:
        return _failed(error.exit_code, error.message, error.hint, console, progress, given, started)
    except BrokenPipeError:  # --help into a pager that was left
        _discard_output()
        return 0
    except OSError as error:
        translated = of_the_system(error)
        return _failed(
            translated.exit_code, translated.message, translated.hint, console, progress, given, started
        )
    except Exception as error:  # noqa: BLE001 - the last catch: a bug ends in one line too
        hint = "this is a bug: please report it with the output of --debug"
        return _failed(BUG, f"{type(error).__name__}: {error}", hint, console, progress, given, started)


def _settings(flags: Namespace) -> Settings:
    directory = Path.cwd()
    redaction.learn(os.environ)
    settings = resolve(flags, os.environ, directory)
    redaction.learn({**read_dotenv(directory), "--tracking-uri": settings.tracking_uri})
    # The clients read variables of their own (credentials above all): .env serves them too.
    for name, value in {**read_dotenv(directory), **_QUIET}.items():
        if not os.environ.get(name) and "\0" not in name + value:
            os.environ[name] = value
    if settings.framework:
        from aml_mirror.layouts import NAMES

        if settings.framework not in NAMES:
            raise UsageError(
                f"--framework {settings.framework!r} is not known", "one of: " + ", ".join(NAMES)
            )
    return settings


def _mirror(settings: Settings, console: Console, progress: Progress) -> int:
    from aml_mirror.cli.report import receipt_text
    from aml_mirror.pipeline.mirror import Mirror

    for done in Mirror(settings, console, progress).run():
        write_termination_log(done)
        for warning in done.warnings[:20]:
            console.warn(warning)
        if _for_people(settings.json):
            _print(receipt_text(done))
        else:
            _print_line(done.line())
    return 0


def _plan(settings: Settings, console: Console, progress: Progress) -> int:
    from aml_mirror.cli.report import plan_text
    from aml_mirror.pipeline.decide import plans

    for plan in plans(settings, console):
        _print(json.dumps(plan.as_dict()) if settings.json else plan_text(plan))
    return 0


def _backfill(settings: Settings, console: Console, progress: Progress) -> int:
    from aml_mirror.backfill.backfill import Backfill

    lines = not _for_people(settings.json)
    summary = Backfill(settings, console, lambda done: _print_line(done.line()) if lines else None).run()
    if summary.found or not summary.error:
        console.say(summary.table())
    if summary.error:
        console.fail(summary.error + (f"; {summary.hint}" if summary.hint else ""))
    write_termination_log(summary)
    if lines:
        _print_line(summary.line())
    return summary.exit_code


def _status(settings: Settings, console: Console, progress: Progress) -> int:
    from aml_mirror.status.status import statuses, text

    missing = 0
    for found in statuses(settings, console.say):
        missing += not found["versions"]
        _print(json.dumps(found) if settings.json else text(found))
    return 65 if missing else 0


def _verify(settings: Settings, console: Console, progress: Progress) -> int:
    from aml_mirror.verify.verify import text, verify

    result = verify(settings, console)
    _print(json.dumps(result.as_dict()) if settings.json else text(result))
    return 0 if result.holds else 65


def _doctor(settings: Settings, console: Console, progress: Progress) -> int:
    from aml_mirror.cli.report import check_text
    from aml_mirror.doctor.doctor import examine

    code = 0
    for check in examine(settings):
        _print(json.dumps(check.as_dict()) if settings.json else check_text(check))
        if check.failure and not code:
            code = check.failure.exit_code
    return code


_COMMANDS = {
    "mirror": _mirror,
    "plan": _plan,
    "backfill": _backfill,
    "status": _status,
    "verify": _verify,
    "doctor": _doctor,
}


def _failed(
    code: int, message: str, hint: str, console: Console, progress: Progress, given: list[str], started: float
) -> int:
    receipt = failed(progress.facts, code, message, hint, time.monotonic() - started)
    if "--debug" in given:
        console.say(traceback.format_exc())
    console.fail(f"{message}" + (f"; {hint}" if hint else ""))
    write_termination_log(receipt)
    if not _for_people("--json" in given):
        try:
            _print_line(receipt.line())
        except MirrorError as lost:
            console.fail(lost.message)
    return code


def _print_line(line: str) -> None:
    """Print JSON in which each text was masked as it was put in, and which holds no control character."""
    _write(line)


def _print(result: str) -> None:
    _write(harmless(redaction.text(result)))


def _write(result: str) -> None:
    """Write to stdout.

    Raises:
        ServiceUnavailable: it cannot hold the result.
    """
    try:
        print(result, file=sys.__stdout__, flush=True)
    except BrokenPipeError:
        # Whoever read our output has gone. The work is not undone by that, nor its exit code another one.
        _discard_output()
    except OSError as error:
        _discard_output()
        raise ServiceUnavailable(
            f"the result cannot be written to stdout: {error.strerror}",
            "what was done stays done: make room there and run the same command again",
        ) from error


def _discard_output() -> None:
    # What is buffered still would fail once more when Python ends.
    if sys.__stdout__ is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


def _standard_streams() -> None:
    """Be ready for a stderr that is closed, and for encodings that cannot hold every name."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process
    for stream in (sys.__stdout__, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            with suppress(OSError):  # a descriptor that was a file when Python began, and is a pipe now
                stream.reconfigure(errors="backslashreplace")


def _require_utf8() -> None:
    """Names of files become run ids, and those must not depend on the locale of who mirrors.

    Raises:
        ConfigurationError: they would be read in another encoding than UTF-8.
    """
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise ConfigurationError(
            f"the locale makes Python read the names of files as {encoding}, not as UTF-8",
            "set LC_ALL=C.UTF-8, or PYTHONUTF8=1",
        )


def _for_people(wants_json: bool) -> bool:
    return not wants_json and sys.__stdout__ is not None and sys.__stdout__.isatty()


def _quiet_loggers(debug: bool) -> None:
    logging.setLogRecordFactory(redaction.MaskedRecord)
    for name in ("mlflow", "alembic", "azure", "azureml"):
        logging.getLogger(name).setLevel(logging.WARNING if debug else logging.ERROR)


def _catch_signals() -> None:
    def stop(signum: int, frame: FrameType | None) -> None:
        # A second signal ends the program at once, as if nobody had asked for the first.
        signal.signal(signum, signal.SIG_DFL)
        raise Interrupted(signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)


if __name__ == "__main__":
    sys.exit(main())
