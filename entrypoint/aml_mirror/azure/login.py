"""One identity for everything that talks to Azure, and what ``doctor`` says of it.

There is one :class:`Login` in the program. It is a ``DefaultAzureCredential`` with three things added:

* In a pod only workload identity is tried. Otherwise a pod without the label silently becomes the *node's*
  managed identity, which may do other things to other accounts. ``AZURE_TOKEN_CREDENTIALS`` says otherwise
  where a person means it. No prompt is ever shown: nobody sits before a pod.
* Many threads ask for one token, not for one each.
* A token that the service refuses although our clock still holds it good can be dropped
  (:func:`with_fresh_login`).
"""

from __future__ import annotations

import base64
import functools
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
from azure.identity import DefaultAzureCredential
from requests.adapters import HTTPAdapter
from urllib3.util import Retry as HttpRetry

from aml_mirror.azure import errors as azure_errors
from aml_mirror.azure.entra_errors import WORKLOAD_HINT
from aml_mirror.errors import ConfigurationError, ServiceUnavailable

T = TypeVar("T")

STORAGE_SCOPE = "https://storage.azure.com/.default"  # the same in every cloud

# Cloud -> (suffix of storage hosts, login endpoint, resource manager). The names are those of azure-ai-ml.
_CLOUDS = {
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
RENEWALS = 3  # of the tokens, for one operation
_METADATA_SECONDS = 20.0  # a name that resolves nowhere useful must not hold the program for a minute


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are, read from a token's claims without verifying it: for people only."""

    credential: str
    client_id: str
    object_id: str
    tenant: str

    @property
    def text(self) -> str:
        """The identity in one line."""
        return f"{self.credential}: client {self.client_id}, object {self.object_id}, tenant {self.tenant}"


class Login:
    """The credential that every client of Azure gets. See the module's first lines."""

    def __init__(self) -> None:
        _choose_credentials()
        self._lock = threading.RLock()
        self._inner = _chain()

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        **kwargs: Any,
    ) -> AccessToken:
        """Return a token for the scopes; of several threads one asks, the others find it cached."""
        with self._lock:
            return self._inner.get_token(*scopes, claims=claims, tenant_id=tenant_id, **kwargs)

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """As :meth:`get_token`, in the form that azure-core prefers."""
        with self._lock:
            return self._inner.get_token_info(*scopes, options=options)

    def renew(self) -> None:
        """Forget every token, and the federated token file as it was read."""
        with self._lock:
            self._inner = _chain()

    def close(self) -> None:
        """Close the connections to the token service."""
        self._inner.close()

    def __enter__(self) -> Login:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def identity(self, scope: str = STORAGE_SCOPE) -> Identity:
        """Ask for a token and say whose it is.

        Raises:
            ConfigurationError: there is nothing to log in with.
            NotAllowed: Microsoft Entra refused.
            ServiceUnavailable: Microsoft Entra does not answer.
        """
        try:
            claims = claims_of(self.get_token(scope).token)
        except Exception as error:
            raise azure_errors.translate(error, "Azure") from error
        # No public name for it; doctor does without where a later version calls it something else.
        answered = getattr(self._inner, "_successful_credential", None)
        return Identity(
            type(answered).__name__ if answered is not None else "DefaultAzureCredential",
            str(claims.get("appid") or claims.get("azp") or "unknown"),
            str(claims.get("oid") or "unknown"),
            str(claims.get("tid") or "unknown"),
        )


@functools.cache
def credential() -> Login:
    """Return the one login of this program, made when first asked for."""
    return Login()


