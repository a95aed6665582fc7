"""The names, lengths and counts that Azure ML accepts. They are checked here, so nothing is refused half-way.

Sources: "Service limits in Azure Machine Learning" (Learn, resource-limits-capacity, of February 2025) for
runs, metrics, tags and files; azure-sdk-for-python#35685 for the 200 parameters, which that page does not
mention; the service's own message for experiment names (microsoft/dstoolkit-mlops-v2#180); the pattern in the
REST client of azure-ai-ml for model names; azureml-assets#558 for the length of a description.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from aml_mirror.core.errors import UsageError
from aml_mirror.registries import keys
from aml_mirror.registries.azureml.metric_partitions import PARTITIONS
from aml_mirror.registries.records import Limits
from aml_mirror.registries.search_filters import quotable, quoted

LIMITS = Limits(
    batch=200,
    series=50,
    params=200,
    params_in_batch=100,
    # Not documented. If the service finds a value too long, it is cut to LEAST_PARAM_VALUE and sent again.
    param_value=1000,
    tags=50,
    tag_value=1000,
    files=1500,
)
FOLDER = "aml-mirror"  # In the default datastore. The program writes only below this folder.
# The limit of early MLflow releases, so every server accepts it.
LEAST_PARAM_VALUE = 250
TAG_NAME = 100
DESCRIPTION = 5000
# MLflow and Azure ML write their own tags (mlflow.user, mlflow.rootRunId, …), and this program writes the
# state of a run. A person's tags must leave room for them.
TAGS_OF_OTHERS = 14
PERSONS_TAGS = LIMITS.tags - len(keys.RESERVED) - (PARTITIONS - 1) - TAGS_OF_OTHERS if LIMITS.tags else 0

_MODEL = re.compile(r"(?![-_.])[a-zA-Z0-9\-_.]{1,255}(?<!\.)")
_EXPERIMENT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,255}")
_MAX_PART = 60  # The number of characters of a name that stay readable in a path.


def check_names(model: str, experiment: str) -> None:
    """Check everything that Azure ML would refuse, before anything is sent.

    Raises:
        UsageError: with the rule.
    """
    if not _MODEL.fullmatch(model):
        raise UsageError(
            f"{model!r} cannot be the name of an Azure ML model: it has to have 1 to 255 letters, digits, "
            "'-', '_' and '.', beginning with a letter or digit and not ending with '.'",
            "pass another with --model-name",
        )
    if not _EXPERIMENT.fullmatch(experiment):
        raise UsageError(
            f"{experiment!r} cannot be the name of an Azure ML experiment: it has to have 1 to 256 letters, "
            "digits, '-' and '_', beginning with a letter or digit",
            "pass another with --experiment",
        )


def fit_tags(tags: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Reduce tags to what a run accepts.

    Returns:
        The tags, with long values cut and marked, and a sentence for each tag that was cut or left out.
    """
    kept: dict[str, str] = {}
    told: list[str] = []
    persons = 0
    for name, value in tags.items():
        if name not in keys.RESERVED:
            persons += 1
            if persons > PERSONS_TAGS:
                told.append(f"the tag {name} was left out: a run can have {PERSONS_TAGS} tags of your own")
                continue
            if len(name) > TAG_NAME:
                told.append(f"the tag {name[:40]}… was left out: its name has over {TAG_NAME} characters")
                continue
        kept[name] = cut(value, LIMITS.tag_value)
        if kept[name] != value:
            told.append(f"the tag {name} was cut from {len(value)} to {LIMITS.tag_value} characters")
    return kept, told


def cut(text: str, length: int, note: str = "cut") -> str:
    """Return at most ``length`` characters of a text, with a mark that says that it was cut."""
    if len(text) <= length:
        return text
    mark = f"… ({note}: {len(text)} characters)"
    return text[: length - len(mark)] + mark


def tag_filter(key: str, value: str) -> str:
    """Return the search expression for a tag's value; empty if no search can express it.

    It has no backticks around a key, although MLflow allows them. Azure ML parses the language itself, and
    documents dotted keys without them (Learn, "Query and compare experiments and runs").
    """
    return f"tags.{key} = {quoted(value)}" if quotable(value) else ""


def safe_part(text: str) -> str:
    """Return a text as one part of a path: readable, and different for different texts."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._")[:_MAX_PART]
    if cleaned == text:
        return cleaned
    return f"{cleaned}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".lstrip("-")
