"""What a listing says about each blob: its size, its ETag, and whether it can be read."""

from __future__ import annotations

from dataclasses import dataclass

from azure.storage.blob import BlobProperties

from aml_mirror.sources.base import Listing
from aml_mirror.storage.blob_client import metadata_of

UNCOMMITTED = "it was uploaded in part and never committed"
ARCHIVED = "it is in the archive tier"
REHYDRATED = "it is being rehydrated from the archive tier, which takes up to 15 hours"


@dataclass(frozen=True, slots=True)
class ListedBlob:
    """The stored facts about a listed blob. The client's own object takes ten times as much memory."""

    name: str
    bytes: int
    etag: str
    md5: str | None
    modified: float
    is_folder: bool
    obstacle: str
    passes: bool


def drop_folders(listing: Listing) -> None:
    """Drop empty blobs that represent a folder. blobfuse and others make them, not all with metadata."""
    empty = [path for path, entry in listing.files.items() if not entry.bytes]
    if not empty:
        return
    folders = {path[:at] for path in listing.files for at, char in enumerate(path) if char == "/"}
    for path in folders.intersection(empty):
        del listing.files[path]


def listed_blob(blob: BlobProperties) -> ListedBlob:
    md5 = blob.content_settings.content_md5
    return ListedBlob(
        str(blob.name),
        int(blob.size or 0),
        etag_of(blob.etag),
        bytes(md5).hex() if md5 else None,
        blob.last_modified.timestamp() if blob.last_modified else 0.0,
        metadata_of(blob).get("hdi_isfolder", "").lower() == "true",
        *_obstacle(blob),
    )


def _obstacle(blob: BlobProperties) -> tuple[str, bool]:
    """Say why a listed blob cannot be read, and whether that is temporary; empty: no reason is known."""
    if str(blob.archive_status or "").startswith("rehydrate-pending"):
        return REHYDRATED, True
    tier = getattr(blob.blob_tier, "value", blob.blob_tier)
    return (ARCHIVED, False) if tier == "Archive" else ("", False)


def etag_of(value: object) -> str:
    # Headers quote it, listings do not.
    return str(value or "").strip('"')
