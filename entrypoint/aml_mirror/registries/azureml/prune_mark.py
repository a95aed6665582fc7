"""Keeps a prune that removes a folder apart from a mirror that begins to use it.

The folder of a version's bytes is shared by all models that have its run, checkpoint and digest, while a
claim is that of one model. So each side first says what it does, and then looks for the other: a mirror takes
its claim, then looks for the mark; prune takes the mark, then lists the claims. In whatever order their
requests arrive, at least one of them sees the other: the mirror waits, or prune leaves the folder.

A delete may be under way for longer than prune lives, or holds the mark. So each is bound to a lease on the
very blob, which ends before the mark's does. The service refuses a delete that names a lease which has ended
(Learn, "Lease Blob", outcomes of use attempts). The mark's own lease is never broken, not even after a kill:
a mirror waits until it has run out.
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
    """Return the lease that says: the folder of this identity is being removed."""
    return BlobLease(_blob(container, identity), retry, notice, is_broken_early=False)


def wait_while_pruned(
    container: ContainerClient, identity: str, retry: Retry, notice: Callable[[str], None]
) -> None:
    """Return when nobody removes the folder of an identity; to be called with a claim on it held."""
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