def with_fresh_login(operation: Callable[[], T]) -> T:
    """Run an operation; where it ends in 401, forget the cached tokens and run it again.

    A token can be refused before it expires by our clock: the clock is wrong, or access was revoked and
    given back. The clients would go on using it. More than once, since an operation may be several requests.
    """
    for left in range(RENEWALS, -1, -1):
        try:
            return operation()
        except Exception as error:
            if not left or not any(
                azure_errors.is_unauthenticated(cause) for cause in azure_errors.chain(error)
            ):
                raise
            if "AADSTS" in str(error):
                raise  # Entra itself refused: it would again
        credential().renew()
    raise AssertionError("the last try returns or raises")


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a JSON web token, not verified; empty where it is none."""
    try:
        body = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}


def token_file() -> str:
    """Say in words how the federated token file is, for ``doctor``.

    Raises:
        ConfigurationError: this is a pod and the file is not there, not readable, or expired.
    """
    path = os.environ.get("AZURE_FEDERATED_TOKEN_FILE", "")
    chosen = os.environ.get("AZURE_TOKEN_CREDENTIALS", "")
    if not path:
        if _in_pod() and chosen.lower() in ("", "workloadidentitycredential"):
            raise ConfigurationError(
                "AZURE_FEDERATED_TOKEN_FILE is not set: the pod has no workload identity",
                WORKLOAD_HINT,
            )
        return "no federated token file; not needed here"
    try:
        with open(path, encoding="utf-8") as stream:
            claims = claims_of(stream.read().strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the federated token file {path} cannot be read: {getattr(error, 'strerror', None) or error}",
            WORKLOAD_HINT,
        ) from error
    expires = claims.get("exp")
    if isinstance(expires, (int, float)) and expires < time.time():
        raise ConfigurationError(
            f"the federated token in {path} expired {time.time() - expires:.0f} s ago",
            "check this node's clock and that the kubelet renews the pod's projected tokens",
        )
    return f"{path} can be read" + (f", subject {claims['sub']}" if claims.get("sub") else "")


def blob_suffix() -> str:
    """Return what follows ``account.blob.`` in the storage hosts of the cloud, asked for once.

    ``AZUREML_CURRENT_CLOUD`` names the cloud; one that is not built in is looked up at
    ``ARM_CLOUD_METADATA_URL``, as azure-ai-ml does.

    Raises:
        ConfigurationError: the cloud is not known, or its metadata are not what they should be.
        ServiceUnavailable: the metadata cannot be had for now.
    """
    return _cloud()[0]


def resource_manager() -> str:
    """Return the address of the cloud's Azure Resource Manager, without a slash at its end.

    Found, and raises, as :func:`blob_suffix`.
    """
    return _cloud()[1]


def _cloud() -> tuple[str, str]:
    """The cloud's storage suffix and resource manager."""
    cloud = os.environ.get("AZUREML_CURRENT_CLOUD") or "AzureCloud"
    if cloud in _CLOUDS:
        suffix, _, manager = _CLOUDS[cloud]
        return suffix, manager
    url = os.environ.get("ARM_CLOUD_METADATA_URL", "")
    if not url:
        raise ConfigurationError(
            f"the cloud {cloud} of AZUREML_CURRENT_CLOUD is not known",
            f"use one of {', '.join(_CLOUDS)}, or set ARM_CLOUD_METADATA_URL as well",
        )
    return _from_metadata(cloud, url)


@functools.cache
def _from_metadata(cloud: str, url: str) -> tuple[str, str]:
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
            raise ServiceUnavailable(f"an answer of {where} was cut", azure_errors.AGAIN) from error
        raise ConfigurationError(f"{where} answers no JSON", "check the address") from error
    except requests.RequestException as error:
        raise azure_errors.translate(error, where) from error
    # Up to 2019 the answer is a list of clouds; later versions answer with a list or one cloud.
    clouds = found if isinstance(found, list) else [found]
    for item in clouds:
        if isinstance(item, dict) and item.get("name") == cloud:
            suffix = (item.get("suffixes") or {}).get("storage")
            manager = item.get("resourceManager")
            if isinstance(suffix, str) and suffix and isinstance(manager, str) and manager:
                return suffix, manager.rstrip("/")
    raise ConfigurationError(
        f"{where} names no storage suffix and resource manager for the cloud {cloud}",
        "check AZUREML_CURRENT_CLOUD",
    )


def _chain() -> DefaultAzureCredential:
    more = (
        {} if _is_public(os.environ.get("AZURE_AUTHORITY_HOST", "")) else {"disable_instance_discovery": True}
    )
    try:
        # Said here too, since AZURE_TOKEN_CREDENTIALS may name it.
        return DefaultAzureCredential(exclude_interactive_browser_credential=True, **more)
    except ValueError as error:
        raise ConfigurationError(
            f"AZURE_TOKEN_CREDENTIALS={os.environ.get('AZURE_TOKEN_CREDENTIALS', '')} cannot be used: "
            f"{azure_errors.first_line(error)}",
            "leave it unset, or set it to WorkloadIdentityCredential, ManagedIdentityCredential, dev or prod",
        ) from error


def _is_public(authority: str) -> bool:
    """Whether a login endpoint is one that Microsoft's own list of them knows.

    Of any other, of a private cloud, a login with a secret or certificate would first ask
    login.microsoft.com whether it is genuine, which does not know it and may be out of reach.
    """
    hosts = {urlsplit(login).hostname for _, login, _ in _CLOUDS.values()}
    return not authority or urlsplit(authority if "//" in authority else f"//{authority}").hostname in hosts


def _in_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


def _choose_credentials() -> None:
    """Set what azure-identity reads from the environment, where a person set nothing."""
    if _in_pod() and not os.environ.get("AZURE_TOKEN_CREDENTIALS"):
        os.environ["AZURE_TOKEN_CREDENTIALS"] = "WorkloadIdentityCredential"  # noqa: S105 - a class's name
    cloud = os.environ.get("AZUREML_CURRENT_CLOUD", "")
    if cloud in _CLOUDS and not os.environ.get("AZURE_AUTHORITY_HOST"):
        # As an argument it would not reach WorkloadIdentityCredential (azure-identity 1.27.0).
        os.environ["AZURE_AUTHORITY_HOST"] = _CLOUDS[cloud][1]
