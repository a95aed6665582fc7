"""The login for everything that talks to Azure, and what ``doctor`` reports about it.

There is one :class:`Login` in the program. It is a ``DefaultAzureCredential`` with three additions:

* In a pod, only workload identity is tried. Otherwise a pod without the label silently becomes the *node's*
managed identity, which may have access to other accounts. A person can choose another one with
``AZURE_TOKEN_CREDENTIALS``. It never prompts, because nobody would see a prompt in a pod.
* Threads share one token request.
* A token that the service refuses, although it is valid by our clock, can be dropped
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

from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
from azure.identity import DefaultAzureCredential

from aml_mirror.core.errors import ConfigurationError
from aml_mirror.storage import azure_errors as azure_errors
from aml_mirror.storage.azure_cloud import CLOUDS, is_public
from aml_mirror.storage.entra_errors import WORKLOAD_HINT
from aml_mirror.support.library_internals import successful_credential

T = TypeVar("T")

STORAGE_SCOPE = "https://storage.azure.com/.default"  # the same in every cloud

RENEWALS = 3  # The retries of token requests, for one operation.


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are, read from a token's claims without verifying it. For messages only."""

    credential: str
    client_id: str
    object_id: str
    tenant: str

    @property
    def text(self) -> str:
        """The identity in one line."""
        return f"{self.credential}: client {self.client_id}, object {self.object_id}, tenant {self.tenant}"


class Login:
    """The credential for every client of Azure. See the module's docstring."""

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
        """Return a token for the scopes. One thread requests it, the others find it in the cache."""
        with self._lock:
            return self._inner.get_token(*scopes, claims=claims, tenant_id=tenant_id, **kwargs)

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """Like :meth:`get_token`, in the form that azure-core prefers."""
        with self._lock:
            return self._inner.get_token_info(*scopes, options=options)

    def renew(self) -> None:
        """Forget every token, and the cached federated token file."""
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
        """Request a token and return its identity.

        Raises:
            ConfigurationError: there is no credential to log in with.
            NotAllowed: Microsoft Entra refused.
            ServiceUnavailable: Microsoft Entra does not answer.
        """
        try:
            claims = claims_of(self.get_token(scope).token)
        except Exception as error:
            raise azure_errors.translate(error, "Azure") from error
        answered = successful_credential(self._inner)
        return Identity(
            type(answered).__name__ if answered is not None else "DefaultAzureCredential",
            str(claims.get("appid") or claims.get("azp") or "unknown"),
            str(claims.get("oid") or "unknown"),
            str(claims.get("tid") or "unknown"),
        )


@functools.cache
def credential() -> Login:
    """Return the program's login, created at the first call."""
    return Login()


def with_fresh_login(operation: Callable[[], T]) -> T:
    """Run an operation. If it ends in 401, forget the cached tokens and run it again.

    A token can be refused before it expires by our clock: the clock is wrong, or access was revoked and
    granted again. The clients would continue to use it. This is done more than once, because an operation may
    consist of several requests.
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
                raise  # Entra itself refused, and would refuse again.
        credential().renew()
    raise AssertionError("the last attempt returns or raises")


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a JSON web token, without verification; empty if it is not one."""
    try:
        body = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}


def token_file() -> str:
    """Describe the federated token file, for ``doctor``.

    Raises:
        ConfigurationError: this is a pod and the file is missing, unreadable or expired.
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


def _chain() -> DefaultAzureCredential:
    more = (
        {} if is_public(os.environ.get("AZURE_AUTHORITY_HOST", "")) else {"disable_instance_discovery": True}
    )
    try:
        # Repeated here, because AZURE_TOKEN_CREDENTIALS may name it.
        return DefaultAzureCredential(exclude_interactive_browser_credential=True, **more)
    except ValueError as error:
        raise ConfigurationError(
            f"AZURE_TOKEN_CREDENTIALS={os.environ.get('AZURE_TOKEN_CREDENTIALS', '')} cannot be used: "
            f"{azure_errors.first_line(error)}",
            "unset it, or set it to WorkloadIdentityCredential, ManagedIdentityCredential, dev or prod",
        ) from error


def _in_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


def _choose_credentials() -> None:
    """Set the variables of azure-identity that the person did not set."""
    if _in_pod() and not os.environ.get("AZURE_TOKEN_CREDENTIALS"):
        os.environ["AZURE_TOKEN_CREDENTIALS"] = "WorkloadIdentityCredential"  # noqa: S105 - a class's name
    cloud = os.environ.get("AZUREML_CURRENT_CLOUD", "")
    if cloud in CLOUDS and not os.environ.get("AZURE_AUTHORITY_HOST"):
        # As an argument, it would not reach WorkloadIdentityCredential (azure-identity 1.27.0).
        os.environ["AZURE_AUTHORITY_HOST"] = CLOUDS[cloud][1]
