"""Who holds a claim if renewals fail for long, or if a third mirror acts between reading and breaking."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobClient, BlobLeaseClient

from aml_mirror.core.errors import ServiceUnavailable
from aml_mirror.registries.azureml import blob_lease
from aml_mirror.registries.azureml.blob_lease import LEASE_SECONDS, NOTE, BlobLease
from aml_mirror.registries.mlflow.run_lease import Lease, _namespace
from aml_mirror.storage import azure_errors
from aml_mirror.storage.azure_cloud import blob_suffix
from aml_mirror.storage.blob_client import container_client
from aml_mirror.support.retry import Retry
from azure_emulator.client import Azure

CLAIM = "aml-mirror/claims/it/reach"


class Claims:
    """Claims on one blob, and the clock by which they measure how long they were not renewed."""

    def __init__(self, azure: Azure, stack: ExitStack) -> None:
        self.azure, self._stack = azure, stack
        self.passed = 0.0
        container = container_client(f"https://{azure.account}.blob.{blob_suffix()}", azure.container)
        self.blob = container.get_blob_client(CLAIM)

    def claim(self) -> BlobLease:
        retry = Retry(0.5, lambda error: azure_errors.translate(error, "the claim"), lambda text: None)
        found = BlobLease(self.blob, retry, lambda text: None)
        self._stack.callback(found.release)
        return found

    def monotonic(self) -> float:
        return time.monotonic() + self.passed

    def held_by_a_dead(self) -> None:
        """Leave the claim as a killed mirror on this machine would."""
        gone = Lease(uuid.uuid4().hex, 1, _namespace(), 1 << 22, "1")
        self.blob.upload_blob(b"", metadata={NOTE: gone.text()})
        self.blob.acquire_lease(LEASE_SECONDS)


@pytest.fixture
def claims(here: Azure, monkeypatch: pytest.MonkeyPatch) -> Iterator[Claims]:
    with ExitStack() as stack:
        found = Claims(here, stack)
        monkeypatch.setattr(blob_lease, "time", SimpleNamespace(monotonic=found.monotonic, sleep=time.sleep))
        yield found


def test_renewals_that_fail_for_longer_than_a_lease_lives(claims: Claims) -> None:
    azure, first = claims.azure, claims.claim()
    assert first.try_acquire()
    azure.fault("status", match="comp=lease", status=503, times=0)
    claims.passed = LEASE_SECONDS - 5
    assert first.lost is False
    # From now on another may hold it. The answer is "yes, lost" until the service says otherwise.
    claims.passed = LEASE_SECONDS + 1
    with pytest.raises(ServiceUnavailable):
        assert first.lost is not False
    azure.clear_faults()
    azure.forget_requests()
    assert first.lost is False
    assert len(azure.requests("comp=lease")) == 1
    # It was renewed, so there is no further request for the duration of a lease.
    claims.passed += LEASE_SECONDS - 5
    assert first.lost is False
    assert len(azure.requests("comp=lease")) == 1


def test_another_took_it_while_renewals_failed(claims: Claims) -> None:
    first, second = claims.claim(), claims.claim()
    assert first.try_acquire()
    first.remember("a-run")
    # Let the lease expire, as if nobody had renewed it.
    BlobLeaseClient(claims.blob).break_lease(0)
    assert second.try_acquire()
    assert second.run_id == "a-run"
    claims.passed = LEASE_SECONDS + 1
    assert first.lost is True
    # Writing its note and releasing its claim do not affect the other's.
    first.remember("another-run")
    first.release()
    assert second.lost is False
    assert claims.claim().try_acquire() is False


def test_a_claim_that_is_no_longer_renewed_is_lost_without_a_question(claims: Claims) -> None:
    first = claims.claim()
    assert first.try_acquire()
    first.stop()
    assert first.lost is False
    claims.azure.forget_requests()
    claims.passed = LEASE_SECONDS + 1
    assert first.lost is True
    assert not claims.azure.requests("comp=lease")


def at_the_first_look(monkeypatch: pytest.MonkeyPatch, act: Any, before: bool = False) -> None:
    """Act between reading who holds the claim and breaking the lease, or before the reading."""
    real, done = BlobClient.get_blob_properties, []

    def look(blob: BlobClient, **more: Any) -> Any:
        is_first = not done
        done.append(True)
        if is_first and before:
            act()
        found = real(blob, **more)
        if is_first and not before:
            act()
        return found

    monkeypatch.setattr(BlobClient, "get_blob_properties", look)


def test_a_third_that_holds_the_claim_is_not_broken(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    claims.held_by_a_dead()
    first, third = claims.claim(), claims.claim()

    def come_between() -> None:
        BlobLeaseClient(claims.blob).break_lease(0)
        assert third.try_acquire()

    at_the_first_look(monkeypatch, come_between)
    assert first.try_acquire() is False
    claims.passed = LEASE_SECONDS + 1
    assert third.lost is False


def test_a_third_that_has_not_said_who_it_is_loses_and_knows(
    claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims.held_by_a_dead()
    first, third = claims.claim(), claims.claim()

    def come_between() -> None:
        BlobLeaseClient(claims.blob).break_lease(0)
        assert third._acquire()

    at_the_first_look(monkeypatch, come_between)
    assert first.try_acquire() is True
    assert third._introduce() is False
    claims.passed = LEASE_SECONDS + 1
    assert (first.lost, third.lost) == (False, True)


def test_a_claim_that_was_taken_and_deleted_before_its_holder_looked_is_acquired_again(
    claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a mirror that is paused between the two requests for longer than a lease."""
    first = claims.claim()

    def come_between() -> None:
        BlobLeaseClient(claims.blob).break_lease(0)
        second = claims.claim()
        assert second.try_acquire()
        second.release()
        assert not claims.blob.exists()

    at_the_first_look(monkeypatch, come_between, before=True)
    assert first.try_acquire() is False
    assert first.try_acquire() is True
    assert (first.lost, first.run_id) == (False, "")


def test_a_live_holder_is_not_broken(claims: Claims) -> None:
    first, second = claims.claim(), claims.claim()
    assert first.try_acquire()
    assert second.try_acquire() is False
    # A holder without a valid note is not broken, either.
    first.release()
    claims.blob.upload_blob(b"", metadata={NOTE: "not a note"}, overwrite=True)
    lease = claims.blob.acquire_lease(LEASE_SECONDS)
    assert second.try_acquire() is False
    lease.renew()
    with pytest.raises(HttpResponseError):
        claims.blob.delete_blob()
    lease.release()
    assert second.try_acquire() is True
