"""The errors that a person can encounter. Each has an exit code, one line that says what and where, and a
hint.

The codes are those of sysexits.h, because OSMO's ``exitActions`` map exit codes to actions: 75 is worth
another attempt, 64 and 78 are not. Code 70 is reserved for our own bugs; only :mod:`aml_mirror.cli.program`
returns it.
"""

from __future__ import annotations

import errno


class MirrorError(Exception):
    """A failure with an exit code, a message (what is wrong, and where) and a hint (what to do)."""

    exit_code = 70
    concerns_one_run = False
    """Whether the cause concerns a single run, so that others may succeed."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MirrorError):
    """Invalid command line, or a choice that only a person can make."""

    exit_code = 64


class SeveralRuns(UsageError):
    """A folder contains several runs side by side, but the command accepts one."""


class DataError(MirrorError):
    """No complete checkpoint, or data that cannot be trusted."""

    exit_code = 65


class Unreadable(DataError):
    """A file exists but cannot be read, so its contents are unknown."""


class UnreadableForNow(Unreadable):
    """The same, but temporary."""

    exit_code = 75


class SourceNotFound(MirrorError):
    """There is nothing at the given location of the run."""

    exit_code = 66


class ServiceUnavailable(MirrorError):
    """The service failed temporarily; the same command may succeed later."""

    exit_code = 75
    # The number of seconds that the service asked us to wait (Retry-After); 0: it did not say.
    retry_after = 0.0
    # The number of seconds after which retrying is pointless, whatever --retry-for says.
    worth_trying_for = float("inf")


class NameNotFound(ServiceUnavailable):
    """A host has no address. The name service said so; it did not fail to answer.

    The usual cause is wrong configuration, so the exit code is that of :class:`ConfigurationError`. It is
    retried because of new private endpoints, and name services that restart in clusters.
    """

    exit_code = 78
    worth_trying_for = 60.0


class NotAllowed(MirrorError):
    """Reading the run or writing to the workspace was refused."""

    exit_code = 77


class NotReadable(NotAllowed):
    """The files of one run cannot be read; those of another may be readable."""

    concerns_one_run = True


class ConfigurationError(MirrorError):
    """A required setting is missing or malformed."""

    exit_code = 78


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; the exit code is 128 + ``signum``.

    It is not an Exception, so no client's catch-all mistakes it for a failed request.
    """

    def __init__(self, signum: int) -> None:
        self.message = f"stopped by signal {signum}"
        self.hint = "run the same command again: it continues where this one stopped"
        self.exit_code = 128 + signum
        super().__init__(self.message)


def of_the_system(error: OSError) -> MirrorError:
    """Translate a failure of the file system for which there is no more specific message."""
    said = f"{error.filename or 'the file system'}: {error.strerror or error}"
    if isinstance(error, PermissionError):
        return NotAllowed(said, "give the user of this program access")
    if error.errno == errno.ENOSPC:
        return ServiceUnavailable(
            said, "free some space, or set TMPDIR to a folder with more space, then run the command again"
        )
    # A share that hangs or a disk that fails: another attempt may succeed.
    return ServiceUnavailable(said, "check the volume, then run the command again")
