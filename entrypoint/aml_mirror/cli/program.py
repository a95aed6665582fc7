"""The program: the command line, output for the user, and the exit code. It contains no other logic.

Stdout gets only the result (:mod:`aml_mirror.cli.output`): the receipt as one line of JSON, if ``--json`` is
given or stdout is not a terminal; the plan; the status. Everything else goes to stderr.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
import time
import traceback
from argparse import Namespace
from contextlib import redirect_stdout, suppress
from io import TextIOWrapper
from pathlib import Path
from types import FrameType

from aml_mirror.cli import output, telemetry
from aml_mirror.cli.arguments import parser, with_default_command
from aml_mirror.cli.commands import BY_NAME, Call
from aml_mirror.cli.commands.base import PROGRAM, framework_names
from aml_mirror.cli.plugin_options import plugin_options
from aml_mirror.core.dotenv import read_dotenv
from aml_mirror.core.errors import (
    ConfigurationError,
    Interrupted,
    MirrorError,
    UsageError,
    of_the_system,
)
from aml_mirror.core.options import Option
from aml_mirror.core.settings import Settings, resolve
from aml_mirror.pipeline.receipt import Progress, failed, write_termination_log
from aml_mirror.support import redaction
from aml_mirror.support.progress import Console
from aml_mirror.support.suggestions import did_you_mean, hint
from aml_mirror.telemetry.record import count

BUG = 70
# The commands of the light distribution (entrypoint/light).
_LIGHT = ("pull", "verify", "completion")

# What our libraries do without being asked: send telemetry, draw their own progress bars.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # MLflow retries a few times by itself and honours Retry-After. --retry-for applies above that.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


def run(given: list[str]) -> int:
    """Run the program with the arguments of a call and return its exit code."""
    _standard_streams()
    console = Console()
    code = _run(given, console)
    telemetry.deliver(console, code)
    return code


def _run(given: list[str], console: Console) -> int:
    started = time.monotonic()
    # The environment before .env is read: a file beside a run must never say where telemetry goes.
    environ = dict(os.environ)
    progress = Progress()
    try:
        _catch_signals()
        _require_utf8()
        words = with_default_command(given)
        extra = plugin_options()
        flags = parser(extra, words[0]).parse_args(words)
        command = BY_NAME[flags.command]
        _require_installed(command.name)
        try:
            settings = _settings(flags, extra) if command.reads_settings else _given(flags)
        except UsageError as error:
            raise UsageError(error.message, f"{error.hint}; see: {PROGRAM} {command.name} --help") from error
        _quiet_loggers(settings.debug)
        telemetry.begin(command.name, settings.metrics_file, environ, console)
        # Libraries may print anything; stdout is only for the result.
        with redirect_stdout(sys.stderr):
            return command.run(Call(settings, console, progress, tuple(BY_NAME.values())))
    except SystemExit as done:  # --help, --version
        return int(done.code or 0)
    except (MirrorError, Interrupted) as error:
        return _failed(error.exit_code, error.message, error.hint, console, progress, given, started)
    except BrokenPipeError:  # --help into a pager that was closed
        output.discard()
        return 0
    except OSError as error:
        translated = of_the_system(error)
        return _failed(
            translated.exit_code, translated.message, translated.hint, console, progress, given, started
        )
    except Exception as error:  # noqa: BLE001 - the last resort: a bug ends in one line too
        hint = "this is a bug: please report it with the output of --debug"
        return _failed(BUG, f"{type(error).__name__}: {error}", hint, console, progress, given, started)


def _settings(flags: Namespace, extra: tuple[Option, ...]) -> Settings:
    directory = Path.cwd()
    redaction.learn(os.environ)
    settings = resolve(flags, os.environ, directory, extra)
    dotenv = read_dotenv(directory)
    redaction.learn({**dotenv, "--tracking-uri": settings.tracking_uri})
    # The clients read their own variables (mainly credentials), so .env applies to them too.
    for name, value in {**dotenv, **_QUIET}.items():
        if not os.environ.get(name) and "\0" not in name + value:
            os.environ[name] = value
    if settings.framework and settings.framework not in (names := framework_names()):
        raise UsageError(
            f"--framework {settings.framework!r} is not known",
            hint(did_you_mean(settings.framework, names), "one of: " + ", ".join(names)),
        )
    return settings


def _require_installed(command: str) -> None:
    """Check that the distribution contains what a command needs: aml-mirror-pull has no MLflow client.

    Raises:
        ConfigurationError: it does not.
    """
    if command not in _LIGHT and importlib.util.find_spec("mlflow") is None:
        raise ConfigurationError(
            f"{command} is not part of aml-mirror-pull, which is installed here",
            "install aml-mirror instead",
        )


def _given(flags: Namespace) -> Settings:
    """Return the settings of a command that only reads flags."""
    return resolve(flags, {}, Path(os.devnull))


def _failed(
    code: int, message: str, hint: str, console: Console, progress: Progress, given: list[str], started: float
) -> int:
    receipt = failed(progress.facts, code, message, hint, time.monotonic() - started)
    if "--debug" in given:
        console.say(traceback.format_exc())
    count(receipt)
    console.fail(f"{message}" + (f"; {hint}" if hint else ""))
    write_termination_log(receipt)
    if not output.for_people("--json" in given):
        try:
            output.print_line(receipt.line())
        except MirrorError as lost:
            console.fail(lost.message)
    return code


def _standard_streams() -> None:
    """Handle a closed stderr, and encodings that cannot represent every name."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process
    for stream in (sys.__stdout__, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            with suppress(OSError):  # a descriptor that was a file when Python began, and is a pipe now
                stream.reconfigure(errors="backslashreplace")


def _require_utf8() -> None:
    """File names become run ids, which must not depend on the locale of the person who mirrors.

    Raises:
        ConfigurationError: they would be read in another encoding than UTF-8.
    """
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise ConfigurationError(
            f"in this locale, Python reads file names as {encoding}, not as UTF-8",
            "set LC_ALL=C.UTF-8, or PYTHONUTF8=1",
        )


def _quiet_loggers(debug: bool) -> None:
    logging.setLogRecordFactory(redaction.MaskedRecord)
    for name in ("mlflow", "alembic", "azure", "azureml"):
        logging.getLogger(name).setLevel(logging.WARNING if debug else logging.ERROR)


def _catch_signals() -> None:
    def stop(signum: int, frame: FrameType | None) -> None:
        # A second signal ends the program at once, as if the first had not been handled.
        signal.signal(signum, signal.SIG_DFL)
        raise Interrupted(signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
