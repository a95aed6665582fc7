"""Finds the login for an artifact store in Azure blobs where MLflow's own client finds it.

MLflow takes the variables ``AZURE_STORAGE_CONNECTION_STRING`` and ``AZURE_STORAGE_ACCESS_KEY`` before any
other login (mlflow/store/artifact/azure_blob_artifact_repo.py, 2.9 to 3.15). Who can mirror with them must be
able to pull with them. A key is turned into a signature that can only list and read.
"""

from __future__ import annotations

import base64
import binascii
import os
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from aml_mirror.core.errors import ConfigurationError

CONNECTION_STRING, ACCESS_KEY = "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCESS_KEY"
_VALID = timedelta(days=2)


def blob_login(account_url: str) -> tuple[str, str]:
    """Return the address of the account to use, and a signature for it; empty: this program's login.

    Args:
        account_url: the address in the artifact URI.

    Raises:
        ConfigurationError: a variable is set but cannot be used.
    """
    if text := os.environ.get(CONNECTION_STRING):
        found = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
        account = found.get("AccountName", "")
        suffix = found.get("EndpointSuffix", "core.windows.net")
        scheme = found.get("DefaultEndpointsProtocol", "https")
        url = (found.get("BlobEndpoint") or f"{scheme}://{account}.blob.{suffix}").rstrip("/")
        if sas := found.get("SharedAccessSignature"):
            return url, sas.removeprefix("?")
        return url, _signature(account, found.get("AccountKey", ""), CONNECTION_STRING)
    if key := os.environ.get(ACCESS_KEY):
        account = (urlsplit(account_url).hostname or "").partition(".")[0]
        return account_url, _signature(account, key, ACCESS_KEY)
    return account_url, ""


def _signature(account: str, key: str, variable: str) -> str:
    try:
        is_key = bool(account and base64.b64decode(key, validate=True))
    except binascii.Error:
        is_key = False
    if not is_key:
        raise ConfigurationError(
            f"{variable} has no usable key of a storage account", "copy it again from the account"
        )
    return generate_account_sas(
        account,
        key,
        ResourceTypes(container=True, object=True),
        AccountSasPermissions(read=True, list=True),
        datetime.now(UTC) + _VALID,
    )
