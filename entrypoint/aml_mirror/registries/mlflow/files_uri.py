"""Converts an artifact URI to a form that other programs accept."""

from __future__ import annotations

from urllib.parse import urlsplit

from aml_mirror.support import redaction

# The schemes that OSMO's `inputs: - url:` accepts unchanged.
_PLAIN = ("s3", "gs", "swift", "tos")


def files_uri(uri: str) -> str:
    """Return an address in object storage: ``azure://ACCOUNT/CONTAINER/PATH``, ``s3://…``, ``gs://…``.

    Empty if the files are not in object storage: a path, or a server that serves the files itself.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        return ""
    host = parts.hostname or ""
    if parts.scheme in _PLAIN and host:
        return redaction.text(f"{parts.scheme}://{host}{parts.path}".rstrip("/"))
    if parts.scheme in ("wasb", "wasbs", "abfs", "abfss") and parts.username:
        return f"azure://{host.partition('.')[0]}/{parts.username}{parts.path}".rstrip("/")
    return ""
