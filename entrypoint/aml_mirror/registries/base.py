"""The interface of a registry, so that the pipeline does not depend on a particular one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from aml_mirror.core.manifest import Manifest, TransferResult
from aml_mirror.registries.records import FileDigest, Limits, Point, Upload, Version
from aml_mirror.sources.base import Source
from aml_mirror.sources.block_reader import ByteCheck
from aml_mirror.sources.tree import Tree

if TYPE_CHECKING:
    from aml_mirror.registries.leftovers import Leftovers
    from aml_mirror.registries.stages import StageStore


class VersionReader(Protocol):
    """Reads the current contents of a registered version."""

    pinned_by: str
    """Where the digest of the manifest is kept, in words, and whether it can be changed there."""

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        """Yield the run's artifacts with this name, and those with the names of later attempts.

        Args:
            name: as ``manifest.json``.
            limit: nothing longer is read, in bytes.
        """

    def files(self) -> dict[str, int | None]:
        """Return the files of the version by path, with their sizes in bytes if the store reports them."""

    def hashed(self, path: str) -> FileDigest:
        """Read one of them, in parts."""

    def stored_sha256(self, path: str) -> str | None:
        """Return the SHA-256 of a file when it was stored. None if it did not pass through this program."""

    def own_problems(self) -> tuple[list[tuple[str, str]], list[str]]:
        """Compare the version's own files (statement, card, …) with their pinned digests.

        Returns:
            (path, what is wrong) of those that differ, and the paths of those that are missing.
        """

    def changed(self, manifest: Manifest) -> list[str]:
        """Return the paths of files that changed since they were stored, reading as little as possible."""


class Writer(Protocol):
    """Writes one MLflow run. While it exists, no other program writes the run."""

    run_id: str
    warnings: list[str]
    """Warnings for the user so far."""

    def files_uri(self) -> str:
        """Return where the version's files will be: ``azure://…``, ``s3://…``; empty: no such address."""

    def log_params(self, params: dict[str, str]) -> None:
        """Write the parameters that the run does not have yet."""

    def log_metrics(self, points: Callable[[], Iterator[Point]], progress: Callable[[int], None]) -> int:
        """Write the points in order, continuing an earlier attempt. Return how many were sent."""

    def pin_logs(self, sizes: dict[str, int]) -> dict[str, int]:
        """Return how many bytes of each log this mirror uses: as many as its first attempt saw."""

    def put_log_state(self, name: str, text: str) -> bool:
        """Store how far the logs were mirrored. Return False if the registry cannot store that."""

    def put_model(self, tree: Tree, manifest: Manifest, progress: Callable[[int], None]) -> TransferResult:
        """Store the files of a checkpoint where the version will point to, and verify each file.

        Files that are already there and verified are not sent again.

        Raises:
            DataError: a file changed since it was listed.
            ServiceUnavailable: a file does not arrive completely.
        """

    def put_files(self, tree: Tree, uploads: list[Upload], progress: Callable[[int], None]) -> int:
        """Send the files that are missing or incomplete, and verify all. Return the number of bytes sent."""

    def put_texts(self, texts: dict[str, str]) -> None:
        """Write small artifacts, replacing those of an earlier attempt."""

    def register(self, description: str, tags: dict[str, str]) -> Version:
        """Return the version of this run, which is created if needed. It is not marked complete yet."""

    def finish(self, version: Version) -> None:
        """Close the run, then mark the version complete."""

    def abort(self, status: str, why: str) -> None:
        """Close the run as FAILED or KILLED, so that the next attempt can continue it. Never raises."""


class Reading(Protocol):
    """Hashes files and sends them at the same time."""

    def hash_files(
        self,
        tree: Tree,
        paths: dict[str, str],
        progress: Callable[[int], None],
        check_of: Callable[[str], ByteCheck | None],
    ) -> Manifest:
        """Hash files as :func:`aml_mirror.sources.hashing.hash_files` does, and send them.

        The registry decides where they are sent. :meth:`Writer.put_model` finds them.
        """


class LogWriter(Protocol):
    """Adds to the run of a complete version after its logs have grown."""

    limits: Limits
    tags: dict[str, str]
    """Of the version, as they are now."""

    def read(self, name: str, limit: int) -> bytes | None:
        """Return the state with this name, or None."""

    def begun(self, sizes: dict[str, int]) -> dict[str, int]:
        """Return the log sizes that this update uses: those that its first attempt saw."""

    def seen_sizes(self) -> list[dict[str, int]]:
        """Return the log sizes of earlier mirrors, as far as they are known."""

    def log_points(self, points: Callable[[], Iterator[Point]], target: str) -> int:
        """Add points to the run, each exactly once. Return how many the update has.

        Args:
            points: yields them, the same in each call.
            target: names the update, the same in each attempt.
        """

    def put_logs(self, tree: Tree, uploads: list[Upload]) -> int:
        """Store the files that have grown, and register them with the run. Return the bytes sent."""

    def finish(self, name: str, text: str, tag: str, trained: str = "") -> None:
        """Store the new state, then make the version refer to it.

        Args:
            name, text: the name and content of the state.
            tag: the tag that refers to it.
            trained: the new value of the run's tag with the time of the training; empty: no change.
        """

    def close(self) -> None:
        """Release the run. Never raises."""


