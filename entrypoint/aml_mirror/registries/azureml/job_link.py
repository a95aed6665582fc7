"""Decides whether a version of this workspace may name the run that it was made from (``jobName``).

In the REST model of a version, ``jobName`` is a writable field. No client of Azure ML writes it, and it is
null in every recorded version that points into a datastore. So it is written only if ``doctor --probe`` tried
it and read it back. The probe leaves a small blob in the default datastore that says so.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError

from aml_mirror.registries.azureml.limits import FOLDER

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

NAME = f"{FOLDER}/workspace.json"
SCHEMA = "aml-mirror/workspace/v1"
MAX_BYTES = 1 << 16


def note(container: ContainerClient, works: bool) -> None:
    """Store the result of a probe for later mirrors.

    Raises:
        AzureError: it cannot be written.
    """
    blob = container.get_blob_client(NAME)
    text = json.dumps({"schema": SCHEMA, "job_name": "kept" if works else "not kept"}) + "\n"
    blob.upload_blob(text.encode(), overwrite=True)


def works(container: ContainerClient) -> bool:
    """Tell whether a probe found that the link works; False if no probe tried it."""
    try:
        blob = container.get_blob_client(NAME)
        found = json.loads(blob.download_blob(0, MAX_BYTES, max_concurrency=1).readall())
    except (AzureError, ValueError):
        return False
    return isinstance(found, dict) and found.get("schema") == SCHEMA and found.get("job_name") == "kept"
