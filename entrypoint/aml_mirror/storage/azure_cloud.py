"""Decides which Azure cloud is used: its storage hosts, its login endpoint, its Resource Manager."""

from __future__ import annotations

import functools
import os
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry as HttpRetry

from aml_mirror.core.errors import ConfigurationError, ServiceUnavailable
from aml_mirror.storage import azure_errors as azure_errors

# Cloud -> (suffix of storage hosts, login endpoint, resource manager). The names are those of azure-ai-ml.
CLOUDS = {
    "AzureCloud": (
        "core.windows.net",
        "https://login.microsoftonline.com",
        "https://management.azure.com",
    ),
    "AzureChinaCloud": (
        "core.chinacloudapi.cn",
        "https://login.chinacloudapi.cn",
        "https://management.chinacloudapi.cn",
    ),
    "AzureUSGovernment": (
        "core.usgovcloudapi.net",
        "https://login.microsoftonline.us",
        "https://management.usgovcloudapi.net",
    ),
}
# Further hosts of the same login.
_OTHER_LOGINS = {"AzureChinaCloud": ("login.partner.microsoftonline.cn",)}
# The endings of container registry hosts in each of these clouds.
_REGISTRY_SUFFIXES = ("azurecr.io", "azurecr.cn", "azurecr.us")
_METADATA_SECONDS = 20.0  # A name that cannot be reached must not block the program for a minute.


def blob_suffix() -> str:
    """Return what follows ``account.blob.`` in the storage hosts of the cloud. It is looked up once.

    ``AZUREML_CURRENT_CLOUD`` names the cloud. One that is not built in is looked up at
    ``ARM_CLOUD_METADATA_URL``, like in azure-ai-ml.

    Raises:
        ConfigurationError: the cloud is unknown, or its metadata are not valid.
        ServiceUnavailable: the metadata cannot be read at the moment.
    """
    return _cloud()[0]


def resource_manager() -> str:
    """Return the address of the cloud's Azure Resource Manager, without a slash at its end.

    It is found, and raises errors, like :func:`blob_suffix`.
    """
    return _cloud()[1]


def is_container_registry(host: str) -> bool:
    """Tell whether a host belongs to Azure Container Registry, in any built-in cloud or that of the metadata.

    Raises:
        ConfigurationError, ServiceUnavailable: like :func:`blob_suffix`, for a cloud that is not built in.
    """
    suffixes = list(_REGISTRY_SUFFIXES)
    url, cloud = os.environ.get("ARM_CLOUD_METADATA_URL", ""), os.environ.get("AZUREML_CURRENT_CLOUD", "")
    if url and cloud and cloud not in CLOUDS:
        suffixes.append(_from_metadata(cloud, url)[2])
    return any(suffix and host.endswith("." + suffix) for suffix in suffixes)


def _cloud() -> tuple[str, str]:
    """The cloud's storage suffix and resource manager."""
    cloud = os.environ.get("AZUREML_CURRENT_CLOUD") or _of_login()
    if cloud in CLOUDS:
        suffix, _, manager = CLOUDS[cloud]
        return suffix, manager
    url = os.environ.get("ARM_CLOUD_METADATA_URL", "")
    if not url:
        raise ConfigurationError(
            f"AZUREML_CURRENT_CLOUD names the unknown cloud {cloud}",
            f"use one of {', '.join(CLOUDS)}, or set ARM_CLOUD_METADATA_URL as well",
        )
    return _from_metadata(cloud, url)[:2]


def _of_login() -> str:
    """Return the cloud of the login in ``AZURE_AUTHORITY_HOST``, which the workload-identity webhook sets.

    azure-ai-ml and the MLflow plugin only read ``AZUREML_CURRENT_CLOUD``, so it is set for them.
    """
    authority = os.environ.get("AZURE_AUTHORITY_HOST", "")
    host = urlsplit(authority if "//" in authority else f"//{authority}").hostname
    for cloud, (_, login, _) in CLOUDS.items():
        if host in (urlsplit(login).hostname, *_OTHER_LOGINS.get(cloud, ())):
            if cloud != "AzureCloud":
                os.environ["AZUREML_CURRENT_CLOUD"] = cloud
            return cloud
    return "AzureCloud"


@functools.cache
def _from_metadata(cloud: str, url: str) -> tuple[str, str, str]:
    where = "the cloud's metadata endpoint (ARM_CLOUD_METADATA_URL)"
    try:
        with requests.Session() as session:
            retries = HttpRetry(total=3, backoff_factor=0.5, status_forcelist=(408, 429, 500, 502, 503, 504))
            session.mount("https://", HTTPAdapter(max_retries=retries))
            answer = session.get(url, timeout=_METADATA_SECONDS)
            answer.raise_for_status()
            found = answer.json()
    except requests.exceptions.JSONDecodeError as error:
        if answer.text.lstrip()[:1] in ("{", "["):
            raise ServiceUnavailable(f"an answer of {where} was truncated", azure_errors.AGAIN) from error
        raise ConfigurationError(f"{where} did not return JSON", "check the address") from error
    except requests.RequestException as error:
        raise azure_errors.translate(error, where) from error
    # Up to 2019 the answer is a list of clouds; later versions answer with a list or one cloud.
    clouds = found if isinstance(found, list) else [found]
    for item in clouds:
        if isinstance(item, dict) and item.get("name") == cloud:
            suffixes = item.get("suffixes") or {}
            suffix, registries = suffixes.get("storage"), suffixes.get("acrLoginServer")
            manager = item.get("resourceManager")
            if isinstance(suffix, str) and suffix and isinstance(manager, str) and manager:
                return suffix, manager.rstrip("/"), registries if isinstance(registries, str) else ""
    raise ConfigurationError(
        f"{where} has no storage suffix and resource manager for the cloud {cloud}",
        "check AZUREML_CURRENT_CLOUD",
    )


def is_public(authority: str) -> bool:
    """Tell whether Microsoft's own list contains a login endpoint.

    For any other one, of a private cloud, a login with a secret or certificate would first ask
    login.microsoft.com whether it is genuine. That host does not know it, and may be unreachable.
    """
    hosts = {urlsplit(login).hostname for _, login, _ in CLOUDS.values()}
    return not authority or urlsplit(authority if "//" in authority else f"//{authority}").hostname in hosts
