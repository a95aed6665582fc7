"""Entra ID: tokens for a federated identity, and the checks of tokens by the services.

Documented: the client-credentials grant with a federated credential (Learn, "Microsoft identity platform and
the OAuth 2.0 client credentials flow", third case), the error body and the AADSTS codes ("Microsoft Entra
authentication and authorization error codes"), five minutes of tolerance for clocks, the challenges of
storage (Learn, "Authorize with Microsoft Entra ID", bearer challenge) and of ARM. Version 1.0 claims, because
both ARM and storage get such tokens. Assumed: the HTTP status of each AADSTS error whose page names none (401
for ``invalid_client``, else 400).
"""

from __future__ import annotations

import itertools
import time
import uuid
from typing import Any
from urllib.parse import parse_qsl

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from .names import (
    ARM_AUDIENCES,
    ASSERTION_AUDIENCE,
    CLOUD,
    ISSUER,
    LOGIN,
    REGISTRY_AUDIENCE,
    STORAGE_AUDIENCE,
)
from .state import Account, Identity, Scope
from .web import Refused, Reply, Request, answer, arm_error, storage_error, timestamp

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CLUSTER_ISSUER = "https://oidc.azure.test/cluster"
# By how much clocks may differ.
TOLERANCE = 300
_key = rsa.generate_private_key(65537, 2048)
_cluster_key = rsa.generate_private_key(65537, 2048)
_numbers = itertools.count(1)
# Token signatures that were already verified, so each is verified once.
_verified: dict[str, dict[str, Any]] = {}


def federated_token(identity: Identity, seconds: int = 24 * 3600) -> str:
    """Return what the cluster projects into a pod: a JWT that names its service account."""
    now = int(time.time())
    claims = {
        "iss": CLUSTER_ISSUER,
        "sub": identity.subject,
        "aud": [ASSERTION_AUDIENCE],
        "iat": now,
        "nbf": now,
        "exp": now + seconds,
    }
    return jwt.encode(claims, _cluster_key, "RS256", {"kid": "cluster"})


def issue(scope: Scope, audience: str, object_id: str, client_id: str, tenant: str, seconds: int) -> str:
    """Return a token. Its ``uti`` is an increasing number, so all existing tokens can be made to expire."""
    now = int(time.time() + scope.skew)
    claims = {
        "aud": audience,
        "iss": ISSUER.format(tenant=tenant),
        "iat": now,
        "nbf": now,
        "exp": now + seconds,
        "appid": client_id,
        "appidacr": "2",
        "idtyp": "app",
        "oid": object_id,
        "sub": object_id,
        "tid": tenant,
        "uti": str(next(_numbers)),
        "ver": "1.0",
    }
    return jwt.encode(claims, _key, "RS256", {"kid": "entra"})


def expire_tokens(scope: Scope) -> None:
    """From now on, all existing tokens are expired."""
    scope.expired_tokens = next(_numbers)


async def serve(request: Request) -> Reply:
    """Answer a request to the login host."""
    tenant, _, rest = request.decoded_path.strip("/").partition("/")
    if rest in ("v2.0/.well-known/openid-configuration", ".well-known/openid-configuration"):
        return answer(_discovery(tenant))
    if rest == "discovery/v2.0/keys":
        key = jwt.algorithms.RSAAlgorithm.to_jwk(_key.public_key(), as_dict=True)
        return answer({"keys": [{**key, "kid": "entra", "use": "sig"}]})
    if rest == "oauth2/v2.0/token" and request.method == "POST":
        return _token(request.scope, tenant, dict(parse_qsl((await request.body()).decode())))
    return Reply(404)


