"""What every workspace offers, so that the pipeline reads the same whatever is behind it."""

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
    """What a registered version holds now."""

    pinned_by: str
    """What keeps the digest of its manifest, in words: something that cannot be changed, or can."""

    def artifacts(self, name: str, limit: int) -> Iterator[bytes]:
        """Yield what is under a name among the run's artifacts, or under the names that follow it.

        Args:
            name: as ``manifest.json``.
            limit: nothing longer is read, in bytes.
        """

    def files(self) -> dict[str, int | None]:
        """Return the files of the version, by path, with their sizes in bytes where the store tells them."""

    def hashed(self, path: str) -> FileDigest:
        """Read one of them, in parts."""

    def stored_sha256(self, path: str) -> str | None:
        """Return the SHA-256 of a file as it was stored, where it passed through this program; else None."""

    def own_problems(self) -> tuple[list[tuple[str, str]], list[str]]:
        """Compare the version's own files (statement, card, …) with what is pinned of them.

        Returns:
            (path, what is wrong) of those that differ, and the paths of those that are missing.
        """

    def changed(self, manifest: Manifest) -> list[str]:
        """Return the paths of files that are not as they were stored; as little as possible is read."""


class Writer(Protocol):
    """One MLflow run that this program writes, and nobody else for as long as it lives."""

    run_id: str
    warnings: list[str]
    """What the person should know of the writing so far."""

    def files_uri(self) -> str:
        """Return where the version's files will be: ``azure://…``, ``s3://…``; empty: no such address."""

    def log_params(self, params: dict[str, str]) -> None:
        """Write what is not there yet."""

    def log_metrics(self, points: Callable[[], Iterator[Point]], progress: Callable[[int], None]) -> int:
        """Write the points in their order, going on after an earlier attempt; return how many were sent."""

    def pin_logs(self, sizes: dict[str, int]) -> dict[str, int]:
        """Return how many bytes of each log this mirror takes: those that its first attempt saw."""

    def put_log_state(self, name: str, text: str) -> bool:
        """Keep how far the logs were mirrored; False where the registry does not keep it."""

    def put_model(self, tree: Tree, manifest: Manifest, progress: Callable[[int], None]) -> TransferResult:
        """Bring the files of a checkpoint to where the version will point, and verify each.

        What is there and verified is not sent again.

        Raises:
            DataError: a file changed since it was listed.
            ServiceUnavailable: a file does not arrive whole.
        """

    def put_files(self, tree: Tree, uploads: list[Upload], progress: Callable[[int], None]) -> int:
        """Send what is not there with its full size yet, verify all; return the number of bytes sent."""

    def put_texts(self, texts: dict[str, str]) -> None:
        """Write small artifacts, over what an earlier attempt may have left."""

    def register(self, description: str, tags: dict[str, str]) -> Version:
        """Return the version of this run, made if it is not there; not yet marked complete."""

    def finish(self, version: Version) -> None:
        """Close the run and, last of all, mark the version complete."""

    def abort(self, status: str, why: str) -> None:
        """Close the run as FAILED or KILLED, to be taken up by the next attempt. Never raises."""


class Reading(Protocol):
    """Files that are hashed and sent at the same time."""

    def hash_files(
        self,
        tree: Tree,
        paths: dict[str, str],
        progress: Callable[[int], None],
        check_of: Callable[[str], ByteCheck | None],
    ) -> Manifest:
        """As :func:`aml_mirror.sources.hashing.hash_files`; the files are sent as well.

        Where they are sent is up to the registry: :meth:`Writer.put_model` finds them.
        """


class LogWriter(Protocol):
    """The run of a complete version, for as long as its logs are continued."""

    limits: Limits
    tags: dict[str, str]
    """Of the version, as they are now."""

    def read(self, name: str, limit: int) -> bytes | None:
        """Return a state that was kept under this name; None where there is none."""

    def begun(self, sizes: dict[str, int]) -> dict[str, int]:
        """Return the sizes of the logs that this update takes: those that its first attempt saw."""

    def seen_sizes(self) -> list[dict[str, int]]:
        """Return the sizes of the logs that earlier mirrors took, as far as they are known."""

    def log_points(self, points: Callable[[], Iterator[Point]], target: str) -> int:
        """Add points to the run, each once; return how many the update has.

        Args:
            points: yields them, the same in each call.
            target: names the update, the same in each attempt.
        """

    def put_logs(self, tree: Tree, uploads: list[Upload]) -> int:
        """Store the longer files and register them with the run; return the bytes sent."""

    def finish(self, name: str, text: str, tag: str, trained: str = "") -> None:
        """Keep the new state and, last of all, let the version name it.

        Args:
            name, text: of the state.
            tag: names it.
            trained: the tag of the run that says when it was trained; empty: that does not change.
        """

    def close(self) -> None:
        """Let others write. Never raises."""


