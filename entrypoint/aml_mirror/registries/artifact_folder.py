"""Lists a folder of an artifact store, in the same way for every kind of store."""

from __future__ import annotations

import posixpath
from typing import Any


def entries_of(repository: Any, folder: str | None = None) -> list[Any]:
    """Return what is directly in a folder of MLflow's repository; nothing if there is no such folder.

    Most stores have no folders, so the list of a new one is empty. Azure's Data Lake endpoint (``abfss://``)
    has folders, and answers 404 for one that does not exist (Learn, "Path - List"). MLflow's repository
    passes that on. A file system that does not exist has another error code.

    Raises:
        Exception: the errors of the store's client.
    """
    try:
        return list(repository.list_artifacts(folder))
    except Exception as error:
        if not _is_no_folder(error):
            raise
        return []


def ask_for(repository: Any, folder: str) -> None:
    """Send one request for a folder that may not exist, to find out whether the store can be used.

    Azure's clients repeat it for more than a minute, even if there is no login. Here they do not.

    Raises:
        Exception: the errors of the store's client.
    """
    kind = type(repository).__name__
    if kind == "AzureBlobArtifactRepository":
        container, _, root, _ = repository.parse_wasbs_uri(repository.artifact_uri)
        blobs = repository.client.get_container_client(container)
        next(iter(blobs.list_blobs(name_starts_with=posixpath.join(root, folder, ""), retry_total=0)), None)
    elif kind == "AzureDataLakeArtifactRepository":
        _ask_data_lake(repository, posixpath.join(repository.base_data_lake_directory, folder))
    else:
        entries_of(repository, folder)


def _ask_data_lake(repository: Any, path: str) -> None:
    from azure.storage.filedatalake import FileSystemClient

    # A client of its own: a list of paths cannot be told how often to repeat a request.
    url = f"https://{repository.account_name}.{repository.domain_suffix}{repository.sas_token}"
    with FileSystemClient(
        url, repository.container, credential=repository.credential, retry_total=0
    ) as client:
        try:
            next(iter(client.get_paths(path=path, recursive=False)), None)
        except Exception as error:
            if not _is_no_folder(error):
                raise


def _is_no_folder(error: BaseException) -> bool:
    if not type(error).__module__.startswith("azure."):
        return False
    # Imported late: an MLflow server seldom stores its files there.
    from aml_mirror.storage.azure_errors import code_of

    return code_of(error) == "PathNotFound"
