"""The checks of ``doctor`` for a mirror into Azure ML, in the order in which a mirror needs them.

Each check reports in one line what it found, or raises one of our errors with its fix. A check asks once and
does not wait: the first failure counts. Nothing is written. Write access to the storage is tested with a
request that cannot succeed: it replaces a blob that does not exist.

A check that cannot succeed because an earlier one failed raises the earlier failure, so that each cause is
reported once.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from azure.core.exceptions import HttpResponseError

from aml_mirror.core.errors import ConfigurationError, MirrorError, NotAllowed, ServiceUnavailable
from aml_mirror.core.settings import Settings
from aml_mirror.registries import keys
from aml_mirror.registries.azureml.coordinates import Coordinates
from aml_mirror.registries.azureml.limits import FOLDER
from aml_mirror.registries.azureml.workspace_loader import load_workspace
from aml_mirror.storage import azure_errors as azure_errors
from aml_mirror.storage.azure_cloud import resource_manager
from aml_mirror.storage.azure_login import credential, token_file
from aml_mirror.transfer.block_ids import conditions

if TYPE_CHECKING:
    from aml_mirror.registries.azureml.probe import Answer
    from aml_mirror.registries.azureml.workspace import AzureMLRegistry

Check = Callable[[Settings], str]

_CONNECT_SECONDS = 10.0
# A run that does not exist: the service's 404 shows that it answers and grants access.
_NO_RUN = "aml-mirror-doctor"
# That of azure-ai-ml 1.35.2 for workspaces, and one of Microsoft.Storage.
WORKSPACE_API = "2024-10-01-preview"
STORAGE_API = "2023-05-01"


def _variables(settings: Settings) -> str:
    shown = asdict(Coordinates.of(settings)).items()
    return ", ".join(f"{value}{settings.from_where(name)}" for name, value in shown)


def _token_file(settings: Settings) -> str:
    return token_file()


def _network(settings: Settings) -> str:
    login = os.environ.get("AZURE_AUTHORITY_HOST") or "https://login.microsoftonline.com"
    # The host that manages resources is known in every built-in cloud. For others, the cloud's metadata name
    # it.
    metadata = os.environ.get("ARM_CLOUD_METADATA_URL") or resource_manager()
    hosts = dict.fromkeys(_host_of(url if "//" in url else f"//{url}") for url in (metadata, login))
    return ", ".join(_reach(host) for host in hosts)


def _login(settings: Settings) -> str:
    _needs(_network, settings)
    return credential().identity(_workspace(settings).azure.arm_scope).text


def _found(settings: Settings) -> str:
    _needs(_login, settings)
    workspace = _workspace(settings)
    at = _reach(_host_of(workspace.azure.history_host))
    return f"{workspace.description} exists; its runs are stored at {at}"


def _quota(settings: Settings) -> str:
    _needs(_found, settings)
    azure, service = _workspace(settings).azure, _workspace(settings).service
    _, headers = azure.retry(lambda: service.get(azure.coordinates.scope, WORKSPACE_API))
    left = {
        name.rpartition("-")[2]: count
        for name, count in headers.items()
        if name.lower().startswith("x-ms-ratelimit-remaining-") and count.isdecimal()
    }
    if not left:
        return "Azure Resource Manager does not say how many requests are left"
    said = ", ".join(f"{count} {name}" for name, count in sorted(left.items()))
    return (
        f"{said} are left to this identity in this subscription. All shards of a backfill with the same "
        "identity share them. Requests above the limit get the answer 429 and are repeated"
    )


def _datastore(settings: Settings) -> str:
    _needs(_found, settings)
    azure = _workspace(settings).azure
    store = azure.datastore
    at = _reach(_host_of(store.account_url))
    name = f"{FOLDER}/probes/{uuid.uuid4()}"

    def look() -> None:
        next(iter(azure.container.list_blobs(name_starts_with=name, results_per_page=1)), None)
        try:
            azure.container.get_blob_client(name).upload_blob(b"", overwrite=True, **conditions("0x0"))
        except HttpResponseError as error:
            # Missing write access is reported before the condition is checked.
            if azure_errors.status_of(error) != 412:
                raise

    try:
        azure.retry(look)
    except NotAllowed as failure:
        raise NotAllowed(
            f"the datastore {store.name} cannot be written: {failure.message}", failure.hint
        ) from failure
    return f"{store.name}: container {store.container} of {at}; it can be read, and this identity may write"


def _artifacts(settings: Settings) -> str:
    _needs(_found, settings)
    azure = _workspace(settings).azure
    # Imported late, like everything that loads Azure's clients.
    from aml_mirror.registries.azureml.artifact_service import Refused
    from aml_mirror.registries.azureml.run_artifacts import RunArtifacts

    service = RunArtifacts(azure, "", "00000000-0000-0000-0000-000000000000", _NO_RUN)
    try:
        service.look()
    except Refused as refused:
        raise NotAllowed(
            f"the artifact service refuses access: {refused.why}",
            "a mirror still works: it stores event files, manifest and receipt in the datastore; grant "
            "'AzureML Data Scientist' on the workspace to have them with the run",
        ) from refused
    return f"answers; {_artifacts_predicted(settings)}"


def _artifacts_predicted(settings: Settings) -> str:
    """Explain what the settings of workspace and account mean for files that a run shows."""
    azure, service = _workspace(settings).azure, _workspace(settings).service
    found, _ = azure.retry(lambda: service.get(azure.coordinates.scope, WORKSPACE_API))
    properties = found.get("properties") or {}
    mode = str(properties.get("systemDatastoresAuthMode") or "").lower()
    shared_keys = _shared_keys(settings, str(properties.get("storageAccount") or ""))
    plain = "files registered by reference need no SAS"
    if not mode:
        return f"it is not known how the workspace signs SAS; {plain}"
    how = f"systemDatastoresAuthMode is {mode}"
    if mode != "accesskey":
        return f"{how}, so SAS are signed without the account's key; {plain}"
    if shared_keys is False:
        return (
            f"{how}, and the account forbids shared keys: every SAS will be refused "
            f"(KeyBasedAuthenticationNotPermitted); {plain}; if that is refused too, a mirror stores them in "
            "the datastore"
        )
    if shared_keys is None:
        return (
            f"{how}, and SAS are refused if the account forbids shared keys, which this identity cannot "
            f"check; {plain}"
        )
    return f"{how}, and the account allows shared keys: SAS work; {plain}"


def _shared_keys(settings: Settings, account: str) -> bool | None:
    """Tell whether a storage account allows shared keys; None if this identity may not read that."""
    azure, service = _workspace(settings).azure, _workspace(settings).service
    if not account:
        return None
    try:
        found, _ = azure.retry(lambda: service.get(account, STORAGE_API))
    except MirrorError:
        return None
    # Learn, "Prevent Shared Key authorization": if it is not set, it is allowed.
    return (found.get("properties") or {}).get("allowSharedKeyAccess") is not False


def _mlflow(settings: Settings) -> str:
    _needs(_found, settings)
    workspace = _workspace(settings)
    experiment = settings.experiment or settings.model_name or _NO_RUN
    found = workspace.find_experiment(experiment)
    return f"answers; the experiment {experiment} {'is there' if found else 'will be created'}"


def _registry(settings: Settings) -> str:
    _needs(_found, settings)
    workspace = _workspace(settings)
    model = settings.model_name or _NO_RUN
    run_id = settings.run_id
    found = workspace.models.of_run(model, run_id or _NO_RUN)
    if not run_id:
        return "can be read"
    complete = sum(1 for item in found if item.tags.get(keys.STATE) == keys.COMPLETE)
    return f"can be read; {complete} complete version(s) of the run {run_id} in {model}"


def _needs(check: Check, settings: Settings) -> str:
    """Return a check's result, or raise its failure. It runs once, even if several checks need it."""
    key = (check, settings.azure_coordinates)
    if key not in _results:
        try:
            _results[key] = check(settings)
        except MirrorError as failure:
            _results[key] = failure
    found = _results[key]
    if isinstance(found, MirrorError):
        raise found
    return found