class StateStore(Protocol):
    """What a program keeps in the registry for its next call, under one name: short entries, and texts."""

    @property
    def place(self) -> str:
        """Where it is, in words."""

    def entries(self) -> dict[str, str]:
        """Return all entries."""

    def change(self, changes: Mapping[str, str | None]) -> None:
        """Write entries, or remove those that are None. What another writes at the same time is kept."""

    def put_text(self, name: str, text: str) -> None:
        """Keep a text, over what has this name."""

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield name and content of each text, by name."""


@runtime_checkable
class ReadsOnce(Protocol):
    """A registry that takes files before their digests are known. A registry need not be one."""

    def read_once(self, source: Source, model: str, quick_key: str, size: int) -> Reading | None:
        """Return what hashes and sends the files of a checkpoint; None: they are hashed first.

        Args:
            source: where they are.
            model: the name of the model.
            quick_key: of the checkpoint: :meth:`Registry.begin` gets it as a tag.
            size: of all files together, in bytes.
        """


class Sharing(Protocol):
    """A registry of several workspaces, to which the service itself copies versions."""

    description: str
    """It in words."""

    def uri(self, version: Version) -> str:
        """Return the address of a version there."""

    def find(self, model: str, number: str) -> Version | None:
        """Return the version with a number, or None."""

    def send(self, version: Version) -> None:
        """Let the service copy a version, and wait until it is there. What is there is not copied again."""

    def files(self, version: Version) -> dict[str, int]:
        """Return the files of a version there, by path, with their sizes in bytes."""

    def hashed(self, version: Version, path: str) -> FileDigest:
        """Read one of them, in parts."""


class Registry(Protocol):
    """A place with experiments, runs and registered models."""

    limits: Limits

    @property
    def description(self) -> str:
        """The place in words, without a secret."""

    def uri(self, version: Version) -> str:
        """Return the version's address, as the registry's own tools take it."""

    def versions(self, experiment: str, model: str, run_id: str) -> list[Version]:
        """Return the versions of a model that were mirrored from a run, in as few requests as possible."""

    def refresh(self, version: Version, quick_key: str) -> None:
        """Note the quick key under which the version's files are known now."""

    def annotate(self, version: Version, tags: dict[str, str]) -> None:
        """Write tags of a version; its properties and other tags stay."""

    def begin(self, experiment: str, run_name: str, tags: dict[str, str]) -> Writer | Version:
        """Take up or create the run with this identity, or return the version if another finished it.

        Waits while another live mirror works on the same run. A run that is created begins, and a finished
        one ends, when the training did, as far as the tags say that and the registry takes it.
        """

    def continue_logs(self, version: Version) -> LogWriter | None:
        """Take up the run of a complete version to add to it; None where the registry does not offer it."""

    def repair(
        self,
        version: Version,
        tree: Tree,
        manifest: Manifest,
        right: Mapping[str, FileDigest],
        progress: Callable[[int], None],
    ) -> TransferResult:
        """Make the files of a version those of its manifest again, and restore its own files.

        Args:
            tree: the run, which has the bytes of every file that is not right.
            manifest: each entry that is not right has its source.
            right: what was read of those that are, by path.
            progress: told the number of bytes that are where they belong.
        """

    def unfinished(self, experiment: str, run_id: str) -> Iterable[dict[str, str]]:
        """The runs of an experiment that a mirror of ``run_id`` began and did not complete, as tags."""

    def find_version(self, model: str, number: str) -> Version | None:
        """Return one version of a model, or None where there is none with this number."""

    def version_reader(self, version: Version) -> VersionReader:
        """Return what a version holds now."""

    def each_version(self, experiment: str, model: str, take: Callable[[Version], None]) -> None:
        """Hand over the versions of a model that were mirrored from any run, asked for page by page.

        Where a page has to be asked for again, a version may be handed over twice.
        """

    def model_names(self) -> Iterator[str]:
        """Yield the name of each registered model."""

    def state_store(self, experiment: str, name: str) -> StateStore:
        """Return what is kept under a name; nothing is made before something is written.

        Args:
            experiment: whose run keeps it, where the registry keeps such things with runs.
            name: of letters, digits, ``-`` and ``.``.
        """

    def be_patient_for(self, seconds: float) -> None:
        """Change how long an operation may go on failing for reasons that pass."""

    def attach(
        self, version: Version, name: str, text: str, points: Sequence[Point], tags: dict[str, str]
    ) -> list[str]:
        """Add something to a complete version: a small file, then points of its run, then tags.

        Each of the three may be there already, from an attempt that was cut off; the points then once.

        Args:
            version: complete.
            name: the file's path beside manifest and statement.
            text: what it holds.
            points: for the version's run.
            tags: of the version; what says that all of it is there.

        Returns:
            What the person should know: the run takes no points, or is gone.
        """

    def stages(self, model: str) -> StageStore | None:
        """Return the stages of a model; None where the registry does not offer any."""

    def sharing(self, name: str) -> Sharing | None:
        """Return another registry that gets copies of versions; None where there is no such thing.

        Args:
            name: as a person passes it.
        """

    def leftovers(self) -> Leftovers | None:
        """Return what finds and removes what no version needs; None where the registry does not offer it."""

    def user(self) -> str:
        """Return who this is, as the registry knows it; empty: it does not say."""
