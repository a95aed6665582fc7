"""The contents of the emulated Azure: scopes, and in each its identities, workspace and storage accounts.

Everything here is set through ``control``. The fields with a comment are the switches.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from .names import PROVIDER
from .series import Series

# The roles that matter here, by their names in Azure.
CONTRIBUTOR = "Storage Blob Data Contributor"
READER = "Storage Blob Data Reader"
SCIENTIST = "AzureML Data Scientist"
WORKSPACE_READER = "Reader"
LOG_LENGTH = 100_000


@dataclass
class Identity:
    """A service principal with a federated credential, like that of a pod's service account."""

    client_id: str
    object_id: str
    subject: str
    # Role by storage account; "" is the role in the workspace.
    roles: dict[str, str] = field(default_factory=dict)


@dataclass
class Account:
    """A storage account."""

    name: str
    key: str
    tenant: str
    hns: bool = False
    # Shared keys, and SAS signed with them, are refused unless set.
    shared_key: bool = False
    # "Allow", or "Deny" for a firewall that admits nobody.
    network: str = "Allow"
    # What happens to a body with a CRC-64: "compared", "refused" like in Azurite, or "ignored".
    crc64: str = "compared"
    # None, "AAD" or "PrivateLink": from where copies are allowed.
    copy_scope: str | None = None
    # How often an asynchronous copy answers "pending", before it ends with success, failed or aborted.
    copy_pending_polls: int = 0
    copy_outcome: str = "success"
    # A proxy writes the names of headers, and so of metadata, Like-This.
    header_case: bool = False
    copies: dict[str, Any] = field(default_factory=dict)
    # Known folders of an account with a hierarchical namespace.
    folders: set[str] = field(default_factory=set)


@dataclass
class Datastore:
    """A datastore of the workspace."""

    name: str
    kind: str = "AzureBlob"
    account: str = ""
    container: str = "azureml"
    # "None" is identity-based access; "AccountKey" and "Sas" have secrets.
    credentials: str = "None"
    is_default: bool = False


@dataclass
class Version:
    """A version of a model."""

    number: str
    properties: dict[str, Any]
    created: float
    modified: float
    # Put there by a test, as if some time ago: every list shows it.
    is_seeded: bool = False


@dataclass
class Model:
    """A model container."""

    name: str
    versions: dict[str, Version] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    is_archived: bool = False
    description: str | None = None
    created: float = field(default_factory=time.time)
    is_seeded: bool = False


@dataclass
class Run:
    """What the MLflow service must remember about a run to enforce its limits."""

    metrics: set[str] = field(default_factory=set)
    params: set[str] = field(default_factory=set)
    tags: set[str] = field(default_factory=set)
    # By metric, if the emulator keeps the points.
    series: dict[str, Series] = field(default_factory=dict)
    # The real server accepted a write, so the run exists and is not deleted.
    is_active: bool = False
    # New values of tags that came with such points. The real server gets them before its next request.
    waiting: dict[str, str] = field(default_factory=dict)
    # (when, the values of its tags from then on), for outdated searches.
    seen: list[tuple[float, dict[str, str]]] = field(default_factory=list)