def _discovery(tenant: str) -> dict[str, Any]:
    base = f"https://{LOGIN}/{tenant}"
    return {
        "token_endpoint": f"{base}/oauth2/v2.0/token",
        "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
        "jwks_uri": f"{base}/discovery/v2.0/keys",
        "issuer": f"{base}/v2.0",
        "response_types_supported": ["code", "id_token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "tenant_region_scope": None,
        "cloud_instance_name": CLOUD,
    }


def _refuse(status: int, error: str, number: int, message: str) -> Refused:
    trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
    now = timestamp()[:19].replace("T", " ") + "Z"
    return Refused(
        answer(
            {
                "error": error,
                "error_description": f"AADSTS{number}: {message} Trace ID: {trace} "
                f"Correlation ID: {correlation} Timestamp: {now}",
                "error_codes": [number],
                "timestamp": now,
                "trace_id": trace,
                "correlation_id": correlation,
                "error_uri": f"https://{LOGIN}/error?code={number}",
            },
            status,
        )
    )


def _token(scope: Scope, tenant: str, form: dict[str, str]) -> Reply:
    if tenant != scope.tenant:
        raise _refuse(
            400,
            "invalid_request",
            90002,
            f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing "
            "into the correct cloud.",
        )
    for name in ("client_id", "grant_type", "scope"):
        if not form.get(name):
            raise _refuse(
                400,
                "invalid_request",
                900144,
                f"The request body must contain the following parameter: '{name}'.",
            )
    if form["grant_type"] != "client_credentials":
        raise _refuse(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type.")
    identity = next((one for one in scope.identities if one.client_id == form["client_id"]), None)
    if not identity:
        raise _refuse(
            400,
            "unauthorized_client",
            700016,
            f"Application with identifier '{form['client_id']}' was not found in the directory '{tenant}'. "
            "This can happen if the application has not been installed by the administrator of the tenant or "
            "consented to by any user in the tenant.",
        )
    if form.get("client_assertion_type") != ASSERTION_TYPE or not form.get("client_assertion"):
        raise _refuse(
            401,
            "invalid_client",
            7000218,
            "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
        )
    _judge_assertion(form["client_assertion"], identity)
    audience, lifetime = _audience(form["scope"], tenant)
    seconds = scope.token_seconds[lifetime]
    token = issue(scope, audience, identity.object_id, identity.client_id, tenant, seconds)
    return answer(
        {
            "token_type": "Bearer",
            "expires_in": seconds,
            "ext_expires_in": seconds,
            "access_token": token,
        },
        Cache_Control="no-store, no-cache",
    )


def _judge_assertion(assertion: str, identity: Identity) -> None:
    try:
        claims = jwt.decode(
            assertion,
            _cluster_key.public_key(),
            ["RS256"],
            options={"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
    except jwt.InvalidSignatureError:
        raise _refuse(
            401,
            "invalid_client",
            700027,
            "The certificate with identifier used to sign the client assertion "
            "is not registered on application.",
        ) from None
    except jwt.PyJWTError:
        raise _refuse(400, "invalid_request", 50027, "JWT token is invalid or malformed.") from None
    now = time.time()
    if not claims["nbf"] - TOLERANCE <= now <= claims["exp"] + TOLERANCE:
        raise _refuse(
            401,
            "invalid_client",
            700024,
            f"Client assertion is not within its valid time range. Current time: {timestamp()}, "
            "assertion valid "
            f"from {timestamp(claims['nbf'])}, expiry time of assertion {timestamp(claims['exp'])}.",
        )
    if ASSERTION_AUDIENCE not in claims["aud"]:
        raise _refuse(
            401,
            "invalid_request",
            700212,
            "No matching federated identity record found for presented assertion audience "
            f"'{claims['aud'][0]}'. "
            "Check your federated identity credential Subject, Audience and Issuer against the presented "
            "assertion.",
        )
    if claims["sub"] != identity.subject:
        raise _refuse(
            401,
            "invalid_request",
            700213,
            f"No matching federated identity record found for presented assertion subject '{claims['sub']}'. "
            "Check your federated identity credential Subject, Audience and Issuer against the presented "
            "assertion.",
        )


def _audience(text: str, tenant: str) -> tuple[str, str]:
    resource, found, _ = text.split()[0].rpartition("/.default")
    if not found:
        raise _refuse(
            400,
            "invalid_scope",
            1002012,
            f"The provided value for scope {text} is not valid. Client credential flows must "
            "have a scope value "
            "with /.default suffixed to the resource identifier (application ID URI).",
        )
    plain = resource.rstrip("/")
    if plain in ARM_AUDIENCES:
        return resource, "arm"
    if plain == STORAGE_AUDIENCE:
        return resource, "storage"
    if plain == REGISTRY_AUDIENCE:
        return resource, "arm"
    raise _refuse(
        400,
        "invalid_resource",
        500011,
        f"The resource principal named {resource} was not found in the tenant named {tenant}. "
        "This can happen if "
        "the application has not been installed by the administrator of the tenant or consented "
        "to by any user in "
        "the tenant. You might have sent your authentication request to the wrong tenant.",
    )


def claims_of(token: str) -> dict[str, Any] | None:
    """Return the claims of one of our tokens, whatever its audience and time; None: it is not ours."""
    if token not in _verified:
        try:
            _verified[token] = jwt.decode(
                token,
                _key.public_key(),
                ["RS256"],
                options={
                    "verify_aud": False,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_iss": False,
                },
            )
        except jwt.PyJWTError:
            return None
    return _verified[token]


def bearer(headers: Any) -> str | None:
    """Return the token of an Authorization header."""
    kind, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _expired(scope: Scope, claims: dict[str, Any]) -> bool:
    return int(claims["uti"]) <= scope.expired_tokens or claims["exp"] + 0 < time.time()


def judge_arm(request: Request) -> Identity:
    """Return the identity of a request to ARM or to an Azure ML service; otherwise answer 401 like ARM."""
    scope, token = request.scope, bearer(request.headers)

    def refuse(code: str, message: str) -> Refused:
        return arm_error(
            401,
            code,
            message,
            WWW_Authenticate=f'Bearer authorization_uri="https://{LOGIN}/{scope.tenant}", '
            f'error="invalid_token", error_description="{message}"',
        )

    if not token:
        raise refuse("AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
    claims = claims_of(token)
    if not claims:
        raise refuse("InvalidAuthenticationToken", "The access token is invalid.")
    request.identity = claims["oid"]
    if claims["aud"].rstrip("/") not in ARM_AUDIENCES:
        raise refuse(
            "InvalidAuthenticationTokenAudience",
            "The access token has been obtained for wrong audience or resource "
            f"'{claims['aud']}'. It should exactly match with one of the allowed audiences "
            f"'{ARM_AUDIENCES[0]}/'.",
        )
    if _expired(scope, claims):
        raise refuse(
            "ExpiredAuthenticationToken",
            f"The access token expiry UTC time '{timestamp(claims['exp'])}' is earlier than current UTC time "
            f"'{timestamp()}'.",
        )
    if claims["nbf"] - TOLERANCE > time.time():
        raise refuse(
            "InvalidAuthenticationToken",
            f"The access token is not valid yet: it is valid from '{timestamp(claims['nbf'])}'.",
        )
    identity = scope.identity(claims["oid"])
    if claims["tid"] != scope.tenant or not identity:
        raise refuse(
            "InvalidAuthenticationTokenTenant",
            f"The access token is from the wrong issuer '{claims['iss']}'. It must match the tenant "
            f"'{ISSUER.format(tenant=scope.tenant)}' associated with this subscription.",
        )
    return identity


def judge_storage(scope: Scope, account: Account, token: str) -> str:
    """Return the object id of a token that the account accepts; otherwise answer 401 like storage."""

    def refuse(detail: str) -> Refused:
        return storage_error(
            401,
            "InvalidAuthenticationInfo",
            "Server failed to authenticate the request. Please refer to the information in the "
            "www-authenticate header.",
            detail,
            WWW_Authenticate=challenge(account),
        )

    claims = claims_of(token)
    if not claims:
        raise refuse("IDX10511: Signature validation failed.")
    if claims["aud"].rstrip("/") != STORAGE_AUDIENCE:
        raise refuse("Audience validation failed. Audience did not match.")
    if claims["tid"] != account.tenant:
        raise refuse("Issuer validation failed. Issuer did not match.")
    if _expired(scope, claims):
        raise refuse("Lifetime validation failed. The token is expired.")
    if claims["nbf"] - TOLERANCE > time.time():
        raise refuse("Lifetime validation failed. The token is not yet valid.")
    return str(claims["oid"])


def challenge(account: Account) -> str:
    """Return storage's answer to a request without a token, or with a bad one."""
    return (
        f"Bearer authorization_uri=https://{LOGIN}/{account.tenant}/oauth2/authorize "
        f"resource_id={STORAGE_AUDIENCE}"
    )
