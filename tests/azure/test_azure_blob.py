"""A run in Blob storage: real clients with the emulated accounts."""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import socket
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from aml_mirror.core.errors import (
    DataError,
    MirrorError,
    NotAllowed,
    ServiceUnavailable,
    SourceNotFound,
    UsageError,
)
from aml_mirror.core.settings import Settings
from aml_mirror.formats.archives import Archive
from aml_mirror.registries.staging import staged
from aml_mirror.sources import blob_reading
from aml_mirror.sources.azure_blob import BlobSource
from aml_mirror.sources.base import NO_PATH
from aml_mirror.sources.blob_uri import locate
from aml_mirror.sources.registry import open_source
from aml_mirror.sources.tree import Tree
from aml_mirror.storage.azure_cloud import blob_suffix
from aml_mirror.storage.blob_client import transport
from this_process import here  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("here")

ODD = "ärger/%41 #?&+ 'x\"\n[1]~.txt"


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def data_requests(azure: Any) -> list[dict[str, Any]]:
    return [one for one in azure.requests(".blob.") if one["method"] != "CONNECT"]


def test_lists_the_folder_and_nothing_else(azure: Any) -> None:
    uri = azure.seed({"a.txt": b"1", "deep/er/b.bin": b"22", ODD: b"333", "empty": b""}, "runs/run-1")
    azure.seed({"c.txt": b"no"}, "runs/run-10")
    source = BlobSource(uri)
    listing = source.scan()
    assert {path: entry.bytes for path, entry in listing.files.items()} == {
        "a.txt": 1,
        "deep/er/b.bin": 2,
        ODD: 3,
        "empty": 0,
    }
    assert source.uri == uri
    assert source.name == "run-1"
    assert listing.files["a.txt"].md5 == hashlib.md5(b"1").hexdigest()
    assert Tree(source, listing).read_text(ODD) == "333"


def test_a_container_can_be_a_run(azure: Any) -> None:
    azure.seed({"model.bin": b"1"}, container="whole-run")
    source = BlobSource(f"azure://{azure.account}/whole-run/")
    assert source.name == "whole-run"
    assert list(source.scan().files) == ["model.bin"]


def test_folders_of_a_hierarchical_namespace_are_no_files(azure: Any) -> None:
    account = azure.new_account(hns=True, containers=["runs"])
    uri = azure.seed({"a/b/c.txt": b"1"}, "r", account=account, container="runs")
    azure.seed_folder("r/empty", account=account, container="runs")
    assert list(BlobSource(uri).scan().files) == ["a/b/c.txt"]


def test_names_that_are_no_paths_are_refused_one_by_one(azure: Any) -> None:
    uri = azure.seed({"a//b": b"1", "c": b"2"}, "r")
    listing = BlobSource(uri).scan()
    assert list(listing.files) == ["c"]
    assert listing.refused == {"a//b": NO_PATH}


def test_the_https_form_is_the_same_place(azure: Any) -> None:
    azure.seed({"x": b"1"}, "runs/a b")
    https = f"https://{azure.account}.blob.{blob_suffix()}/{azure.container}/runs/a%20b"
    source = BlobSource(https)
    assert source.uri == f"azure://{azure.account}/{azure.container}/runs/a b"
    assert list(source.scan().files) == ["x"]


def test_nothing_there(azure: Any) -> None:
    azure.seed({"x": b"1"}, "runs/run-10")
    with pytest.raises(SourceNotFound, match="nothing below"):
        BlobSource(f"azure://{azure.account}/{azure.container}/runs/run-1").scan()
    with pytest.raises(SourceNotFound, match="does not exist"):
        BlobSource(f"azure://{azure.account}/no-such-one/runs").scan()
    with pytest.raises(SourceNotFound, match="single blob"):
        BlobSource(f"azure://{azure.account}/{azure.container}/runs/run-10/x").scan()


def test_who_may_not_read_is_told_which_role(azure: Any) -> None:
    uri = azure.seed({"x": b"1"}, "r")
    azure.set_role(None, account=azure.account)
    with pytest.raises(NotAllowed, match=azure.account) as caught:
        BlobSource(uri).scan()
    assert "Storage Blob Data Reader" in caught.value.hint


def test_a_firewall_is_told_from_a_missing_role(azure: Any) -> None:
    uri = azure.seed({"x": b"1"}, "r")
    azure.set_account(network="Deny")
    with pytest.raises(NotAllowed) as caught:
        BlobSource(uri).scan()
    assert "network rules" in caught.value.hint


def test_an_account_that_is_not_there_is_told_from_both(azure: Any) -> None:
    with pytest.raises(ServiceUnavailable, match="refuses to connect"):
        BlobSource("azure://nosuchaccount/runs/r").scan()


