"""The place of files whose digests are not yet known: ``aml-mirror/.staging/<key>/``.

A mirror that reads its files once sends them there. The service copies them to their place when their digests
are known. The key is made from the model's name and the quick key. So the same mirror continues there after a
kill, and mirrors of one run into two models do not disturb each other. A mirror that sees the run through
another mount has another quick key. A folder that nobody continues is removed ``STALE_SECONDS`` after its
last write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from azure.storage.blob import BlobProperties, ContainerClient

from aml_mirror.core.errors import MirrorError
from aml_mirror.core.manifest import digest_of_json
from aml_mirror.storage.azure_errors import is_conflict, is_missing
from aml_mirror.transfer.block_ids import conditions
from aml_mirror.transfer.requests import Requests, is_folder
from aml_mirror.transfer.senders import Call, Senders

STAGING = ".staging"
# As long as the service keeps uncommitted blocks (Learn, "Put Block").
STALE_SECONDS = 7 * 24 * 3600.0
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class StagingFolder:
    """One folder of staged files.

    ``key`` is its last segment, ``name`` its path in the container, without a slash at the end. ``bytes`` is
    the size of its committed blobs; a listing does not show the size of uncommitted blocks. ``idle_seconds``
    is how long ago a blob in it was written, by the clock of this machine.
    """

    key: str
    name: str
    files: int
    bytes: int
    idle_seconds: float

    @property
    def is_stale(self) -> bool:
        """Whether nobody will continue with it."""
        return self.idle_seconds > STALE_SECONDS


def staging_key(model: str, quick_key: str) -> str:
    """Return the last segment of the staging folder of one checkpoint and model, as 64 hexadecimal digits."""
    return digest_of_json([model, quick_key])


def staging_folders(requests: Requests, root: str) -> list[StagingFolder]:
    """Return the staging folders of a container, the one that was idle longest first.

    Args:
        requests: to the container.
        root: the program's folder in it.

    Raises:
        MirrorError: the container cannot be listed.
    """
    prefix = f"{root.strip('/')}/{STAGING}/"
    found: dict[str, list[tuple[str, BlobProperties]]] = {}
    for path, blob in requests.listing(prefix, "uncommittedblobs").items():
        key, slash, _ = path.partition("/")
        if slash or is_folder(path, blob):
            found.setdefault(key, []).append((path, blob))
    folders = []
    for key, blobs in found.items():
        files = [blob for path, blob in blobs if not is_folder(path, blob)]
        written = [blob.last_modified for _, blob in blobs if blob.last_modified]
        # A blob without a time is being written right now: it has no committed block yet.
        idle = (datetime.now(UTC) - max(written)).total_seconds() if written else 0.0
        size = sum(int(blob.size or 0) for blob in files)
        folders.append(StagingFolder(key, prefix + key, len(files), size, max(0.0, idle)))
    return sorted(folders, key=lambda folder: -folder.idle_seconds)


def remove_staging_folder(requests: Requests, name: str) -> None:
    """Delete everything in a staging folder, including uncommitted blocks.

    Args:
        requests: to the container.
        name: the folder, like :attr:`StagingFolder.name`.

    Raises:
        ValueError: it is not a staging folder.
        MirrorError: the storage refuses.
    """
    parts = name.strip("/").split("/")
    if len(parts) < 2 or parts[-2] != STAGING or not parts[-1]:
        raise ValueError(f"{name} is not a staging folder")
    prefix = "/".join(parts) + "/"
    there = requests.listing(prefix, "uncommittedblobs")
    with Senders(_AT_ONCE) as senders:
        for path, blob in there.items():
            if not is_folder(path, blob):
                senders.submit(lambda path=path, blob=blob: _remove(requests, senders, prefix + path, blob))  # type: ignore[misc]
    folders = [prefix + path for path, blob in there.items() if is_folder(path, blob)]
    folders += [prefix.rstrip("/")] if folders else []
    with Senders(1) as senders:
        # The innermost first. A folder that another program writes to meanwhile stays.
        for folder in sorted(folders, key=len, reverse=True):
            _unless_refused(lambda folder=folder: requests.delete(senders, folder.rstrip("/")))  # type: ignore[misc]


def requests_to(
    container: ContainerClient, retry_seconds: float, notice: Callable[[str], None] = lambda text: None
) -> Requests:
    """Return the argument that the functions of this module need."""
    return Requests(container, retry_seconds, notice)


def _remove(requests: Requests, senders: Senders, name: str, blob: BlobProperties) -> None:
    if not blob.size:
        # It may only have uncommitted blocks. The service cannot delete those, but an empty commit discards
        # them.
        _empty(requests.by(senders, True), requests, name)
    requests.delete(senders, name)


def _empty(call: Call, requests: Requests, name: str) -> None:
    try:
        call(lambda: requests.blob(name).commit_block_list([], **conditions("")))
    except MirrorError as error:
        if not (is_conflict(error.__cause__) or is_missing(error.__cause__)):
            raise


def _unless_refused(delete: Callable[[], None]) -> None:
    try:
        delete()
    except MirrorError:
        return
