"""Decides who may write a run: a blob in the workspace's datastore with a lease that its holder renews.

In Azure, only a lease can be held by exactly one program and still end by itself when that program is killed.
It lasts ``LEASE_SECONDS`` and is renewed every ``RENEW_SECONDS``. So three renewals may fail before another
mirror can take over, and after a kill the next attempt waits half a minute at most. It does not wait at all
if it can see that the holder no longer runs: the claim says who holds it, in the format of
:mod:`aml_mirror.registries.mlflow.run_lease`.

A holder that could not renew for the duration of a lease does not know whether it still holds the claim.
Before its next write it renews, or gives up.

The claim also remembers the MLflow run that was created for it. When the work is done, it remains as an empty
blob. It is not documented how soon the workspace's searches and listings show what was written, but a blob is
visible to all at once. So the next holder of the claim finds the run by its id.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.blob import BlobClient, BlobLeaseClient

from aml_mirror.registries.mlflow.run_lease import Keeper, Lease
from aml_mirror.storage import azure_errors as azure_errors
from aml_mirror.storage.blob_client import metadata_of
from aml_mirror.support.retry import Retry

_log = logging.getLogger(__name__)

# Blob leases last 15 to 60 seconds (Learn, "Lease Blob").
LEASE_SECONDS = 30
RENEW_SECONDS = 10.0
POLL_SECONDS = 2.0
# Keys of the blob's metadata: how the holder identifies itself, and the id of the created run.
NOTE = "holder"
RUN = "run"

_HELD = frozenset({"LeaseAlreadyPresent", "LeaseIsBreakingAndCannotBeAcquired", "LeaseAlreadyBroken"})
_TAKEN = frozenset(
    {
        "LeaseIdMismatchWithLeaseOperation",
        "LeaseIdMismatchWithBlobOperation",
        "LeaseIsBrokenAndCannotBeRenewed",
        "LeaseNotPresentWithLeaseOperation",
        "LeaseNotPresentWithBlobOperation",
        "LeaseLost",
        "BlobNotFound",
    }
)


class BlobLease:
    """One claim. See :class:`aml_mirror.registries.mlflow_runs.Claim`.

    Args:
        blob: the blob that represents the claim.
        retry: retries every request.
        notice: called once, to say that we wait for another mirror.
        waiting: the words for it.
        is_broken_early: whether to break the lease of a holder that no longer runs. Otherwise it expires by
            itself, because that holder's requests may still be under way.
    """

    def __init__(
        self,
        blob: BlobClient,
        retry: Retry,
        notice: Callable[[str], None],
        waiting: str = "another mirror is working on this run; waiting for it",
        is_broken_early: bool = True,
    ) -> None:
        self.waited = False
        # The run that an earlier holder created. Known once the claim is acquired. Empty: none.
        self.run_id = ""
        self._blob = blob
        self._retry = retry
        self._notice = notice
        self._waiting = waiting
        self._is_broken_early = is_broken_early
        # Chosen here, so an acquisition whose answer was lost can be repeated.
        self._lease_id = str(uuid.uuid4())
        self._introduction = Keeper().note()
        self._taken = False
        self._renewed = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Acquire the claim. Waits as long as another mirror renews it.

        Raises:
            MirrorError: the datastore cannot be written.
        """
        while not self._try():
            if not self.waited:
                self._notice(self._waiting)
            self.waited = True
            time.sleep(POLL_SECONDS)
        self._thread = threading.Thread(target=self._keep, name="claim", daemon=True)
        self._thread.start()

    def try_acquire(self) -> bool:
        """Acquire the claim if nobody holds it; return whether it is ours.

        Raises:
            MirrorError: the datastore cannot be written.
        """
        if not self._try():
            return False
        self._thread = threading.Thread(target=self._keep, name="claim", daemon=True)
        self._thread.start()
        return True

    @property
    def lost(self) -> bool:
        """Whether another program may write now. If in doubt, renews first, until :meth:`stop`."""
        doubtful = time.monotonic() - self._renewed >= LEASE_SECONDS
        if doubtful and not self._taken and not self._stop.is_set():
            self._retry(self._renew)
            return self._taken
        return self._taken or doubtful

    def outlasts(self, seconds: float) -> bool:
        """Tell whether nobody else can hold the claim in the next seconds. If in doubt, renews first."""
        if not self._taken and self._left() < seconds:
            self._retry(self._renew)
        return not self._taken and self._left() >= seconds

    def _left(self) -> float:
        return self._renewed + LEASE_SECONDS - time.monotonic()

    def stop(self) -> None:
        """Stop renewing. The lease expires by itself."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=RENEW_SECONDS)

    def remember(self, run_id: str) -> None:
        """Store the created run for the next holder of the claim."""
        if run_id == self.run_id:
            return
        self.run_id = run_id
        if not self._retry(self._introduce):
            self._taken = True

    def remembered(self) -> str:
        """Return the run that is stored in the claim now, whoever holds the claim; empty: none."""
        return self._retry(self._notes).get(RUN, "")

    def release(self) -> None:
        """Release the claim, so the next holder need not wait. Never raises."""
        self.stop()
        try:
            if self.run_id:
                BlobLeaseClient(self._blob, lease_id=self._lease_id).release()
            else:
                self._blob.delete_blob(lease=self._lease_id)
        except AzureError as error:
            _log.debug("the claim could not be released: %s", error)

    def _try(self) -> bool:
        """Try once to get the lease. A holder that no longer runs is replaced."""
        if not self._retry(self._acquire) and not (
            self._is_broken_early and self._retry(self._break_if_gone) and self._retry(self._acquire)
        ):
            return False
        # This includes a blob that this attempt made: another may have held it, and created a run, before our
        # lease.
        self.run_id = self.remembered()
        return self._retry(self._introduce)

    def _acquire(self) -> bool:
        for _ in range(2):
            asked = time.monotonic()
            try:
                self._blob.acquire_lease(LEASE_SECONDS, lease_id=self._lease_id)
            except HttpResponseError as error:
                if azure_errors.code_of(error) in _HELD:
                    return False
                if not azure_errors.is_missing(error):
                    raise
                self._create()
            else:
                self._renewed = asked
                return True
        return False

    def _create(self) -> None:
        try:
            self._blob.upload_blob(b"", overwrite=False, metadata={NOTE: self._introduction})
        except HttpResponseError as error:
            # 409: it exists; 412: it exists and is leased.
            if error.status_code not in (409, 412):
                raise

    def _notes(self) -> dict[str, str]:
        try:
            return metadata_of(self._blob.get_blob_properties())
        except HttpResponseError as error:
            if not azure_errors.is_missing(error):
                raise
            # A mirror that was paused for longer than its lease. Others held the claim and deleted the blob.
            return {}

    def _introduce(self) -> bool:
        """Write who we are. This also changes the ETag, to which the breaking of a lease is bound."""
        notes = {NOTE: self._introduction} | ({RUN: self.run_id} if self.run_id else {})
        try:
            self._blob.set_blob_metadata(notes, lease=self._lease_id)
        except HttpResponseError as error:
            # At the same moment, another mirror decided that the former holder no longer runs, and broke our
            # lease.
            if azure_errors.code_of(error) in _TAKEN:
                return False
            raise
        return True

    def _break_if_gone(self) -> bool:
        try:
            found = self._blob.get_blob_properties()
            lease = Lease.parse(metadata_of(found).get(NOTE))
            if lease is None or not lease.owner_is_gone:
                return False
            # Bound to what was read: a lease that a third mirror acquired meanwhile is not broken.
            client = BlobLeaseClient(self._blob, lease_id=self._lease_id)
            client.break_lease(0, etag=found.etag, match_condition=MatchConditions.IfNotModified)
        except HttpResponseError as error:
            if error.status_code in (404, 409, 412):
                return True
            raise
        return True

    def _keep(self) -> None:
        pid = os.getpid()
        while not self._stop.wait(RENEW_SECONDS) and os.getpid() == pid:
            try:
                self._renew()
            except Exception as error:  # noqa: BLE001 - the next renewal makes up for it; the work continues
                _log.debug("the claim could not be renewed: %s", error)
            if self._taken:
                return

    def _renew(self) -> None:
        asked = time.monotonic()
        try:
            BlobLeaseClient(self._blob, lease_id=self._lease_id).renew()
        except HttpResponseError as error:
            if azure_errors.code_of(error) not in _TAKEN and error.status_code not in (404, 409, 412):
                raise
            self._taken = True
        else:
            self._renewed = asked