def test_a_blob_written_over_is_noticed(azure: Any) -> None:
    uri = azure.seed({"x": noise(100_000), "y": b"2"}, "r")
    source = BlobSource(uri)
    listing = source.scan()
    x = listing.files["x"]
    assert source.is_unchanged(x)
    azure.seed({"x": noise(100_000, 2)}, "r")
    assert not source.is_unchanged(x)
    assert source.changed(listing.files.values()) == ["x"]
    assert source.changed([listing.files["y"]] * 20 + [x]) == ["x"]
    with pytest.raises(DataError, match="changed while it was read"):
        source.read(x, 10, 10)
    with pytest.raises(DataError, match="changed while it was read"), source.open(x) as stream:
        stream.read()
    azure.blob_service().get_blob_client(azure.container, "r/x").delete_blob()
    assert not source.is_unchanged(x)
    with pytest.raises(DataError, match=r"was deleted|changed while it was read"):
        source.read(x, 10, 10)


def test_reads_as_a_file_does(azure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_reading, "EDGE_BYTES", 1000)
    monkeypatch.setattr(blob_reading, "JUMP_BYTES", 100)
    monkeypatch.setattr(blob_reading, "LARGEST_READ", 5000)
    data = noise(60_000)
    source = BlobSource(azure.seed({"x": data}, "r"))
    entry = source.scan().files["x"]
    dice = random.Random(7)
    with source.open(entry) as stream:
        model = io.BytesIO(data)
        for _ in range(60):
            whence = dice.choice((io.SEEK_SET, io.SEEK_CUR, io.SEEK_END))
            offset = dice.randint(0, 70_000) if whence == io.SEEK_SET else -dice.randint(0, 9_000)
            if whence == io.SEEK_CUR and model.tell() + offset < 0:
                continue
            assert stream.seek(offset, whence) == model.seek(offset, whence)
            count = dice.choice((1, 50, 3000, 20_000))
            assert stream.read(count) == model.read(count)
            assert stream.tell() == model.tell()
        stream.seek(0)
        assert stream.read() == data
        with pytest.raises(ValueError):
            stream.seek(-1)
    for _ in range(60):
        offset, count = dice.randint(0, 61_000), dice.choice((1, 30, 900, 30_000))
        assert source.read(entry, offset, count) == data[offset : offset + count]


def test_a_large_checkpoint_is_judged_by_a_few_kilobytes(azure: Any) -> None:
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 2000)
        for number in range(300):
            archive.writestr(f"archive/data/{number}", noise(200 if number % 10 else 1 << 20, number))
    source = BlobSource(azure.seed({"model.pt": inside.getvalue()}, "r"))
    entry = source.scan().files["model.pt"]
    azure.forget_requests()
    found = Archive(lambda offset, count: source.read(entry, offset, count), entry.bytes)
    assert len(found.members) == 301
    requests = data_requests(azure)
    assert sum(one["bytes_out"] for one in requests) < 1_000_000
    assert len(requests) < 100


def test_a_file_read_to_its_end_takes_few_requests(azure: Any) -> None:
    data = noise(30 << 20)
    source = BlobSource(azure.seed({"events": data}, "r"))
    entry = source.scan().files["events"]
    azure.forget_requests()
    digest = hashlib.sha256()
    with source.open(entry) as stream:
        while block := stream.read(1 << 18):
            digest.update(block)
    assert digest.digest() == hashlib.sha256(data).digest()
    assert len(data_requests(azure)) < 20


def expired(azure: Any) -> None:
    azure.expire("tokens")


@pytest.mark.parametrize(
    "trouble",
    [
        lambda azure: azure.fault("status", match=r"GET.*/r/x", status=429, headers={"Retry-After": "1"}),
        lambda azure: azure.fault("status", match=r"GET.*/r/x", status=503),
        lambda azure: azure.fault("status", match=r"GET.*/r/x", status=408),
        lambda azure: azure.fault("status", match=r"GET.*/r/x", status=500, times=4),
        lambda azure: azure.fault("drop", match=r"GET.*/r/x"),
        lambda azure: azure.fault("drop", match=r"GET.*/r/x", when="after", times=4),
        lambda azure: azure.fault("cut", match=r"GET.*/r/x", when="after", times=2),
        lambda azure: azure.fault("length", match=r"GET.*/r/x", when="after", delta=-7),
        lambda azure: azure.fault("status", match=r"comp=list", status=503, times=4),
        lambda azure: azure.fault("cut", match=r"comp=list", when="after"),
        lambda azure: azure.fault("expire-tokens", match=r"GET.*/r/x"),
        expired,
    ],
    ids=[
        "429",
        "503",
        "408",
        "500",
        "drop",
        "lost",
        "cut",
        "length",
        "list",
        "list-cut",
        "token",
        "token-before",
    ],
)
def test_trouble_passes(azure: Any, trouble: Callable[[Any], None]) -> None:
    data = noise(300_000)
    source = BlobSource(azure.seed({"x": data}, "r"), retry_seconds=600)
    source.is_unchanged(source.scan().files["x"])  # a token has been acquired
    trouble(azure)
    entry = source.scan().files["x"]
    with source.open(entry) as stream:
        assert stream.read() == data


