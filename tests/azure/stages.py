"""The stages of a mirror into Azure ML, each defined by its requests."""

from __future__ import annotations

import re
from typing import Any

# The first match counts: METHOD https://host/path?query.
STAGES = {
    "cloud metadata": r"/metadata/endpoints",
    "token": r"/oauth2/",
    "workspace": r"GET https://management[^?]*/workspaces/[^/?]+\?",
    "datastore": r"GET https://management.*/datastores",
    "source listing": r"GET https://[^?]*/runs\?.*comp=list",
    "source bytes": r"(GET|HEAD) https://[^?/]*/runs/runs/",
    "experiment": r"/mlflow/experiments/",
    "claim": r"/claims/",
    "number lease": r"/aml-mirror/numbers/",
    "run search": r"/runs/search",
    "run": r"/runs/create",
    "log-batch": r"/runs/log-batch",
    "number": r"/runs/set-tag",
    "finish": r"/runs/update",
    "checkpoint listing": r"GET .*comp=list",
    "own files": r"PUT https://[^?]*/aml-mirror/[^?]*/mirror/",
    "checkpoint": r"PUT https://[^?]*/aml-mirror/(?!claims/|numbers/|[^?]*/mirror/)",
    "artifact path": r"/artifacts/(register|batch/metadata)",
    "artifact bytes": r"https://[^?]*/dcid\.",
    "version look": r"GET https://management.*/versions",
    "version": r"PUT https://management.*/versions/",
}


def stage_of(request: dict[str, Any]) -> str:
    """The stage of a request in the emulator's log."""
    text = f"{request['method']} https://{request['host']}{request['path']}"
    return next((name for name, match in STAGES.items() if re.search(match, text)), text[:80])
