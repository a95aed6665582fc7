"""Copy the blobs below a prefix into another container through this machine, as a script would."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobServiceClient
from measure import Timer, arguments, report

given = arguments()
credential = DefaultAzureCredential()
source = BlobServiceClient(given["from_account"], credential).get_container_client(given["from_container"])
target = BlobServiceClient(given["to_account"], credential).get_container_client(given["to_container"])
total = files = 0
with Timer() as timer, tempfile.TemporaryDirectory(dir=os.environ["SCRATCH"]) as scratch:
    for blob in list(source.list_blobs(name_starts_with=given["prefix"])):
        name = blob.name.removeprefix(given["prefix"])
        local = Path(scratch) / "file"
        with local.open("wb") as stream:
            source.download_blob(blob.name, max_concurrency=8).readinto(stream)
        with local.open("rb") as stream:
            target.upload_blob(given["to_prefix"] + name, stream, overwrite=True, max_concurrency=8)
        total += local.stat().st_size
        files += 1
report(timer, {"files": files, "bytes": total})
