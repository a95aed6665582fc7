"""Lists a folder of an artifact store, in the same way for every kind of store."""

from __future__ import annotations

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
        if not type(error).__module__.startswith("azure."):
            raise
        # Imported late: an MLflow server seldom stores its files there.
        from aml_mirror.storage.azure_errors import code_of

        if code_of(error) != "PathNotFound":
            raise
        return []
