"""Every failure a person can meet: its exit code, one line that says what and where, one hint.

The codes are those of sysexits.h, because OSMO's ``exitActions`` map exit codes to actions: 75 is worth
another attempt, 64 and 78 are not. Code 70 is kept for our own bugs; only :mod:`aml_mirror.cli.program`
returns it.
"""

from __future__ import annotations

import errno


class MirrorError(Exception):
    """A failure with an exit code, a message (what is wrong, and where) and a hint (what to do)."""

    exit_code = 70
    concerns_one_run = False
    """Whether the cause is one run's own, so that others may well be mirrored."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MirrorError):
    """Invalid command line, or a choice that only a person can make."""

    exit_code = 64


class SeveralRuns(UsageError):
    """A folder holds several runs beside each other, and a command takes one."""


class DataError(MirrorError):
    """No complete checkpoint, or data that cannot be trusted."""

    exit_code = 65


class Unreadable(DataError):
    """A file is there and cannot be read, so that nobody can tell what is in it."""


class UnreadableForNow(Unreadable):
    """The same, and it will pass by itself."""

    exit_code = 75


class SourceNotFound(MirrorError):
    """Nothing is where the run is said to lie."""

    exit_code = 66


class ServiceUnavailable(MirrorError):
    """The service failed for now; the same command may succeed later."""

    exit_code = 75
    # Seconds that the service asked to be left alone (Retry-After); 0: it did not say.
    retry_after = 0.0
    # Seconds after which trying again is in vain, whatever --retry-for says.
    worth_trying_for = float("inf")


class NameNotFound(ServiceUnavailable):
    """A host has no address: the name service says so, which is another thing than its not answering.

    Most often the configuration is wrong, so the exit code is that of :class:`ConfigurationError`. Just
    made private endpoints and restarting name services in clusters are why it is tried again at all.
    """

    exit_code = 78
    worth_trying_for = 60.0


class NotAllowed(MirrorError):
    """Reading the run or writing to the workspace was refused."""

    exit_code = 77


class NotReadable(NotAllowed):
    """The files of one run may not be read; those of another may well be."""

    concerns_one_run = True


class ConfigurationError(MirrorError):
    """Something that has to be set is missing or malformed."""

    exit_code = 78


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; the exit code is 128 + ``signum``.

    Not an Exception, so that no client's catch-all takes it for a failed request.
    """

    def __init__(self, signum: int) -> None:
        self.message = f"stopped by signal {signum}"
        self.hint = "run the same command again: it continues where this one stopped"
        self.exit_code = 128 + signum
        super().__init__(self.message)


def of_the_system(error: OSError) -> MirrorError:
    """A failure of the file system that nothing nearer to it gave words to."""
    said = f"{error.filename or 'the file system'}: {error.strerror or error}"
    if isinstance(error, PermissionError):
        return NotAllowed(said, "give the user of this program access")
    if error.errno == errno.ENOSPC:
        return ServiceUnavailable(said, "make room, or set TMPDIR to a folder with more, then run again")
    # A share that hangs or a disk that fails: another attempt may find it well again.
    return ServiceUnavailable(said, "look at the volume, then run again")