class StateStore(Protocol):
    """State that is kept in the registry between calls, under one name: short entries and texts."""

    @property
    def place(self) -> str:
        """The location, in words."""

    def entries(self) -> dict[str, str]:
        """Return all entries."""

    def change(self, changes: Mapping[str, str | None]) -> None:
        """Write entries, and remove those that are None. Concurrent changes by others are kept."""

    def put_text(self, name: str, text: str) -> None:
        """Store a text, replacing one of the same name."""

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield the name and content of each text, sorted by name."""


@runtime_checkable
class ReadsOnce(Protocol):
    """A registry that accepts files before their digests are known. This is optional."""

    def read_once(self, source: Source, model: str, quick_key: str, size: int) -> Reading | None:
        """Return an object that hashes and sends the files of a checkpoint. None: hash them first.

        Args:
            source: the source of the files.
            model: the name of the model.
            quick_key: the checkpoint's quick key, which :meth:`Registry.begin` gets as a tag.
            size: the total size of the files in bytes.
        """


class Sharing(Protocol):
    """A registry shared by several workspaces. The service itself copies versions to it."""

    description: str
    """It in words."""

    def uri(self, version: Version) -> str:
        """Return the address of a version there."""

    def find(self, model: str, number: str) -> Version | None:
        """Return the version with a number, or None."""

    def send(self, version: Version) -> None:
        """Let the service copy a version, and wait for the copy. An existing copy is kept."""

    def files(self, version: Version) -> dict[str, int]:
        """Return the files of a version there, by path, with their sizes in bytes."""

    def hashed(self, version: Version, path: str) -> FileDigest:
        """Read one of them, in parts."""


class Registry(Protocol):
    """A registry with experiments, runs and registered models."""

    limits: Limits

    @property
    def description(self) -> str:
        """The registry in words, without secrets."""

    def uri(self, version: Version) -> str:
        """Return the address of a version, in the form that the registry's own tools accept."""

    def versions(self, experiment: str, model: str, run_id: str) -> list[Version]:
        """Return the versions of a model that were mirrored from a run, in as few requests as possible."""

    def refresh(self, version: Version, quick_key: str) -> None:
        """Store the current quick key of the version's files."""

    def annotate(self, version: Version, tags: dict[str, str]) -> None:
        """Write tags of a version. Its properties and other tags are not changed."""

    def begin(self, experiment: str, run_name: str, tags: dict[str, str]) -> Writer | Version:
        """Continue or create the run with this identity, or return the version if another mirror finished it.

        Waits while another live mirror works on the same run. If the tags have the times of the training, and
        the registry accepts them, they become the times of a new or finished run.
        """

    def continue_logs(self, version: Version) -> LogWriter | None:
        """Open the run of a complete version, to add to it. None if the registry does not support that."""

    def repair(
        self,
        version: Version,
        tree: Tree,
        manifest: Manifest,
        right: Mapping[str, FileDigest],
        progress: Callable[[int], None],
    ) -> TransferResult:
        """Restore the files of a version to those of its manifest, and its own files.

        Args:
            tree: the run, which has the bytes of every wrong file.
            manifest: each wrong entry has its source.
            right: the contents read from the correct files, by path.
            progress: called with the number of bytes that are in place.
        """

    def unfinished(self, experiment: str, run_id: str) -> Iterable[dict[str, str]]:
        """Return the unfinished runs that mirrors of ``run_id`` began in an experiment, as tags."""

    def find_version(self, model: str, number: str) -> Version | None:
        """Return the version of a model with this number, or None."""

    def version_reader(self, version: Version) -> VersionReader:
        """Return a reader of the current contents of a version."""

    def each_version(self, experiment: str, model: str, take: Callable[[Version], None]) -> None:
        """Pass on the mirrored versions of a model, requesting them page by page.

        If a page has to be requested again, a version may be passed on twice.
        """

    def model_names(self) -> Iterator[str]:
        """Yield the name of each registered model."""

    def state_store(self, experiment: str, name: str) -> StateStore:
        """Return the state with this name. Nothing is created before something is written.

        Args:
            experiment: the experiment of the run that stores it, if the registry stores state in runs.
            name: consists of letters, digits, ``-`` and ``.``.
        """

    def be_patient_for(self, seconds: float) -> None:
        """Change how long operations with temporary failures are retried."""

    def attach(
        self, version: Version, name: str, text: str, points: Sequence[Point], tags: dict[str, str]
    ) -> list[str]:
        """Add something to a complete version: a small file, then points of its run, then tags.

        Any of the three may already exist, from an attempt that was interrupted. Points are never duplicated.

        Args:
            version: a complete version.
            name: the file's path, in the folder of manifest and statement.
            text: the file's content.
            points: points for the version's run.
            tags: tags of the version, which mark the addition as complete.

        Returns:
            Warnings for the user: the run does not accept points, or does not exist.
        """

    def stages(self, model: str) -> StageStore | None:
        """Return the stages of a model. None if the registry does not support stages."""

    def sharing(self, name: str) -> Sharing | None:
        """Return a shared registry for copies of versions. None if there is no such thing.

        Args:
            name: the name that the user passed.
        """

    def leftovers(self) -> Leftovers | None:
        """Return an object that finds and removes leftovers. None if the registry does not support that."""

    def user(self) -> str:
        """Return the name of the current user in the registry. Empty if unknown."""
