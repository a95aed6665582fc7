"""Faults on demand, the request log, and the proxy."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.ai.ml import MLClient
from azure.core.exceptions import HttpResponseError

from azure_emulator.__main__ import down, up
from azure_emulator.client import Azure

VERSION = "?api-version=2024-10-01"


def test_the_nth_match_and_so_often(azure: Azure, arm: Any) -> None:
    azure.fault("status", match="workspaces/", nth=2, times=2, status=429, headers={"Retry-After": "7"})
    answers = [arm("GET", VERSION) for _ in range(4)]
    assert [one.status_code for one in answers] == [200, 429, 429, 200]
    assert answers[1].headers["Retry-After"] == "7"
    assert [(one["seen"], one["acted"]) for one in azure.faults()] == [(4, 2)]
    azure.clear_faults()
    assert azure.faults() == []


def test_what_the_real_client_does_with_429(azure: Azure, ml: MLClient) -> None:
    azure.fault("status", match="workspaces/", status=429, headers={"Retry-After": "0"}, times=2)
    assert ml.workspaces.get(azure.facts["workspace"]).name == azure.facts["workspace"]


@pytest.mark.parametrize(("when", "there"), [("before", False), ("after", True)])
def test_before_and_after_the_server_acted(azure: Azure, mlflow_api: Any, when: str, there: bool) -> None:
    azure.fault("drop", match="experiments/create", when=when)
    with pytest.raises(requests.exceptions.ConnectionError):
        mlflow_api("POST", "experiments/create", {"name": "e1"})
    found = azure.mlflow.search_experiments(filter_string="name = 'e1'")
    assert [one.name for one in found] == (["e1"] if there else [])
    assert mlflow_api("POST", "experiments/create", {"name": "e1"}).status_code == (400 if there else 200)


def test_spoiled_answers(azure: Azure, blobs: Any, credential: Any) -> None:
    azure.seed({"a": b"x" * 1_000_000})
    url = f"https://{azure.account}.blob.core.azure.test/{azure.container}/a"
    token = credential.get_token("https://storage.azure.com/.default").token
    headers = {"Authorization": f"Bearer {token}", "x-ms-version": "2025-11-05"}
    azure.fault("cut", when="after", match="/a$")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(url, headers=headers, timeout=600)
    azure.fault("length", when="after", match="/a$", delta=7)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(url, headers=headers, timeout=600)
    azure.fault("length", when="after", match="/a$", delta=-7)
    assert len(requests.get(url, headers=headers, timeout=600).content) == 999_993
    assert len(requests.get(url, headers=headers, timeout=600).content) == 1_000_000
    azure.fault("status", status=507, body="full", match="/a$")
    answer = requests.get(url, headers=headers, timeout=600)
    assert (answer.status_code, answer.text) == (507, "full")


def test_a_damaged_request(azure: Azure, blobs: Any) -> None:
    """The bytes change on the way. Only a checksum can show that."""
    blob = blobs().get_blob_client(azure.container, "a")
    azure.fault("damage", match="/a$")
    blob.upload_blob(b"abcde")
    assert azure.read("a") == b"abbde"
    azure.fault("damage", match="/a$")
    with pytest.raises(HttpResponseError) as caught:
        blob.upload_blob(b"abcde", overwrite=True, validate_content=True)
    assert (caught.value.status_code, caught.value.error_code) == (400, "Md5Mismatch")


def test_tokens_expire_at_a_request(azure: Azure, arm: Any) -> None:
    azure.fault("expire-tokens", match="workspaces/", nth=2)
    assert [arm("GET", VERSION).status_code for _ in range(3)] == [200, 401, 401]


def test_a_stall_ends(azure: Azure, arm: Any) -> None:
    azure.fault("stall", seconds=0.3, match="workspaces/")
    assert arm("GET", VERSION).status_code == 200
    assert azure.requests("workspaces/")[0]["seconds"] >= 0.3
    azure.fault("stall", seconds=30, match="workspaces/")
    token = arm._credential.get_token("https://management.azure.test/.default").token
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(arm.base + VERSION, headers={"Authorization": f"Bearer {token}"}, timeout=(30, 0.3))


CLIENT = """
import os, requests
url = f"https://management.azure.test/metadata/endpoints?n="
for number in range(5):
    print(requests.get(url + str(number), timeout=600).status_code, flush=True)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_client_is_killed(azure: Azure, when: str) -> None:
    azure.fault("kill", nth=3, when=when)
    done = subprocess.run(
        [sys.executable, "-c", CLIENT], env=azure.env(), capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["200", "200"])
    assert len(azure.requests("metadata")) == 3


def test_faults_that_make_no_sense_are_refused(azure: Azure) -> None:
    with pytest.raises(ValueError, match="action is one of"):
        azure.fault("explode")
    with pytest.raises(ValueError, match="when=after"):
        azure.fault("cut")


def test_the_log(azure: Azure, arm: Any, mlflow_api: Any) -> None:
    arm("GET", VERSION)
    mlflow_api("POST", "experiments/create", {"name": "e1"})
    methods = [(one["method"], one["host"], one["status"]) for one in azure.requests()]
    assert methods == [
        ("POST", "login.azure.test", 200),
        ("GET", "management.azure.test", 200),
        ("POST", "eastus.api.azureml.azure.test", 200),
    ]
    last = azure.requests()[-1]
    assert (last["bytes_in"], last["identity"]) == (len('{"name": "e1"}'), azure.object_id)
    assert last["bytes_out"] > 0
    azure.forget_requests()
    assert azure.requests() == []


def test_a_proxy_that_lets_nobody_out(azure: Azure, credential: Any) -> None:
    azure.set(proxy_status=403)
    with pytest.raises(requests.exceptions.ProxyError, match="403"):
        requests.get("https://login.azure.test/", timeout=600)


def test_a_client_without_the_certificate_or_the_proxy(
    azure: Azure, credential: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(requests.exceptions.SSLError):
        requests.get("https://login.azure.test/", timeout=600)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name)
    with pytest.raises(requests.exceptions.ConnectionError, match=r"resolve|resolution"):
        requests.get("https://login.azure.test/", timeout=600)


def test_it_ends_with_the_process_that_asked_for_it(tmp_path: Path) -> None:
    owner = subprocess.Popen(["sleep", "600"])
    try:
        url = up(tmp_path / "state", owner=owner.pid)["url"]
        assert requests.get(url, timeout=600).status_code < 500
        # Longer than the pause between two checks of the owner.
        time.sleep(3)
        assert requests.get(url, timeout=600).status_code < 500
        owner.kill()
        owner.wait()
        end = time.monotonic() + 600
        while (tmp_path / "state" / "backends.json").exists() and time.monotonic() < end:
            time.sleep(0.2)
        assert not (tmp_path / "state" / "backends.json").exists()
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(url, timeout=5)
    finally:
        owner.kill()
        down(tmp_path / "state")
