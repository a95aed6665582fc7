"""Blob storage: rights, keys, signatures, firewalls, leases, folders and copies, with the real client."""

from __future__ import annotations

import base64
import hashlib
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from azure.core import MatchConditions
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobBlock, BlobClient, generate_blob_sas

from azure_emulator.client import CONTRIBUTOR, READER, Azure

DATA = os.urandom(300_000)


def code(error: Any) -> tuple[int, str]:
    found = error.value.error_code
    return error.value.status_code, getattr(found, "value", found)


def authorization(credential: Any) -> str:
    return f"Bearer {credential.get_token('https://storage.azure.com/.default').token}"


def test_bytes_go_in_and_out(azure: Azure, blobs: Any) -> None:
    blob = blobs(max_single_put_size=64 * 1024, max_block_size=64 * 1024).get_blob_client(
        azure.container, "a b/ä+%.bin"
    )
    blob.upload_blob(DATA, metadata={"sha": "1"}, max_concurrency=4)
    assert blob.download_blob().readall() == DATA == azure.read("a b/ä+%.bin")
    assert blob.download_blob(offset=1000, length=10).readall() == DATA[1000:1010]
    assert blob.get_blob_properties().metadata == {"sha": "1"} == azure.metadata("a b/ä+%.bin")
    with pytest.raises(ResourceExistsError):
        blob.upload_blob(b"", overwrite=False)
    logged = azure.requests(f"PUT https://{azure.account}")
    assert sum(one["bytes_in"] for one in logged) > len(DATA)
    assert {one["identity"] for one in logged} == {azure.object_id}


