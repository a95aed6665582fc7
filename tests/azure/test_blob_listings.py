"""Listings as the service documents them and no emulator returns them: versions, holds, many pages.

The real client reads them. Only its transport is replaced. The answers follow Learn, "List Blobs", version
2024-11-04.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import HttpRequest, RequestsTransportResponse
from azure.storage.blob import ContainerClient
from requests import Response
from urllib3 import HTTPResponse

from aml_mirror.sources.azure_blob import BlobSource

# The answer to a request with a marker: the blobs of the page, and the next marker.
Pages = Callable[[str, str], tuple[list[str], str]]


class Nobody:
    """A credential that is never used, because this module answers the listings."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        raise AssertionError(scopes)


class Service:
    """Answers listings, and records the requests."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self.asked: list[dict[str, list[str]]] = []

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

    def open(self) -> None: ...

    def close(self) -> None: ...

    def send(self, request: HttpRequest, **options: Any) -> RequestsTransportResponse:
        query = parse_qs(urlsplit(request.url).query)
        self.asked.append(query)
        blobs, marker = self.pages(query.get("marker", [""])[0], query.get("prefix", [""])[0])
        body = (
            '<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="container"><Blobs>'
            + "".join(blobs)
            + f"</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
        ).encode()
        answer = Response()
        answer.status_code = 200
        answer.headers["Content-Type"] = "application/xml"
        answer.raw = HTTPResponse(body=body, status=200)
        answer._content = body
        return RequestsTransportResponse(request, answer)


def blob(name: str, size: int = 100, properties: str = "", more: str = "", etag: str = "0x1") -> str:
    return (
        f"<Blob><Name>{name}</Name>{more}<Properties>"
        "<Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified>"
        f"<Etag>{etag}</Etag><Content-Length>{size}</Content-Length><BlobType>BlockBlob</BlobType>{properties}"
        "</Properties></Blob>"
    )


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Pages], tuple[BlobSource, Service]]]:
    """``source(pages)``: a source whose container returns these pages."""

    def make(pages: Pages) -> tuple[BlobSource, Service]:
        service = Service(pages)
        account = "https://account.blob.core.windows.net"
        made = BlobSource("azure://account/container/runs", credential=Nobody())
        made.container = ContainerClient(account, "container", credential=None, transport=service)  # type: ignore[arg-type]
        return made, service

    yield make


def test_only_current_blobs_are_asked_for(source: Any) -> None:
    """Versions, deleted blobs and snapshots are listed only if ``include`` names them."""
    made, service = source(lambda marker, prefix: ([blob("runs/a/model_1.pt")], ""))
    assert list(made.scan().files) == ["a/model_1.pt"]
    (asked,) = service.asked
    assert set(asked["include"][0].split(",")) == {"metadata", "uncommittedblobs"}


@pytest.mark.parametrize(
    ("properties", "more"),
    [
        ("<LegalHold>true</LegalHold>", ""),
        (
            "<ImmutabilityPolicyUntilDate>Fri, 01 Jan 2027 00:00:00 GMT</ImmutabilityPolicyUntilDate>"
            "<ImmutabilityPolicyMode>locked</ImmutabilityPolicyMode>",
            "",
        ),
        ("", "<VersionId>2026-01-02T03:04:05.0000000Z</VersionId><IsCurrentVersion>true</IsCurrentVersion>"),
        ("<LeaseStatus>locked</LeaseStatus><LeaseState>leased</LeaseState>", ""),
        ("<AccessTier>Cool</AccessTier><AccessTierInferred>true</AccessTierInferred>", ""),
        (
            "<ServerEncrypted>true</ServerEncrypted><CustomerProvidedKeySha256>x</CustomerProvidedKeySha256>",
            "",
        ),
    ],
    ids=["legal hold", "immutable", "current version", "leased", "cool", "customer-provided key"],
)
def test_a_property_that_does_not_forbid_reading_is_no_obstacle(
    source: Any, properties: str, more: str
) -> None:
    """Only reading a blob shows whether it needs a customer-provided key: the answer is 409."""
    made, _ = source(lambda marker, prefix: ([blob("runs/a/model_1.pt", 7, properties, more)], ""))
    (entry,) = made.scan().files.values()
    assert (entry.path, entry.bytes, entry.obstacle) == ("a/model_1.pt", 7, "")


@pytest.mark.parametrize(
    ("properties", "words", "passes"),
    [
        ("<AccessTier>Archive</AccessTier>", "archive tier", False),
        (
            "<AccessTier>Archive</AccessTier><ArchiveStatus>rehydrate-pending-to-hot</ArchiveStatus>",
            "being rehydrated",
            True,
        ),
    ],
)
def test_what_cannot_be_read_is_told_by_the_listing(
    source: Any, properties: str, words: str, passes: bool
) -> None:
    made, _ = source(lambda marker, prefix: ([blob("runs/a/model_1.pt", 7, properties)], ""))
    (entry,) = made.scan().files.values()
    assert words in entry.obstacle and entry.passes == passes


def run_blobs(name: str) -> list[str]:
    return [blob(f"runs/{name}/model_{step}.pt", 500) for step in (10, 20)] + [
        blob(f"runs/{name}/params/agent.yaml", 20)
    ]


def test_runs_among_many_other_blobs_take_a_request_a_page(source: Any) -> None:
    """One request per page, however many folders there are."""
    pages: list[list[str]] = [
        [blob(f"runs/data{page:02}/set{number % 50:02}/{number:05}.jpg", 1) for number in range(200)]
        for page in range(50)
    ]
    for at, name in ((10, "data10x"), (20, "data20x"), (49, "data49x")):
        pages[at] = [*pages[at], *sorted(run_blobs(name))]

    def answer(marker: str, prefix: str) -> tuple[list[str], str]:
        at = int(marker or 0)
        return pages[at], str(at + 1) if at + 1 < len(pages) else ""

    made, service = source(answer)
    listed = dict(made.listings(50_000))
    assert {name for name in listed if name.endswith("x")} == {"data10x", "data20x", "data49x"}
    assert all(len(listed[name].files) == 3 for name in ("data10x", "data20x", "data49x"))
    assert len(listed) == 53 and len(service.asked) == len(pages)


def test_pages_that_change_while_they_are_listed(source: Any) -> None:
    """New blobs after the marker are listed, and no name is listed twice."""
    first = sorted([*run_blobs("a"), blob("runs/b/model_10.pt", 500)])

    def answer(marker: str, prefix: str) -> tuple[list[str], str]:
        if not marker:
            return first, "1"
        if marker == "1":
            # An empty page is not the last one.
            return [], "2"
        # During the listing the last name was overwritten, and b's next checkpoint arrived.
        return [blob("runs/b/model_10.pt", 600, etag="0x2"), blob("runs/b/model_20.pt", 700)], ""

    made, _ = source(answer)
    listed = dict(made.listings(50_000))
    assert sorted(listed) == ["a", "b"]
    assert {path: entry.bytes for path, entry in listed["b"].files.items()} == {
        "model_10.pt": 600,
        "model_20.pt": 700,
    }
