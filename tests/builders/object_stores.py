"""Object stores for the artifacts of MLflow: an S3 service (moto's server) and Azurite's blob service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3
from azure.storage.blob import BlobServiceClient

from azure_emulator.processes import NODE_MODULES
from builders.mlflow_servers import free_port
from builders.program import clean_environment

ACCOUNT, KEY = "mirrored", "a2V5LW9mLWEtdGVzdA=="
AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3(folder: Path) -> Iterator[dict[str, str]]:
    """Run an S3 service with a bucket ``bucket``; yield the variables that make MLflow's client use it."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(
        command, folder / "moto.log", clean_environment(**AWS), f"http://127.0.0.1:{port}/moto-api/"
    ):
        variables = {**AWS, "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        s3_client(variables).create_bucket(Bucket="bucket")
        yield variables


def s3_client(variables: dict[str, str]) -> object:
    """The real client of the service."""
    return boto3.client(
        "s3",
        endpoint_url=variables["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_DEFAULT_REGION"],
    )


@contextmanager
def azurite(folder: Path) -> Iterator[dict[str, str]]:
    """Run Azurite with a container ``container``; yield the variables that make MLflow's client use it."""
    port = free_port()
    program = NODE_MODULES / "azurite" / "dist" / "src" / "blob" / "main.js"
    command = [
        *("node", str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"),
        *("--location", str(folder / "azurite"), "--disableTelemetry", "--skipApiVersionCheck"),
    ]
    environment = {**clean_environment(), "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
    with _running(
        command, folder / "azurite.log", environment, f"http://127.0.0.1:{port}/{ACCOUNT}?comp=list"
    ):
        text = (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
            f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
        )
        BlobServiceClient.from_connection_string(text).create_container("container")
        yield {"AZURE_STORAGE_CONNECTION_STRING": text}


@contextmanager
def _running(command: list[str], log: Path, environment: dict[str, str], url: str) -> Iterator[None]:
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        for _ in range(600):
            with suppress(urllib.error.HTTPError):
                try:
                    urllib.request.urlopen(url, timeout=2).close()
                except urllib.error.HTTPError:
                    break
                except OSError:
                    assert process.poll() is None, log.read_text()
                    time.sleep(0.1)
                    continue
                break
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(600)