def test_a_checksum_of_the_body(azure: Azure, blobs: Any) -> None:
    blob = blobs().get_blob_client(azure.container, "a")
    data, right, wrong = b"123456789", "iJh5CoYUi64=", "AAAAAAAAAAA="

    def put(**headers: str) -> dict[str, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        found: dict[str, Any] = blob.stage_block("id", data, headers=named)
        return found

    def refused(**headers: str) -> tuple[int, str]:
        with pytest.raises(HttpResponseError) as caught:
            put(**headers)
        return code(caught)

    assert base64.b64encode(put(x_ms_content_crc64=right)["content_crc64"]).decode() == right
    assert refused(x_ms_content_crc64=wrong) == (400, "Crc64Mismatch")
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    put(Content_MD5=md5)
    assert refused(Content_MD5=base64.b64encode(bytes(16)).decode()) == (400, "Md5Mismatch")
    assert refused(x_ms_content_crc64=right, Content_MD5=md5) == (400, "InvalidHeaderValue")
    azure.set_account(crc64="ignored")
    put(x_ms_content_crc64=wrong)
    azure.set_account(crc64="refused")
    assert refused(x_ms_content_crc64=right) == (500, "FeatureNotSupported")


def test_roles(azure: Azure, blobs: Any) -> None:
    blob = blobs().get_blob_client(azure.container, "a")
    blob.upload_blob(b"1")
    azure.set_role(READER, azure.account)
    assert blob.download_blob().readall() == b"1"
    with pytest.raises(HttpResponseError) as error:
        blob.upload_blob(b"2", overwrite=True)
    assert code(error) == (403, "AuthorizationPermissionMismatch")
    assert "using this permission" in str(error.value)
    azure.set_role(None, azure.account)
    with pytest.raises(HttpResponseError) as error:
        blob.download_blob()
    assert code(error) == (403, "AuthorizationPermissionMismatch")
    azure.set_role(CONTRIBUTOR, azure.account)
    blob.delete_blob()


def test_another_tenant(azure: Azure, blobs: Any, credential: Any) -> None:
    account = azure.new_account(other_tenant=True, containers=["runs"])
    # The challenge names the other tenant, where the client may not request a token.
    with pytest.raises(ClientAuthenticationError, match="not configured to acquire tokens for tenant"):
        list(blobs(account).get_container_client("runs").list_blobs())
    answer = requests.get(
        f"https://{account}.blob.core.azure.test/runs/a",
        headers={"Authorization": authorization(credential)},
        timeout=600,
    )
    assert answer.status_code == 401
    assert "Issuer validation failed" in answer.text


def test_an_account_that_is_not_there(azure: Azure, credential: Any) -> None:
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get("https://nowhere.blob.core.azure.test/", timeout=600)
    assert [one["method"] for one in azure.requests("nowhere")] == ["CONNECT"]


def test_a_firewall(azure: Azure, blobs: Any) -> None:
    azure.set_account(network="Deny")
    with pytest.raises(HttpResponseError) as error:
        list(blobs().list_containers())
    assert code(error) == (403, "AuthorizationFailure")


def test_without_authorization(azure: Azure, credential: Any) -> None:
    answer = requests.get(f"https://{azure.account}.blob.core.azure.test/{azure.container}/a", timeout=600)
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (401, "NoAuthenticationInformation")
    assert azure.facts["tenant"] in answer.headers["WWW-Authenticate"]


def test_shared_keys(azure: Azure, blobs: Any) -> None:
    azure.seed({"a": b"1"})
    key = azure.facts["accounts"][0]["key"]
    service = blobs(credential={"account_name": azure.account, "account_key": key})
    with pytest.raises(HttpResponseError) as error:
        service.get_blob_client(azure.container, "a").download_blob()
    assert code(error) == (403, "KeyBasedAuthenticationNotPermitted")
    with pytest.raises(HttpResponseError) as error:
        BlobClient.from_blob_url(azure.sas("a"), retry_total=0).download_blob()
    assert code(error) == (403, "KeyBasedAuthenticationNotPermitted")
    azure.set_account(shared_key=True)
    assert service.get_blob_client(azure.container, "a").download_blob().readall() == b"1"
    assert BlobClient.from_blob_url(azure.sas("a")).download_blob().readall() == b"1"


def delegated(service: Any, account: str, container: str, name: str) -> str:
    """A SAS that the real client creates."""
    start, end = datetime.now(UTC) - timedelta(minutes=5), datetime.now(UTC) + timedelta(hours=1)
    sas = generate_blob_sas(
        account,
        container,
        name,
        user_delegation_key=service.get_user_delegation_key(start, end),
        permission="r",
        expiry=end,
    )
    return f"https://{account}.blob.core.azure.test/{container}/{name}?{sas}"


def test_user_delegation(azure: Azure, blobs: Any) -> None:
    azure.seed({"a": b"1"})
    url = delegated(blobs(), azure.account, azure.container, "a")
    blob = BlobClient.from_blob_url(url, retry_total=0)
    assert blob.download_blob().readall() == b"1"
    with pytest.raises(HttpResponseError) as error:
        blob.upload_blob(b"2", overwrite=True)
    assert code(error) == (403, "AuthorizationPermissionMismatch")
    # It has no more rights than the user who signed it.
    azure.set_role(None, azure.account)
    with pytest.raises(HttpResponseError) as error:
        blob.download_blob()
    assert code(error) == (403, "AuthorizationPermissionMismatch")
    azure.set_role(READER, azure.account)
    azure.expire("sas")
    with pytest.raises(HttpResponseError) as error:
        blob.download_blob()
    assert code(error) == (403, "AuthenticationFailed")


def test_leases(azure: Azure, blobs: Any) -> None:
    blob = blobs().get_blob_client(azure.container, "claim")
    blob.upload_blob(b"")
    lease = blob.acquire_lease(15)
    with pytest.raises(HttpResponseError) as error:
        blob.acquire_lease(15)
    assert code(error) == (409, "LeaseAlreadyPresent")
    with pytest.raises(HttpResponseError) as error:
        blob.upload_blob(b"x", overwrite=True)
    assert code(error) == (412, "LeaseIdMissing")
    lease.renew()
    lease.release()
    blob.upload_blob(b"x", overwrite=True)


def test_a_hierarchical_namespace(azure: Azure, blobs: Any) -> None:
    account = azure.new_account(hns=True, containers=["runs"])
    azure.seed({"r1/ckpt/a": b"1"}, account=account, container="runs")
    container = blobs(account).get_container_client("runs")
    container.upload_blob("r2/x/y/b", b"22")
    found = {one.name: (one.size, one.metadata) for one in container.list_blobs(include=["metadata"])}
    folder = (0, {"hdi_isfolder": "true"})
    assert found == {
        "r1": folder,
        "r1/ckpt": folder,
        "r1/ckpt/a": (1, {}),
        "r2": folder,
        "r2/x": folder,
        "r2/x/y": folder,
        "r2/x/y/b": (2, {}),
    }
    with pytest.raises(HttpResponseError) as error:
        container.delete_blob("r2/x")
    assert code(error) == (409, "DirectoryIsNotEmpty")


class Copies:
    """A source blob and its target, in the same account or in two."""

    def __init__(self, azure: Azure, blobs: Any, inside: bool, **fields: Any) -> None:
        self.account = azure.account if inside else azure.new_account(role=READER, **fields)
        azure.seed({"src/a b.bin": DATA}, account=self.account, container="runs")
        self.name, self.container = "src/a b.bin", "runs"
        self.source = f"https://{self.account}.blob.core.azure.test/runs/src/a%20b.bin"
        self.target = blobs().get_blob_client(azure.container, "copy.bin")

    def arrived(self, azure: Azure) -> bool:
        return azure.read("copy.bin") == DATA


def test_copy_inside_an_account(azure: Azure, blobs: Any, credential: Any) -> None:
    copies = Copies(azure, blobs, True)
    answer = copies.target.start_copy_from_url(copies.source)
    assert (answer["copy_status"], copies.arrived(azure)) == ("success", True)
    properties = copies.target.get_blob_properties().copy
    assert (properties.status, properties.source) == ("success", copies.source)
    # The "From URL" operations read the source anonymously unless the request contains an authorization for
    # it.
    copies.target.delete_blob()
    for refused in (
        lambda: copies.target.start_copy_from_url(copies.source, requires_sync=True),
        lambda: copies.target.upload_blob_from_url(copies.source),
        lambda: copies.target.stage_block_from_url("YQ==", copies.source, 0, 10),
    ):
        with pytest.raises(HttpResponseError) as error:
            refused()
        assert code(error) == (409, "CannotVerifyCopySource")
    given = authorization(credential)
    copies.target.start_copy_from_url(copies.source, requires_sync=True, source_authorization=given)
    assert copies.arrived(azure)


@pytest.mark.parametrize("inside", [True, False])
def test_put_from_url(azure: Azure, blobs: Any, credential: Any, inside: bool) -> None:
    copies = Copies(azure, blobs, inside)
    given = authorization(credential)
    copies.target.upload_blob_from_url(copies.source, source_authorization=given, metadata={"k": "v"})
    assert copies.arrived(azure)
    assert azure.metadata("copy.bin") == {"k": "v"}
    copies.target.delete_blob()
    for number, start in enumerate(range(0, len(DATA), 100_000)):
        copies.target.stage_block_from_url(
            f"{number:08d}", copies.source, start, 100_000, source_authorization=given
        )
    copies.target.commit_block_list([BlobBlock(f"{number:08d}") for number in range(3)])
    assert copies.arrived(azure)
    # The bytes did not travel through the client.
    assert sum(one["bytes_in"] + one["bytes_out"] for one in azure.requests("copy.bin")) < 5000


def test_copy_between_accounts(azure: Azure, blobs: Any, credential: Any) -> None:
    copies = Copies(azure, blobs, False)
    with pytest.raises(HttpResponseError) as error:
        copies.target.start_copy_from_url(copies.source)
    assert code(error) == (409, "CannotVerifyCopySource")
    url = azure.sas(copies.name, account=copies.account, container="runs", object_id=azure.object_id)
    copies.target.start_copy_from_url(url)
    assert copies.arrived(azure)
    copies.target.delete_blob()
    copies.target.start_copy_from_url(
        copies.source, requires_sync=True, source_authorization=authorization(credential)
    )
    assert copies.arrived(azure)
    azure.set_role(None, copies.account)
    with pytest.raises(HttpResponseError) as error:
        copies.target.start_copy_from_url(url)
    assert code(error) == (403, "CannotVerifyCopySource")


def test_copies_that_are_refused(azure: Azure, blobs: Any) -> None:
    copies = Copies(azure, blobs, False, shared_key=True)
    url = azure.sas(copies.name, account=copies.account, container="runs")
    azure.set_account(copy_scope="AAD")
    copies.target.start_copy_from_url(url)
    azure.set_account(copy_scope="PrivateLink")
    with pytest.raises(HttpResponseError, match="not authorized to perform this operation") as error:
        copies.target.start_copy_from_url(url)
    assert error.value.status_code == 403
    azure.set_account(copy_scope="AAD")
    other = azure.new_account(other_tenant=True, shared_key=True)
    azure.seed({"a": b"1"}, account=other, container="runs")
    foreign = azure.sas("a", account=other, container="runs")
    with pytest.raises(HttpResponseError) as error:
        copies.target.start_copy_from_url(foreign)
    assert code(error) == (403, "AuthorizationFailure")
    azure.set_account(copy_scope=None)
    copies.target.start_copy_from_url(foreign)
    azure.set_account(copies.account, network="Deny")
    with pytest.raises(HttpResponseError) as error:
        copies.target.start_copy_from_url(url)
    assert code(error) == (403, "CannotVerifyCopySource")
    with pytest.raises(ResourceNotFoundError) as error:
        blobs().get_blob_client(azure.container, "x").start_copy_from_url(
            f"https://{azure.account}.blob.core.azure.test/{azure.container}/none"
        )
    assert code(error) == (404, "CannotVerifyCopySource")


def test_a_copy_is_bound_to_the_etag(azure: Azure, blobs: Any) -> None:
    copies = Copies(azure, blobs, True)
    source = blobs().get_blob_client("runs", copies.name)
    etag = source.get_blob_properties().etag
    bound = {"source_etag": etag, "source_match_condition": MatchConditions.IfNotModified}
    copies.target.start_copy_from_url(copies.source, **bound)
    source.upload_blob(b"changed", overwrite=True)
    with pytest.raises(HttpResponseError) as error:
        copies.target.start_copy_from_url(copies.source, **bound)
    assert code(error) == (412, "SourceConditionNotMet")


def test_a_copy_that_takes_its_time(azure: Azure, blobs: Any) -> None:
    copies = Copies(azure, blobs, True)
    azure.set_account(copy_pending_polls=2)
    assert copies.target.start_copy_from_url(copies.source)["copy_status"] == "pending"
    with pytest.raises(HttpResponseError) as error:
        copies.target.upload_blob(b"", overwrite=True)
    assert code(error) == (409, "PendingCopyOperation")
    seen = [copies.target.get_blob_properties().copy.status for _ in range(3)]
    assert seen == ["pending", "pending", "success"]
    assert copies.arrived(azure)


def test_a_copy_that_fails_or_is_aborted(azure: Azure, blobs: Any) -> None:
    copies = Copies(azure, blobs, True)
    azure.set_account(copy_pending_polls=1, copy_outcome="failed")
    copies.target.start_copy_from_url(copies.source)
    found = [copies.target.get_blob_properties() for _ in range(2)]
    assert [one.copy.status for one in found] == ["pending", "failed"]
    assert "Copy failed when reading the source" in found[1].copy.status_description
    assert (found[1].size, azure.read("copy.bin")) == (0, b"")
    azure.set_account(copy_pending_polls=9, copy_outcome="success")
    identifier = copies.target.start_copy_from_url(copies.source)["copy_id"]
    copies.target.abort_copy(identifier)
    assert copies.target.get_blob_properties().copy.status == "aborted"
    with pytest.raises(HttpResponseError) as error:
        copies.target.abort_copy(identifier)
    assert code(error) == (409, "NoPendingCopyOperation")
    copies.target.upload_blob(b"again", overwrite=True)
    assert copies.target.get_blob_properties().copy.status is None
    assert azure.read("copy.bin") == b"again"
