"""What each code and status of Azure's services means, shown with invented answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobClient, BlobLeaseClient

from aml_mirror.core.errors import ConfigurationError, DataError, MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.registries.azureml.blob_lease import BlobLease
from aml_mirror.registries.azureml.model_service import absence_allowed
from aml_mirror.registries.azureml.run_artifacts import _is_expired, _refuses_all
from aml_mirror.storage import azure_errors
from aml_mirror.support.retry import Retry


def answer(status: int, code: str = "", said: str = "no") -> HttpResponseError:
    response: Any = SimpleNamespace(
        status_code=status, reason=said, headers={"x-ms-error-code": code} if code else {}, text=str
    )
    return HttpResponseError(said, response=response)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        *((status, "", ServiceUnavailable) for status in (408, 425, 429, 500, 502, 503, 504, 507)),
        (409, "InsufficientStorage", ServiceUnavailable),
        (409, "AccountFull", ServiceUnavailable),
        (401, "", NotAllowed),
        *(
            (403, code, NotAllowed)
            for code in (
                *("", "AuthorizationPermissionMismatch", "AuthorizationFailure", "IpAuthorizationFailed"),
                *("NetworkAclDenied", "AuthorizationFailed", "KeyBasedAuthenticationNotPermitted"),
                *("AccountIsDisabled", "CannotVerifyCopySource", "Unheard"),
            )
        ),
        *(
            (404, code, ConfigurationError)
            for code in ("", "ResourceGroupNotFound", "SubscriptionNotFound", "ContainerNotFound")
        ),
        *(
            (409, code, ConfigurationError)
            for code in ("BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold")
        ),
        *(
            (status, code, ServiceUnavailable)
            for status, code in (
                (412, "LeaseIdMissing"),
                (412, "LeaseIdMismatchWithBlobOperation"),
                (409, "LeaseAlreadyPresent"),
                (409, "ContainerBeingDeleted"),
                (409, "AccountBeingCreated"),
                (409, "PendingCopyOperation"),
                (409, "OperationPending"),
            )
        ),
        (409, "BlobAlreadyExists", DataError),
        (412, "ConditionNotMet", DataError),
        *((400, code, ServiceUnavailable) for code in ("Md5Mismatch", "Crc64Mismatch", "InvalidMd5")),
        (413, "", ConfigurationError),
        (400, "RequestBodyTooLarge", ConfigurationError),
        (307, "", ConfigurationError),
        (400, "Unheard", ConfigurationError),
    ],
)
def test_what_an_answer_means(status: int, code: str, kind: type[MirrorError]) -> None:
    failure = azure_errors.translate(answer(status, code), "container runs of account lab")
    assert type(failure) is kind, failure.message
    assert failure.hint and "\n" not in failure.message


def test_the_reason_of_a_403_says_what_to_do() -> None:
    for code, hint in (
        ("AuthorizationPermissionMismatch", "Storage Blob Data Contributor"),
        ("AuthorizationFailure", "network rules"),
        ("IpAuthorizationFailed", "network rules"),
        ("NetworkAclDenied", "network rules"),
        ("AuthorizationFailed", "AzureML Data Scientist"),
        ("", "HTTPS_PROXY"),
    ):
        assert hint in str(azure_errors.translate(answer(403, code), "x").hint)
    # Neither a role nor waiting helps here.
    for status in (403, 502):
        failure = azure_errors.translate(answer(status, "", "reached through Private Link only"), "x")
        assert type(failure) is ConfigurationError


def test_what_is_a_conflict_a_change_or_damage() -> None:
    for status, code in ((409, "BlobAlreadyExists"), (412, "ConditionNotMet"), (412, "")):
        assert azure_errors.is_conflict(answer(status, code))
    assert azure_errors.is_conflict(answer(400, "TargetConditionNotMet"))
    for status, code in ((412, "SourceConditionNotMet"), (412, "LeaseIdMissing"), (409, ""), (404, "")):
        assert not azure_errors.is_conflict(answer(status, code))
    for status, code in ((412, ""), (400, "ConditionNotMet"), (400, "SourceConditionNotMet")):
        assert azure_errors.is_changed(answer(status, code))
    assert not azure_errors.is_changed(answer(409, "BlobAlreadyExists"))
    assert azure_errors.is_damage(answer(400, "InvalidOperation", "contentMD5 doesn't match"))
    assert not azure_errors.is_damage(answer(400, "InvalidOperation"))


def test_a_missing_version_is_none_and_a_missing_workspace_is_an_error() -> None:
    for error in (
        answer(404, "ModelNotFound"),
        answer(404, "ResourceNotFound", "'workspaces/ws/models/m' was not found"),
    ):
        with absence_allowed():
            raise error
    for error in (
        answer(404, "ResourceGroupNotFound"),
        answer(404, "SubscriptionNotFound"),
        answer(404, "ResourceNotFound", "the Resource 'x/workspaces/ws' was not found"),
        answer(403, "ModelNotFound"),
    ):
        with pytest.raises(HttpResponseError), absence_allowed():
            raise error


def test_a_sas_that_ran_out_is_told_from_an_account_that_refuses_all() -> None:
    def failure(code: str) -> NotAllowed:
        found = NotAllowed("no", "")
        found.__cause__ = answer(403, code)
        return found

    for code in ("AuthenticationFailed", "InvalidAuthenticationInfo"):
        assert _is_expired(failure(code)) and not _refuses_all(failure(code))
    for code in (
        *("KeyBasedAuthenticationNotPermitted", "AuthorizationFailure", "IpAuthorizationFailed"),
        *("NetworkAclDenied", "AccountIsDisabled"),
    ):
        assert _refuses_all(failure(code)) and not _is_expired(failure(code))
    assert not _refuses_all(failure("AuthorizationPermissionMismatch"))


def lease() -> BlobLease:
    blob = BlobClient("https://lab.blob.core.azure.test", "c", "claim", credential="x")
    return BlobLease(
        blob, Retry(0, lambda error: MirrorError(str(error)), lambda text: None), lambda text: None
    )


TAKEN = {
    "LeaseIdMismatchWithLeaseOperation": 409,
    "LeaseIdMismatchWithBlobOperation": 412,
    "LeaseIsBrokenAndCannotBeRenewed": 409,
    "LeaseNotPresentWithLeaseOperation": 409,
    "LeaseNotPresentWithBlobOperation": 412,
    "LeaseLost": 412,
    "BlobNotFound": 404,
}


def raising(error: HttpResponseError) -> Any:
    def call(*given: Any, **more: Any) -> Any:
        raise error

    return call


@pytest.mark.parametrize("code", TAKEN)
def test_a_lease_that_is_another_s_is_lost(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    for error in (answer(TAKEN[code], code), answer(400, code), answer(TAKEN[code])):
        monkeypatch.setattr(BlobLeaseClient, "renew", raising(error))
        claim = lease()
        claim._renew()
        assert claim.lost
    monkeypatch.setattr(BlobClient, "set_blob_metadata", raising(answer(TAKEN[code], code)))
    assert lease()._introduce() is False


def test_a_service_that_fails_does_not_say_who_holds_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (answer(500), answer(503, "ServerBusy"), answer(403, "AuthorizationFailure")):
        monkeypatch.setattr(BlobLeaseClient, "renew", raising(error))
        monkeypatch.setattr(BlobClient, "set_blob_metadata", raising(error))
        monkeypatch.setattr(BlobClient, "acquire_lease", raising(error))
        claim = lease()
        for step in (claim._renew, claim._introduce, claim._acquire):
            with pytest.raises(HttpResponseError):
                step()
        assert not claim._taken


@pytest.mark.parametrize(
    "code", ["LeaseAlreadyPresent", "LeaseIsBreakingAndCannotBeAcquired", "LeaseAlreadyBroken"]
)
def test_a_lease_that_is_held_is_not_acquired(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(BlobClient, "acquire_lease", raising(answer(409, code)))
    assert lease()._acquire() is False


def test_who_was_broken_before_it_could_say_who_it_is_does_not_hold_the_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BlobClient, "acquire_lease", lambda blob, *given, **more: None)
    monkeypatch.setattr(BlobClient, "get_blob_properties", lambda blob: SimpleNamespace(metadata={}))
    monkeypatch.setattr(BlobClient, "set_blob_metadata", raising(answer(412, "LeaseLost")))
    assert lease().try_acquire() is False
