"""Explains why there is no token: no credential, refused by Microsoft Entra, or no answer from Entra."""

from __future__ import annotations

import re

from aml_mirror.core.errors import ConfigurationError, MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.storage import network_errors
from aml_mirror.storage.network_errors import AGAIN
from aml_mirror.support import redaction

WORKLOAD_HINT = (
    'label the pod azure.workload.identity/use: "true" and give it the service account whose annotation '
    "azure.workload.identity/client-id names the identity; outside a cluster log in with `az login`"
)

# Learn, "Microsoft Entra authentication and authorization error codes". Code -> (what it means, the fix).
_ENTRA = {
    "70021": ("no federated credential of the identity matches the pod's service account", "federation"),
    "700211": ("no federated credential of the identity matches the token's issuer", "federation"),
    "700212": ("no federated credential of the identity matches the token's audience", "federation"),
    "700213": ("no federated credential of the identity matches the pod's service account", "federation"),
    "700016": ("the tenant has no identity with this client id", "ids"),
    "700024": ("the federated token is not within its time", "clock"),
    "700027": ("the federated token has a wrong signature", "federation"),
    "50013": ("the federated token is not valid", "federation"),
    "90002": ("there is no such tenant", "ids"),
    "900023": ("there is no such tenant", "ids"),
    "900021": ("there is no such tenant", "ids"),
    "7000215": ("the client secret is wrong", "secret"),
    "7000222": ("the client secret has expired", "secret"),
    "7000229": ("the tenant has no service principal for this client id", "ids"),
    "500011": ("the tenant does not know the service that the token is for", "cloud"),
    "50076": ("the login needs a second factor", "login"),
    "50079": ("the login needs a second factor", "login"),
    "50173": ("the login has expired", "login"),
    "700082": ("the login has expired", "login"),
    "70043": ("the login has expired", "login"),
    "53003": ("a Conditional Access policy forbids it", "policy"),
}
_ENTRA_HINTS = {
    "federation": "compare issuer, subject (system:serviceaccount:NAMESPACE:NAME) and audience of the "
    "identity's federated credential with the pod's service account",
    "ids": "check AZURE_CLIENT_ID and AZURE_TENANT_ID, which the service account's annotations set in a pod",
    "clock": "check the clock of this node, and that the token file is renewed",
    "secret": "renew the secret in AZURE_CLIENT_SECRET",
    "cloud": "check AZURE_TENANT_ID, and AZUREML_CURRENT_CLOUD for a sovereign cloud",
    "login": "log in again with `az login`",
    "policy": "ask the tenant's administrator",
}
# Throttling and faults of the token service itself, which are temporary.
_ENTRA_TRANSIENT = frozenset({"50196", "90033", "90055", "90006", "90024", "50000"})


# azure-identity's words for an answer that is not one of Entra's refusals.
_ENTRA_DOWN = ("JSON is invalid", "Unexpected content", "Microsoft Entra ID error", "from Microsoft Entra ID")
_WORKLOAD_VARIABLES = (
    ("tenant_id", "AZURE_TENANT_ID"),
    ("client_id", "AZURE_CLIENT_ID"),
    ("token_file_path", "AZURE_FEDERATED_TOKEN_FILE"),
)


def translate(cause: BaseException, where: str) -> MirrorError:
    """Return our error for an error of azure-identity.

    Args:
        cause: the error.
        where: what the token was for, in words.
    """
    said = str(cause)
    whole = " ".join(said.split())
    code = re.search(r"AADSTS(\d+)", said)
    if code:
        number = code[1]
        if number in _ENTRA_TRANSIENT:
            return ServiceUnavailable(f"Microsoft Entra is busy (AADSTS{number})", AGAIN)
        meaning, kind = _ENTRA.get(number, ("it gave none", ""))
        detail = "" if kind else f": {_entra_words(whole)}"
        return NotAllowed(
            f"Microsoft Entra refused the login for {where} (AADSTS{number}): {meaning}{detail}",
            _ENTRA_HINTS.get(kind, "look the code up at https://login.microsoftonline.com/error"),
        )
    if "Identity not found" in said:
        return ConfigurationError(
            "the metadata endpoint of this machine knows no such managed identity (Identity not found)",
            "assign the identity to this machine, or check AZURE_CLIENT_ID; in a pod use workload identity",
        )
    if "not configured to acquire tokens for tenant" in said:
        return NotAllowed(
            f"{where} belongs to another tenant than this identity",
            "check AZURE_TENANT_ID; the identity must be of the tenant that owns the account",
        )
    # WorkloadIdentityCredential opens the file that the webhook mounts.
    if "No such file or directory" in said and "token" in said:
        path = re.search(r"'([^']+)'", said[said.index("No such file") :])
        return ConfigurationError(
            f"the federated token file {path[1] if path else ''} does not exist".replace("  ", " "),
            'the pod lost its projected token: check the label azure.workload.identity/use: "true" and '
            "AZURE_FEDERATED_TOKEN_FILE",
        )
    if "Permission denied" in said and "token" in said:
        return ConfigurationError(
            "the federated token file may not be read by this user",
            "run as a user in the pod's fsGroup, or set securityContext.fsGroup",
        )
    if network_errors.is_of_the_network(said):
        return network_errors.translate(said, "Microsoft Entra")
    # Entra's refusals contain AADSTS…. Without it, Entra or a proxy in front of it is throttling or down.
    if any(sign in said for sign in _ENTRA_DOWN):
        return ServiceUnavailable("Microsoft Entra temporarily failed to issue a token", AGAIN)
    if "DefaultAzureCredential" in said:
        missing = re.search(r"Missing required arguments: ([^.]+)\.", said)
        unset = [
            name for key, name in _WORKLOAD_VARIABLES if missing and f"'{key}'" in missing[1].split(", ")
        ]
        attempts = re.findall(r"\n\t(\w+): ([^\n]+)", said)
        if unset:
            reason = f"{', '.join(unset)} not set"
        else:
            tried = (f"{name} ({redaction.start(why, 120)})" for name, why in attempts[:4])
            reason = "; ".join(tried) or redaction.start(whole, 200)
        return ConfigurationError(
            f"DefaultAzureCredential failed, there is no identity to log in with: {redaction.text(reason)}",
            WORKLOAD_HINT,
        )
    return NotAllowed(f"the login for {where} failed: {redaction.start(whole, 300)}", WORKLOAD_HINT)


def _entra_words(whole: str) -> str:
    start = whole.index("AADSTS")
    words = re.sub(r"^AADSTS\d+:?\s*", "", whole[start:])
    return redaction.start(re.split(r" Trace ID| Timestamp", words)[0], 200)
