"""What exists in the emulated Azure: scopes, and in each its identities, workspace and storage accounts.

Everything here is set through ``control``; the fields with a comment are the switches.
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
    """A service principal with a federated credential, as a pod's service account has."""

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
    # "Allow", or "Deny" for a firewall that lets nobody in.
    network: str = "Allow"
    # What is done with a CRC-64 of a body: "compared", "refused" as Azurite does, or "ignored".
    crc64: str = "compared"
    # None, "AAD" or "PrivateLink": from where copies may come.
    copy_scope: str | None = None
    # An asynchronous copy says "pending" so often before it ends as success, failed or aborted.
    copy_pending_polls: int = 0
    copy_outcome: str = "success"
    # Something on the way writes the names of headers, and so of metadata, Like-This.
    header_case: bool = False
    copies: dict[str, Any] = field(default_factory=dict)
    # Folders known to exist, of an account with a hierarchical namespace.
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
    # Put there by a test, some time ago as it were: no list is behind it.
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
    """What the MLflow service must remember of a run to keep its limits."""

    metrics: set[str] = field(default_factory=set)
    params: set[str] = field(default_factory=set)
    tags: set[str] = field(default_factory=set)
    # By metric, where the emulator keeps the points.
    series: dict[str, Series] = field(default_factory=dict)
    # The real server took a write, so that it is there and not deleted.
    is_active: bool = False
    # New values of tags, which came with such points: the real server gets them before it is asked anything.
    waiting: dict[str, str] = field(default_factory=dict)
    # (when, the values of its tags from then on), for searches that are behind.
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
    # By run and path: datastore and blob of those that were registered by reference.
    artifact_places: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    flushing: asyncio.Lock = field(default_factory=asyncio.Lock)
    # False: listSecrets is answered with 403.
    secrets: bool = True
    # A metric row sent twice is "kept" (recorded rows have ids of the service), or "dropped" as in MLflow.
    metric_rows: str = "kept"
    # What a PUT does that changes the path or a property of a version: "refused", "ignored" or "accepted".
    changed_properties: str = "refused"
    # Who keeps the points of runs: the real server ("mlflow"), or the emulator in its "memory".
    metric_store: str = "mlflow"
    # False: NaN and infinities are answered with 400.
    accepts_nan: bool = True
    # From this max_results on, the history of a metric is answered with 400; 0 for no limit.
    metric_history_limit: int = 1000
    # How the artifact service signs: "user-delegation", or "key" (refused by an account without shared keys).
    artifact_sas: str = "user-delegation"
    artifact_sas_seconds: int = 24 * 3600
    # Where the SAS lead, instead of to the account: a server that only takes the time of an upload.
    artifact_endpoint: str = ""
    # What becomes of a jobName in a PUT of a version: "ignored", "kept" or "refused".
    job_name: str = "ignored"
    # Times of a run that are over a minute old: "taken", "ignored" (the service's clock counts) or "refused".
    past_times: str = "ignored"
    # Artifacts that stand for a blob of a datastore are "taken", or answered with this status.
    artifact_references: str = "taken"
    # The status of a PUT that would change what is immutable in a version.
    immutable_status: int = 409
    # How many versions a page has unless $top says so.
    page_size: int = 30
    # Searches of runs, and lists of models and versions, show what was there so many seconds ago. No test
    # takes as long as this: what it sees does not depend on how fast it is.
    list_lag: float = 600
    # They are not behind this moment, in seconds since the epoch: see client.Azure.settle.
    settled: float = 0
    # A version is found by its number only so many seconds after it was made.
    read_lag: float = 0
    # False: the versions of a model that is not there are an empty list, not 404.
    lists_missing: bool = True
    # True: an experiment that exists is refused in ARM's words with 409, not in MLflow's.
    plain_conflict: bool = False

    @property
    def listed_until(self) -> float:
        """What was written after this moment, in seconds since the epoch, no search and no list shows yet."""
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
    """One customer, and all that is his."""

    name: str
    tenant: str
    other_tenant: str
    workspace: Workspace
    identities: list[Identity] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    # How long a token lives, in seconds, by audience ("arm", "storage").
    token_seconds: dict[str, int] = field(
        default_factory=lambda: {"arm": 3600, "storage": 3600, "registry": 3600}
    )
    # Entra's clock is off by so many seconds.
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
    # Not 0: the proxy answers CONNECT with this status, as a proxy that does not let one out.
    proxy_status: int = 0

    def identity(self, object_id: str) -> Identity | None:
        """The identity with that object id."""
        return next((one for one in self.identities if one.object_id == object_id), None)


def new_scope(name: str) -> Scope:
    """A scope with fresh identifiers and nothing else."""
    return Scope(
        name,
        tenant=str(uuid.uuid4()),
        other_tenant=str(uuid.uuid4()),
        workspace=Workspace(str(uuid.uuid4()), f"rg-{name}", f"mlw-{name}"),
    )


def new_identity(name: str) -> Identity:
    """An identity for a service account of that name in the cluster."""
    return Identity(str(uuid.uuid4()), str(uuid.uuid4()), f"system:serviceaccount:osmo:{name}")
