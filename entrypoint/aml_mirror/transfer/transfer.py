"""Transfers the files of a checkpoint to a folder of a container, and verifies them.

1. *Look*: the folder is listed. A blob with the ETag of one of our own commits is trusted. Any other ETag
   means *unknown*. Tier changes, recovery and migration are legitimate, and so is another mirror. Metadata
   prove nothing, because any writer can copy them. An unknown blob is read back and hashed. If its digest
   differs, or nobody ever hashed the file, it is sent or copied again.
2. *Copy* what the storage service can copy by itself (:mod:`aml_mirror.transfer.server_copy`).
3. *Send* the rest in blocks (:mod:`aml_mirror.transfer.block_upload`).
4. *Look again*: every blob must now be trusted. Other files in the folder, from a killed attempt, are
   deleted. Missing files are sent again, a few times.

Each commit has a condition: the ETag of the blob that was seen, or that there is none. So another writer's
blob is never overwritten unseen.

The folder must belong to this one checkpoint with exactly these bytes. The caller makes its path from the
identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from azure.storage.blob import BlobClient, BlobProperties, ContainerClient

from aml_mirror.core.errors import DataError, ServiceUnavailable
from aml_mirror.core.manifest import ManifestEntry, StoredFile, TransferResult
from aml_mirror.sources.base import AzureBlobs, Entry
from aml_mirror.sources.tree import Tree
from aml_mirror.support.progress import amount
from aml_mirror.transfer.block_ids import plain_etag
from aml_mirror.transfer.block_upload import SHA256, SOURCE_ETAG, BlockUpload
from aml_mirror.transfer.checksums import Choice
from aml_mirror.transfer.proof import Prove, fits, is_proven, read_back
from aml_mirror.transfer.requests import Progress, Requests, is_folder
from aml_mirror.transfer.senders import Senders
from aml_mirror.transfer.server_copy import ServerCopy
from aml_mirror.transfer.staged_files import StagedCopy, StagedFiles
from aml_mirror.transfer.transfer_options import BLOCK_BYTES, CONCURRENCY, HELD_BLOCK_BYTES, HELD_BLOCKS

# If a blob is incomplete this often in a row, another attempt will not help.
TRIES = 3
# Learn, "Naming and referencing containers, blobs, and metadata".
_LONGEST_NAME = 1024  # characters


class Transfer:
    """Transfers files to one container.

    Args:
        container: the target; see :func:`aml_mirror.storage.blob_client.container_client`.
        concurrency: the number of senders; see :mod:`aml_mirror.transfer.transfer_options`.
        block_bytes: the size of a block; likewise.
        retry_seconds: how long a request with a temporary failure is retried.
        notice: called with messages for the user while waiting.
    """

    def __init__(
        self,
        container: ContainerClient,
        concurrency: int = CONCURRENCY,
        block_bytes: int = BLOCK_BYTES,
        retry_seconds: float = 900.0,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._requests = Requests(container, retry_seconds, notice)
        self._concurrency = concurrency
        self._block_bytes = block_bytes
        self._choice = Choice()

    def put(
        self,
        tree: Tree,
        items: Iterable[ManifestEntry],
        prefix: str,
        progress: Callable[[int], None] = lambda count: None,
        metadata: dict[str, str] | None = None,
        known: Mapping[str, StoredFile] | None = None,
        committed: Callable[[str, StoredFile], None] = lambda path, stored: None,
        require_allowed: Callable[[], None] = lambda: None,
        staged: StagedFiles | None = None,
    ) -> TransferResult:
        """Make the folder ``prefix`` contain exactly these files, each at its ``path``.

        Args:
            tree: the run; ``Item.source`` is a path in it.
            items: the files.
            prefix: the folder in the container; not the container itself.
            progress: called with the number of bytes that arrived, by one thread at a time.
            metadata: written to every blob beside its digest: short ASCII text.
            known: what an earlier attempt committed, by path.
            committed: called for each file as soon as it is proven to be there, from any thread.
            require_allowed: called before each request that writes. Raises if writing must stop.
            staged: files that were sent to a staging folder while they were hashed.

        Raises:
            DataError: a file changed since it was judged, or cannot have such a name in the storage.
            NotAllowed, ConfigurationError: the storage refuses.
            ServiceUnavailable: a file does not arrive completely.
        """
        items = list(items)
        prefix = prefix.strip("/") + "/"
        _check(items, prefix)
        done = Progress(items, progress)
        self._requests.require_allowed = require_allowed
        sent = copied = 0
        warnings: list[str] = []
        known = known or {}
        proven = {item.path: known[item.path] for item in items if fits(item, known.get(item.path))}

        def prove(path: str, stored: StoredFile) -> None:
            proven[path] = stored
            committed(path, stored)

        there = self._requests.listing(prefix)
        lost: set[str] = set()
        for tries in range(TRIES + 1):
            # Staged files are copied again: that costs the service's time, and not ours.
            unstaged = [item for item in items if not (staged and staged.has(item))]
            at_once = min(self._concurrency, HELD_BLOCKS)
            read_back(self._requests, at_once, unstaged, prefix, there, proven, prove)
            # Our own copies whose answer was lost, and that were found complete.
            copied += sum(proven[path].bytes for path in lost & proven.keys())
            lost -= proven.keys()
            missing = [item for item in items if not is_proven(item, there.get(item.path), proven)]
            for path in {item.path for item in items} - {item.path for item in missing}:
                done(path, done.sizes[path])
            if not missing:
                self._remove_strangers(prefix, items, there)
                return TransferResult(sent, copied, warnings=tuple(warnings), stored=proven)
            if tries < TRIES:
                step = _Step(tree, prefix, metadata or {}, done, prove, lost)
                moved = self._move(step, missing, there, staged)
                sent, copied = sent + moved.sent, copied + moved.copied
                warnings += [text for text in moved.warnings if text not in warnings]
                there = self._requests.listing(prefix)
        found = there.get(missing[0].path)
        raise ServiceUnavailable(
            f"{missing[0].path} is incomplete in {self._requests.where} after {TRIES} attempts: it has "
            f"{found.size if found else 0} of {missing[0].bytes} bytes, or another digest",
            "is another program writing there? run the same command again: "
            "files that arrived are not sent again",
        )

    def _move(
        self,
        step: _Step,
        items: list[ManifestEntry],
        there: dict[str, BlobProperties],
        staged: StagedFiles | None,
    ) -> TransferResult:
        copied, warnings = 0, list[str]()
        source = step.tree.source
        etags = {path: plain_etag(blob.etag) for path, blob in there.items()}
        if staged and (waiting := [item for item in items if staged.has(item)]):
            refused = self._unstage(step, staged, waiting, etags)
            items = [item for item in items if not staged.has(item) or item in refused]
            etags = self._etags(step.prefix) if items else etags
        if isinstance(source, AzureBlobs) and items:
            copied, items, warnings = self._copy(step, source, items, etags)
            # A copy that failed may have left a blob.
            etags = self._etags(step.prefix) if items else etags
        concurrency, block_bytes = self._concurrency, self._block_bytes
        if isinstance(source, AzureBlobs):
            concurrency, block_bytes = min(concurrency, HELD_BLOCKS), min(block_bytes, HELD_BLOCK_BYTES)
        with Senders(concurrency) as senders:
            upload = BlockUpload(
                self._requests.by(senders, True),
                senders,
                block_bytes,
                self._choice,
                step.done,
                lambda made: step.prove(made.entry.path, made.stored),
            )
            for item in items:
                blob, etag = self._blob(step.prefix, item), etags.get(item.path, "")
                held = staged.held.get(item.path) if staged else None
                upload.send(step.tree, item, blob, _metadata(item, step.metadata), etag, held=held)
        return TransferResult(upload.sent, copied, warnings=tuple(warnings))

    def _etags(self, prefix: str) -> dict[str, str]:
        return {path: plain_etag(blob.etag) for path, blob in self._requests.listing(prefix).items()}

    def _unstage(
        self, step: _Step, staged: StagedFiles, items: list[ManifestEntry], etags: dict[str, str]
    ) -> list[ManifestEntry]:
        """Let the service copy staged files to their place; return those that it did not copy."""
        with Senders(self._concurrency) as senders:
            copying = StagedCopy(staged, self._requests.by(senders, True), senders.sleep)
            answers = self._copy_each(step, senders, copying, items, staged.entry, etags)
        return [item for item, made in answers if made is None]

    def _copy(
        self, step: _Step, source: AzureBlobs, items: list[ManifestEntry], etags: dict[str, str]
    ) -> tuple[int, list[ManifestEntry], list[str]]:
        """Return the bytes copied, the items that could not be copied, and the warnings about those.

        Paths whose blob changed while it was copied to are added to ``lost``.
        """
        with Senders(self._concurrency) as senders:
            call = self._requests.by(senders, True)
            copying = ServerCopy(source, self._requests.container.url, call, senders.sleep)
            answers = self._copy_each(
                step, senders, copying, items, lambda item: step.tree.entry(item.source), etags
            )
        left = [item for item, made in answers if made is None]
        step.lost.difference_update(item.path for item, made in answers if made)
        step.lost.update(item.path for item, made in answers if made == "")
        warnings = []
        if left:
            warnings.append(
                f"{len(left)} file(s), {amount(sum(item.bytes for item in left))}, were sent through this "
                f"program: {'; '.join(copying.refusals)}"
            )
        return sum(item.bytes for item, made in answers if made), left, warnings

    def _copy_each(
        self,
        step: _Step,
        senders: Senders,
        copying: ServerCopy,
        items: list[ManifestEntry],
        entry_of: Callable[[ManifestEntry], Entry],
        etags: dict[str, str],
    ) -> list[tuple[ManifestEntry, str | None]]:
        """Copy several at a time; return the results of :meth:`ServerCopy.copy`."""

        def copy(item: ManifestEntry) -> str | None:
            blob, etag = self._blob(step.prefix, item), etags.get(item.path, "")
            made = copying.copy(entry_of(item), blob, _metadata(item, step.metadata), etag)
            if made:
                step.prove(item.path, StoredFile(item.bytes, made, item.sha256))
                step.done(item.path, item.bytes)
            return made

        answers: list[tuple[ManifestEntry, Future[str | None]]] = []
        for item in items:
            answers.append((item, senders.submit(lambda item=item: copy(item))))  # type: ignore[misc]
        return [(item, answer.result()) for item, answer in answers]

    def _remove_strangers(
        self, prefix: str, items: list[ManifestEntry], there: dict[str, BlobProperties]
    ) -> None:
        """Delete other files that a killed attempt left. Everything in this folder is part of the version."""
        ours = {item.path for item in items}
        strangers = [path for path, blob in there.items() if path not in ours and not is_folder(path, blob)]
        with Senders(self._concurrency) as senders:
            for path in strangers:
                senders.submit(lambda path=path: self._requests.delete(senders, prefix + path))  # type: ignore[misc]

    def _blob(self, prefix: str, item: ManifestEntry) -> BlobClient:
        return self._requests.blob(prefix + item.path)


@dataclass(frozen=True, slots=True)
class _Step:
    """The shared state of one round of transfers."""

    tree: Tree
    prefix: str
    metadata: dict[str, str]
    done: Progress
    prove: Prove
    lost: set[str]


def _metadata(item: ManifestEntry, extra: dict[str, str]) -> dict[str, str]:
    found = dict(extra)
    if item.sha256:
        found[SHA256] = item.sha256
    if item.etag:
        found[SOURCE_ETAG] = item.etag
    return found


def _check(items: list[ManifestEntry], prefix: str) -> None:
    if len(prefix) < 2:
        raise ValueError("a checkpoint needs its own folder, because other files in the folder are deleted")
    for item in items:
        if len(prefix) + len(item.path) > _LONGEST_NAME:
            raise DataError(
                f"{item.path} would have a name of more than {_LONGEST_NAME} characters in the storage",
                "leave it out with --exclude",
            )