def test_trouble_that_stays_is_said(azure: Any) -> None:
    uri = azure.seed({"x": b"1"}, "r")
    azure.fault("status", match="comp=list", status=503, times=0)
    with pytest.raises(ServiceUnavailable, match="503"):
        BlobSource(uri).scan()


def test_a_file_for_a_client_that_wants_a_path(azure: Any) -> None:
    data = noise(9 << 20)
    source = BlobSource(azure.seed({"deep/x.bin": data}, "r"))
    tree = Tree(source, source.scan())
    with staged(tree, "deep/x.bin", "name.bin") as path:
        assert os.path.basename(path) == "name.bin"
        with open(path, "rb") as stream:
            assert stream.read() == data
    with pytest.raises(DataError, match="changed"), staged(tree, "deep/x.bin", "n"):
        azure.seed({"deep/x.bin": b"2"}, "r")


@pytest.mark.parametrize(
    "uri",
    [
        "https://{host}/runs/r?sv=2024-11-04&sp=rl&sig=S3CR3Tsig",
        "https://{host}/runs/r?sp=rl&SIG=S3CR3Tsig",
        "azure://{account}/runs/r?sv=2024-11-04&sig=S3CR3Tsig",
        "https://user:S3CR3Tsig@{host}/runs/r",
    ],
)
def test_a_source_with_a_secret_is_refused_and_not_repeated(azure: Any, uri: str) -> None:
    host = f"{azure.account}.blob.{blob_suffix()}"
    with pytest.raises(UsageError) as caught:
        locate(uri.format(host=host, account=azure.account))
    assert "S3CR3T" not in caught.value.message + caught.value.hint
    assert "this identity's own token" in caught.value.hint


@pytest.mark.parametrize(
    "uri",
    [
        "https://lab.blob.evil.example/runs/r",
        "https://lab.blob.core.windows.net.evil.example/runs/r",
        "https://lab.file.{suffix}/runs/r",
        "https://evil.example/lab.blob.{suffix}/r",
        "azure://lab.blob.evil.example/runs/r",
        "azure://La/runs/r",
        "azure://lab/../r",
        "azure://lab/Runs/r",
        "azure://lab",
        "azure://lab/runs/../other/r",
        "azure://lab/runs/a//b",
        "azure://",
    ],
)
def test_the_token_goes_to_no_other_host(azure: Any, uri: str) -> None:
    with pytest.raises(UsageError):
        locate(uri.format(suffix=blob_suffix()))


def test_accounts_with_a_dns_zone(azure: Any) -> None:
    assert locate("https://lab.z12.blob.storage.azure.net/runs/r") == (
        "https://lab.z12.blob.storage.azure.net",
        "runs",
        "r",
    )


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("s3://bucket/run", "azure://ACCOUNT/CONTAINER/PATH"),
        ("gs://bucket/run", "azure://ACCOUNT/CONTAINER/PATH"),
        ("abfss://runs@lab.dfs.core.windows.net/a/b", "azure://lab/runs/a/b"),
        ("wasbs://runs@lab.blob.core.windows.net/a/b", "azure://lab/runs/a/b"),
        ("wasbs://nonsense", "azure://ACCOUNT/CONTAINER/PATH"),
        ("http://lab.blob.core.windows.net/runs/r", "azure://ACCOUNT/CONTAINER/PATH"),
        ("file:///data/run", "--source DIR"),
    ],
)
def test_other_kinds_of_place_are_told_the_right_form(uri: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(Settings(source=uri, where={"source": "--source"}))
    assert hint in caught.value.hint
    assert "--source" in caught.value.message


def test_error_texts_are_one_line(azure: Any) -> None:
    azure.set_role(None, account=azure.account)
    with pytest.raises(MirrorError) as caught:
        BlobSource(f"azure://{azure.account}/{azure.container}/r").scan()
    assert not re.search(r"\n|eyJ|sig=", caught.value.message + caught.value.hint)


def test_a_request_through_a_proxy_is_sent_at_once(azure: Any) -> None:
    session = transport(2).session
    url = f"https://{azure.account}.blob.{blob_suffix()}/container/blob"
    with session.get(url, stream=True) as answer:
        connection = answer.raw._connection.sock
        assert connection.getpeername()[1] == int(os.environ["HTTPS_PROXY"].rpartition(":")[2].strip("/"))
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