_results: dict[tuple[Check, tuple[str, str, str]], str | MirrorError] = {}


CHECKS: tuple[tuple[str, Check], ...] = tuple(
    (name, partial(_needs, check))
    for name, check in (
        ("Azure ML variables", _variables),
        ("federated token file", _token_file),
        ("network", _network),
        ("login", _login),
        ("workspace", _found),
        ("request quota", _quota),
        ("datastore", _datastore),
        ("artifact service", _artifacts),
        ("MLflow endpoint", _mlflow),
        ("model registry", _registry),
    )
)


def probe(settings: Settings) -> Iterator[Answer]:
    """Try what only a real workspace can tell, and report the result."""
    # Imported late: it loads all clients at once.
    from aml_mirror.registries.azureml.probe import Probe

    return Probe(_workspace(settings)).answers()


def _workspace(settings: Settings) -> AzureMLRegistry:
    """The workspace, opened once for all checks. If that fails, the next check tries again."""
    key = settings.azure_coordinates
    if key not in _opened:
        # The first failure counts: doctor does not wait.
        _opened[key] = load_workspace(replace(settings, retry_seconds=0.0), lambda text: None)
    return _opened[key]


_opened: dict[tuple[str, str, str], AzureMLRegistry] = {}


def _host_of(url: str) -> str:
    return urlsplit(url).netloc


def _reach(host: str) -> str:
    """Describe the way to a host: tell apart its name, the proxy, its certificate and the connection.

    Raises:
        ConfigurationError: its certificate is not trusted.
        ServiceUnavailable: its name is not known here, or nothing answers.
    """
    url = f"https://{host}/"
    name, _, port = host.partition(":")
    proxies = requests.utils.get_environ_proxies(url)
    through = proxies.get("https") or proxies.get("all")
    how = f"through the proxy {urlsplit(through).hostname}" if through else ""
    if not through:
        try:
            found = socket.getaddrinfo(name, int(port or 443), type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise ServiceUnavailable(
                f"the name {name} cannot be resolved here",
                "behind a private endpoint, link its private DNS zone to this network; else check the names "
                "and the cluster's DNS",
            ) from error
        address = str(found[0][4][0])
        private = ipaddress.ip_address(address.partition("%")[0]).is_private
        how = f"{address}, {'a private address' if private else 'a public address'}"
    try:
        # Any answer is enough: only the name, the connection and the certificate are tested.
        requests.head(url, timeout=_CONNECT_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        failure: MirrorError = azure_errors.translate(error, f"{name} ({how})")
        if not isinstance(failure, (ConfigurationError, ServiceUnavailable)):
            failure = ServiceUnavailable(failure.message, failure.hint)
        raise failure from error
    return f"{name} ({how})"
