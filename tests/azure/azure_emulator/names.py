"""Host names, identifiers and API versions.

``.test`` is reserved (RFC 6761) and never resolves, so a client that forgets the proxy fails at once and
reaches nobody; and a developer's ``NO_PROXY=localhost,127.0.0.1`` does not match it.
"""

from __future__ import annotations

DOMAIN = "azure.test"
LOGIN = f"login.{DOMAIN}"
ARM = f"management.{DOMAIN}"
LOCATION = "eastus"
AZUREML = f"{LOCATION}.api.azureml.{DOMAIN}"
STORAGE_SUFFIX = f"core.{DOMAIN}"
REGISTRY_SUFFIX = f"azurecr.{DOMAIN}"
CLOUD = "AzureEmulator"
PROVIDER = "Microsoft.MachineLearningServices"

# The hosts of the certificate; one label for each star.
CERTIFICATE_NAMES = (
    LOGIN,
    ARM,
    AZUREML,
    f"*.blob.{STORAGE_SUFFIX}",
    f"*.dfs.{STORAGE_SUFFIX}",
    f"*.file.{STORAGE_SUFFIX}",
    f"*.{REGISTRY_SUFFIX}",
    "localhost",
)

# The audiences that the two kinds of service accept in a token, without a trailing slash.
ARM_AUDIENCES = (f"https://{ARM}", "https://ml.azure.com")
# By default, a registry also accepts tokens for Resource Manager.
REGISTRY_AUDIENCE = "https://containerregistry.azure.net"
REGISTRY_AUDIENCES = (REGISTRY_AUDIENCE, ARM_AUDIENCES[0])
STORAGE_AUDIENCE = "https://storage.azure.com"
ASSERTION_AUDIENCE = "api://AzureADTokenExchange"
# Azurite and the storage service know the issuer of version 1.0 tokens.
ISSUER = "https://sts.windows.net/{tenant}/"

# Those that azure-ai-ml 1.35.2 sends, and the stable ones. Any other is refused.
API_VERSIONS = (
    "2023-05-01",
    "2022-02-01-preview",
    "2022-10-01-preview",
    "2023-02-01-preview",
    "2023-04-01",
    "2023-04-01-preview",
    "2023-06-01-preview",
    "2023-08-01-preview",
    "2023-10-01",
    "2024-01-01-preview",
    "2024-04-01",
    "2024-04-01-preview",
    "2024-10-01",
    "2024-10-01-preview",
    "2025-01-01-preview",
    "2025-12-01",
)


def blob_host(account: str) -> str:
    """The host of an account's blobs."""
    return f"{account}.blob.{STORAGE_SUFFIX}"


def account_of(host: str) -> str | None:
    """The account that a host name belongs to, if it is one of blob storage."""
    suffix = f".blob.{STORAGE_SUFFIX}"
    return host.removesuffix(suffix) if host.endswith(suffix) else None
