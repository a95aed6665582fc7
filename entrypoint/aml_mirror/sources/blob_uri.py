"""Parses the address of a run in Azure Blob storage, as people and programs write it."""

from __future__ import annotations

import re
from urllib.parse import unquote

from aml_mirror.core.errors import UsageError
from aml_mirror.storage.azure_cloud import blob_suffix

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"\$root|\$web|[a-z0-9](?:-?[a-z0-9]){2,62}")
# Accounts with DNS zone endpoints (Learn, "Storage account endpoints").
_DNS_ZONE = re.compile(r"z\d+\.blob\.storage\.azure\.net")
FORM = "azure://ACCOUNT/CONTAINER/PATH"


def locate(uri: str) -> tuple[str, str, str]:
    """Split a URI into the account's address, the container, and the path in it (``""``: all of it).

    Only hosts of Azure Blob storage in our own cloud are accepted, because this identity's token is sent
    there.

    Raises:
        UsageError: it is another kind of URI, or contains a credential.
    """
    kind, _, rest = uri.partition("://")
    if re.search(r"(?i)[?&](sig|sv|se)=", uri) or (kind == "https" and "@" in rest.partition("/")[0]):
        raise UsageError(
            "the source has a SAS or another credential in it",
            f"pass it without: this identity's own token is used (--source {FORM})",
        )
    if kind == "azure":
        account, _, rest = rest.partition("/")
        address, zone = f"https://{account}.blob.{blob_suffix()}", True
    else:
        host, _, rest = rest.partition("/")
        account, _, suffix = host.lower().partition(".")
        rest = unquote(rest.partition("?")[0])
        zone = suffix == f"blob.{blob_suffix()}" or bool(_DNS_ZONE.fullmatch(suffix))
        address = f"https://{host.lower()}"
    container, _, path = rest.partition("/")
    path = path.strip("/")
    if not zone or not _ACCOUNT.fullmatch(account):
        raise UsageError(f"{uri} names no storage account of this cloud", f"for example: --source {FORM}")
    if not _CONTAINER.fullmatch(container):
        raise UsageError(f"{uri} names no container", f"for example: --source {FORM}")
    if any(part in ("", ".", "..") for part in path.split("/")) and path:
        raise UsageError(f"{uri} has an empty part, '.' or '..' in its path", f"for example: --source {FORM}")
    return address, container, path