@dataclass
class Workspace:
    """An Azure ML workspace."""

    subscription: str
    resource_group: str
    name: str
    # The object id of the workspace's own identity, which signs for the artifact service.
    principal: str = field(default_factory=lambda: str(uuid.uuid4()))
    datastores: list[Datastore] = field(default_factory=list)
    models: dict[str, Model] = field(default_factory=dict)
    artifacts: dict[str, dict[str, float]] = field(default_factory=dict)
    # By run and path: datastore and blob of artifacts that were registered by reference.
    artifact_places: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    flushing: asyncio.Lock = field(default_factory=asyncio.Lock)
    # False: listSecrets is answered with 403.
    secrets: bool = True
    # A metric row sent twice is "kept" (recorded rows have ids of the service), or "dropped" like in MLflow.
    metric_rows: str = "kept"
    # What a PUT does that changes the path or a property of a version: "refused", "ignored" or "accepted".
    changed_properties: str = "refused"
    # Where the points of runs are stored: in the real server ("mlflow"), or in the emulator's "memory".
    metric_store: str = "mlflow"
    # False: NaN and infinities are answered with 400.
    accepts_nan: bool = True
    # From this max_results on, the history of a metric is refused with 400; 0: no limit.
    metric_history_limit: int = 1000
    # How the artifact service signs: "user-delegation", or "key" (refused by an account without shared keys).
    artifact_sas: str = "user-delegation"
    artifact_sas_seconds: int = 24 * 3600
    # The target of the SAS, instead of the account: a server that only takes the time of an upload.
    artifact_endpoint: str = ""
    # What happens to a jobName in a PUT of a version: "ignored", "kept" or "refused".
    job_name: str = "ignored"
    # Times of a run that are more than a minute old: "taken", "ignored" (the service's clock counts) or
    # "refused".
    past_times: str = "ignored"
    # Artifacts that refer to a blob of a datastore are "taken", or answered with this status.
    artifact_references: str = "taken"
    # The status for a PUT that would change something immutable in a version.
    immutable_status: int = 409
    # How many versions a page has unless $top says so.
    page_size: int = 30
    # Searches of runs, and lists of models and versions, are this many seconds out of date. No test takes
    # this long, so what it sees does not depend on its speed.
    list_lag: float = 600
    # They show everything up to this moment, in seconds since the epoch: see client.Azure.settle.
    settled: float = 0
    # A version is found by its number only this many seconds after it was created.
    read_lag: float = 0
    # False: the versions of a missing model are an empty list, not 404.
    lists_missing: bool = True
    # True: an existing experiment is refused with ARM's error and 409, not with MLflow's.
    plain_conflict: bool = False

    @property
    def listed_until(self) -> float:
        """Return the moment, in seconds since the epoch, after which no search or list shows anything yet."""
        return max(time.time() - self.list_lag, self.settled)

    @property
    def id(self) -> str:
        """The ARM id."""
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/{PROVIDER}/workspaces/{self.name}"
        )


@dataclass
class Scope:
    """One customer and everything that belongs to it."""

    name: str
    tenant: str
    other_tenant: str
    workspace: Workspace
    identities: list[Identity] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    # How long a token is valid, in seconds, by audience ("arm", "storage").
    token_seconds: dict[str, int] = field(
        default_factory=lambda: {"arm": 3600, "storage": 3600, "registry": 3600}
    )
    # By how many seconds Entra's clock is off.
    skew: float = 0
    # Tokens up to this number, and SAS in this set, count as expired.
    expired_tokens: int = 0
    # Name -> registries.ModelRegistry.
    registries: dict[str, Any] = field(default_factory=dict)
    # Host -> container_registry.ContainerRegistry.
    container_registries: dict[str, Any] = field(default_factory=dict)
    seen_sas: set[str] = field(default_factory=set)
    expired_sas: set[str] = field(default_factory=set)
    faults: list[Any] = field(default_factory=list)
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=LOG_LENGTH))
    # Whether the identity may read the storage account as a resource.
    account_reader: bool = False
    # Not 0: the proxy answers CONNECT with this status, like a proxy that denies access.
    proxy_status: int = 0

    def identity(self, object_id: str) -> Identity | None:
        """Return the identity with this object id."""
        return next((one for one in self.identities if one.object_id == object_id), None)


def new_scope(name: str) -> Scope:
    """Create a scope with new identifiers and nothing else."""
    return Scope(
        name,
        tenant=str(uuid.uuid4()),
        other_tenant=str(uuid.uuid4()),
        workspace=Workspace(str(uuid.uuid4()), f"rg-{name}", f"mlw-{name}"),
    )


def new_identity(name: str) -> Identity:
    """Create an identity for a service account with this name in the cluster."""
    return Identity(str(uuid.uuid4()), str(uuid.uuid4()), f"system:serviceaccount:osmo:{name}")
