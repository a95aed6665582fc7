"""Hashes and sends files in one pass. Each byte is read once, so the final name is known only at the end.

The files go to a staging folder (:mod:`.staging_folder`), because the folder of a version is named by their
digest. :mod:`.staged_files` copies them from there to their place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress

from aml_mirror.core.errors import DataError, MirrorError
from aml_mirror.core.manifest import Manifest, ManifestEntry
from aml_mirror.sources.block_reader import ByteCheck
from aml_mirror.sources.hashing import WHOLE_BYTES, whole_files
from aml_mirror.sources.tree import Tree
from aml_mirror.transfer.block_ids import plain_etag
from aml_mirror.transfer.block_reuse import EarlierBlocks, LateBlocks
from aml_mirror.transfer.block_upload import BlockUpload
from aml_mirror.transfer.checksums import Choice
from aml_mirror.transfer.requests import Progress, Requests
from aml_mirror.transfer.senders import Senders
from aml_mirror.transfer.staged_files import StagedFiles
from aml_mirror.transfer.staging_folder import remove_staging_folder
from aml_mirror.transfer.upload_job import Committed

# Reading fewer bytes than this twice is faster than a few requests.
ONE_PASS_BLOCKS = 4
# Small files up to this total are held in memory. Sent directly to their place, they take one request instead
# of two.
HELD_BYTES = 8 << 20


class OnePass:
    """Hashes files and sends them.

    Args:
        requests: to the container.
        folder: the staging folder, without a slash at the end.
        concurrency, block_bytes: see :class:`aml_mirror.transfer.transfer.Transfer`.
        earlier: looks up the blocks of earlier versions in another thread, while the first bytes are read.
            None: nothing is reused.
    """

    def __init__(
        self,
        requests: Requests,
        folder: str,
        concurrency: int,
        block_bytes: int,
        earlier: Callable[[], EarlierBlocks] | None = None,
    ) -> None:
        self._requests = requests
        self._concurrency = concurrency
        self._block_bytes = block_bytes
        self._earlier = earlier
        self.staged = StagedFiles(requests, folder)

    def hash_files(
        self,
        tree: Tree,
        paths: dict[str, str],
        progress: Callable[[int], None],
        check_of: Callable[[str], ByteCheck | None],
    ) -> Manifest:
        """Read every file once, compute its digest and send it. ``staged`` is the result.

        Args:
            tree: the run.
            paths: path in the run -> path in the model version.
            progress: called with the number of bytes that are staged, by one thread at a time.
            check_of: returns what checks the bytes of a file, by its path in the run.

        Raises:
            DataError: a file changed while it was read, or is damaged. What was staged is removed.
            MirrorError: the storage refuses, or fails temporarily.
        """
        try:
            return self._hash_files(tree, paths, progress, check_of)
        except DataError:
            with suppress(MirrorError):  # a later mirror removes it
                remove_staging_folder(self._requests, self.staged.folder)
            raise

    def _hash_files(
        self,
        tree: Tree,
        paths: dict[str, str],
        progress: Callable[[int], None],
        check_of: Callable[[str], ByteCheck | None],
    ) -> Manifest:
        found: dict[str, ManifestEntry] = {}
        there = self._requests.listing(self.staged.folder + "/", "uncommittedblobs")
        # A blob that only has uncommitted blocks is listed with zero bytes, and by some services with an
        # ETag.
        etags = {path: plain_etag(blob.etag) if blob.size else "" for path, blob in there.items()}
        choice = Choice()
        small = {source: path for source, path in paths.items() if tree.size(source) <= WHOLE_BYTES}
        told = Progress(
            [ManifestEntry(source, path, tree.size(source), None) for source, path in paths.items()], progress
        )
        with Senders(self._concurrency) as senders:
            upload = BlockUpload(
                self._requests.by(senders, True),
                senders,
                self._block_bytes,
                choice,
                told,
                self._note,
                lambda entry: found.update({entry.path: entry}),
                LateBlocks(self._earlier) if self._earlier else None,
                continues=True,
            )

            def send(
                source: str, path: str, check: ByteCheck | None, held: bytes | None, sha256: str
            ) -> None:
                entry = ManifestEntry(source, path, tree.size(source), sha256 or None)
                blob = self._requests.blob(f"{self.staged.folder}/{path}")
                upload.send(tree, entry, blob, {}, etags.get(path, ""), check, held, path in there)

            for source in sorted(paths.keys() - small.keys()):
                send(source, paths[source], check_of(source), None, "")
            with closing(whole_files(tree, list(small), check_of)) as files:
                for source, (data, sha256) in files:
                    path = small[source]
                    if sum(map(len, self.staged.held.values())) + len(data) <= HELD_BYTES:
                        self.staged.held[path] = data
                        found[path] = ManifestEntry(source, path, len(data), sha256)
                        told(path, len(data))
                    else:
                        send(source, path, None, data, sha256)
        self.staged.kind = choice.kind
        self.staged.sent, self.staged.reused = upload.sent, upload.reused
        return Manifest(tuple(sorted(found.values(), key=lambda entry: entry.path)))

    def _note(self, made: Committed) -> None:
        self.staged.files[made.entry.path] = made
