"""Keeps a prune that removes a folder apart from a mirror that begins to use it.

The folder of a version's bytes is shared by all models that have its run, checkpoint and digest, but a claim
belongs to one model. So each side first announces its work, and then looks for the other: a mirror takes its
claim, then looks for the mark; prune takes the mark, then lists the claims. In whatever order their requests
arrive, at least one of them sees the other. Then the mirror waits, or prune leaves the folder.

A delete may stay under way for longer than prune runs or holds the mark. So each delete is bound to a lease
on the blob itself, which ends before the mark's does. The service refuses a delete that names an expired
lease (Learn, "Lease Blob", outcomes of use attempts). The mark's own lease is never broken, not even after a
kill: a mirror waits until it has expired.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from azure.core.exceptions import HttpResponseError

from aml_mirror.registries.azureml.blob_lease import POLL_SECONDS, BlobLease
from aml_mirror.registries.azureml.limits import FOLDER
from aml_mirror.storage import azure_errors
from aml_mirror.support.retry import Retry

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient


def prune_mark(
    container: ContainerClient, identity: str, retry: Retry, notice: Callable[[str], None]
) -> BlobLease:
    """Return the lease that announces that the folder of this identity is being removed."""
    return BlobLease(_blob(container, identity), retry, notice, is_broken_early=False)


def wait_while_pruned(
    container: ContainerClient, identity: str, retry: Retry, notice: Callable[[str], None]
) -> None:
    """Wait until nobody removes the folder of an identity. Call this while holding a claim on it."""
    blob = _blob(container, identity)
    told = False
    while retry(lambda: _is_leased(blob)):
        if not told:
            notice("'aml-mirror prune' removes what is left of this run; waiting for it")
        told = True
        time.sleep(POLL_SECONDS)


def _blob(container: ContainerClient, identity: str) -> BlobClient:
    return container.get_blob_client(f"{FOLDER}/claims/{identity}.prune")


def _is_leased(blob: BlobClient) -> bool:
    try:
        return str(blob.get_blob_properties().lease.state) in ("leased", "breaking")
    except HttpResponseError as error:
        if azure_errors.is_missing(error):
            return False
        raise
