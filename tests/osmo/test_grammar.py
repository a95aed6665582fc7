"""The grammar that judges the workflows, and checks that it does not accept everything."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import osmo_grammar as grammar

WORKFLOWS = Path(__file__).parents[2] / "workflows"

# The grammar must refuse what OSMO would refuse. Each change makes a valid workflow invalid.
TASK = {"name": "t", "image": "i", "command": ["c"]}
GOOD: dict[str, Any] = {"workflow": {"name": "w", "tasks": [TASK]}}


def changed(*steps: tuple[Any, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        place: Any = document["workflow"]
        (path,) = steps
        for step in path[:-1]:
            place = place[step]
        if value is ...:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return change


def task(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return changed(("tasks", 0, key), value=value)


def workflow(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return changed((key,), value=value)


BAD = {
    "unknown key of a task": task("restartPolicy", "Never"),
    "unknown key of the workflow": workflow("steps", []),
    "no name": workflow("name", ...),
    "no task": workflow("tasks", []),
    "tasks and groups": workflow("groups", [{"name": "g", "tasks": [{**TASK, "name": "u"}]}]),
    "no command": task("command", ...),
    "empty command": task("command", []),
    "command that is text": task("command", "aml-mirror mirror"),
    "no image": task("image", ...),
    "empty image": task("image", ""),
    "name with a dot": task("name", "replay.v1"),
    "name that begins with a digit": workflow("name", "1-replay"),
    "name that ends with a dash": workflow("name", "replay-"),
    "name that is too long": workflow("name", "a" * 65),
    "the same name twice but for case": workflow("tasks", [TASK, {**TASK, "name": "T"}]),
    "the same name twice but for a dash": workflow(
        "tasks", [{**TASK, "name": "a-b"}, {**TASK, "name": "a_b"}]
    ),
    "a task named like another's group": workflow("tasks", [TASK, {**TASK, "name": "t-group"}]),
    "osmo-ctrl": task("name", "osmo_ctrl"),
    "null in the environment": task("environment", {"A": None}),
    "a list in the environment": task("environment", {"A": []}),
    "an argument that is a map": task("args", [{"a": 1}]),
    "an argument that is true": task("args", [True]),
    "blanks in exitActions": task("exitActions", {"RESCHEDULE": "75, 255"}),
    "an exit action that is none": task("exitActions", {"RETRY": "75"}),
    "exit codes that are words": task("exitActions", {"FAIL": "all"}),
    "an input by https": task("inputs", [{"url": "https://acct.blob.core.windows.net/c/p"}]),
    "an input by abfss": task("inputs", [{"url": "abfss://c@acct.dfs.core.windows.net/p"}]),
    "an input without a URL": task("inputs", [{"url": ""}]),
    "an input that is a path": task("inputs", [{"url": "/mnt/outputs"}]),
    "azure without a container": task("inputs", [{"url": "azure://acct"}]),
    "an input from a task that is not there": task("inputs", [{"task": "nowhere"}]),
    "an input of its own": task("inputs", [{"task": "t"}]),
    "an input that is two things": task("inputs", [{"task": "w-1:t", "url": "s3://b"}]),
    "an input with a broken regex": task("inputs", [{"url": "s3://b", "regex": "("}]),
    "an output that is a task": task("outputs", [{"task": "t"}]),
    "an output by https": task("outputs", [{"url": "https://x"}]),
    "an output with a path": task("outputs", [{"url": "azure://a/b", "path": "x"}]),
    "a checkpoint without a frequency": task("checkpoint", [{"path": "/x", "url": "s3://b"}]),
    "a checkpoint by https": task("checkpoint", [{"path": "/x", "url": "https://b", "frequency": "5m"}]),
    "a timeout in words": workflow("timeout", {"exec_timeout": "6hours"}),
    "a timeout with a fraction": workflow("timeout", {"exec_timeout": "1.5h"}),
    "a timeout of another name": workflow("timeout", {"exec": "6h"}),
    "a timeout that is text": workflow("timeout", "6h"),
    "memory in words": workflow("resources", {"default": {"memory": "much"}}),
    "memory in a unit that is none": workflow("resources", {"default": {"memory": "4Qi"}}),
    "a fraction of a cpu": workflow("resources", {"default": {"cpu": 0.5}}),
    "cpu in millis": workflow("resources", {"default": {"cpu": "500m"}}),
    "limits of Kubernetes": workflow("resources", {"default": {"limits": {"cpu": 1}}}),
    "a topology without a key": workflow("resources", {"default": {"topology": [{"group": "a"}]}}),
    "a topology of another kind": workflow(
        "resources", {"default": {"topology": [{"key": "rack", "requirementType": "wished"}]}}
    ),
    "nodesExcluded that is text": workflow("resources", {"default": {"nodesExcluded": "n1"}}),
    "a resource that is not there": task("resource", "big"),
    "no default resource": workflow("resources", {"big": {"cpu": 1}}),
    "a file below /osmo": task("files", [{"path": "/osmo/x", "contents": ""}]),
    "a file without contents": task("files", [{"path": "/x"}]),
    "two files at one path": task(
        "files", [{"path": "/x", "contents": "a"}, {"path": "/x", "contents": "b"}]
    ),
    "a file of another kind": task("files", [{"path": "/x", "contents": "a", "mode": 7}]),
    "a mount without a target": task("volumeMounts", ["/mnt:"]),
    "a mount with three parts": task("volumeMounts", ["/a:/b:ro"]),
    "a credential that is a list": task("credentials", {"c": ["a"]}),
    "a credential without a key": task("credentials", {"c": {"ENV": None}}),
    "kpis without a path": task("kpis", [{"index": "a"}]),
    "another downloadType": task("downloadType", "mount"),
    "privileged in words": task("privileged", "sure"),
    "a lead that is text": task("lead", "me"),
    "two leaders": workflow("tasks", ...),
    "labels that are a list": workflow("labels", ["a"]),
}


@pytest.mark.parametrize("version", grammar.VERSIONS)
@pytest.mark.parametrize("what", BAD)
def test_what_osmo_refuses_is_refused(what: str, version: str) -> None:
    document = copy.deepcopy(GOOD)
    grammar.check(document, version)
    BAD[what](document)
    if what == "two leaders":
        two = [{**TASK, "lead": True}, {**TASK, "name": "u", "lead": True}]
        document["workflow"]["groups"] = [{"name": "g", "tasks": two}]
    with pytest.raises(grammar.Refused):
        grammar.check(document, version)


GOOD_CHANGES = {
    "every field of a task": {
        "inputs": [{"task": "w-1:t", "regex": ".*"}, {"url": "azure://acct/c/p"}],
        "outputs": [{"url": "s3://bucket"}, {"url": "azure://acct/c/{{workflow_id}}", "regex": "x"}],
        "environment": {"A": True, "B": 3, "C": "x"},
        "files": [{"path": "/tmp/a", "contents": "x", "base64": False}],
        "credentials": {"c": "/mnt/c", "d": {"ENV": "key"}},
        "exitActions": {"complete": "0,3-5", "RESCHEDULE": 75},
        "lead": True,
        "privileged": False,
        "hostNetwork": False,
        "volumeMounts": ["/mnt", "/a:/b"],
        "kpis": [{"index": "success", "path": "kpi.json"}],
        "checkpoint": [{"path": "/x", "url": "gs://b", "frequency": "30m", "regex": ""}],
        "downloadType": "download",
        "cacheSize": "5Gi",
        "args": ["a", 3, 1.5],
    },
}


@pytest.mark.parametrize("version", grammar.VERSIONS)
def test_what_osmo_takes_is_taken(version: str) -> None:
    document = copy.deepcopy(GOOD)
    document["workflow"]["tasks"][0].update(GOOD_CHANGES["every field of a task"])
    document["workflow"].update(
        pool="p",
        backend="b",
        timeout={"exec_timeout": "90m", "queue_timeout": 3600},
        resources={
            "default": {
                "cpu": "2", "gpu": 0, "memory": "4Gi", "storage": 10, "platform": "x",
                "nodesExcluded": ["n"], "topology": [{"key": "rack", "requirementType": "required"}],
            }
        },
    )  # fmt: skip
    grammar.check(document, version)
    grammar.check(
        {"workflow": {"name": "w", "groups": [{"name": "g", "barrier": True, "ignoreNonleadStatus": False,
                                               "tasks": [TASK, {**TASK, "name": "u", "lead": True}]}]}},
        version,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "versions"),
    [
        (workflow("labels", {"team": "arms"}), ("6.4",)),
        (task("outputs", [{"dataset": {"name": "runs"}}]), ("6.2", "6.3")),
        (task("outputs", [{"update_dataset": {"name": "runs", "paths": ["a"]}}]), ("6.2", "6.3")),
        (task("inputs", [{"dataset": {"name": "runs"}}]), ("6.2", "6.3")),
        (workflow("timeout", {"exec_timeout": "PT1H"}), ("6.3", "6.4")),
    ],
)
def test_what_only_some_versions_take(
    change: Callable[[dict[str, Any]], None], versions: tuple[str, ...]
) -> None:
    for version in grammar.VERSIONS:
        document = copy.deepcopy(GOOD)
        change(document)
        if version in versions:
            grammar.check(document, version)
        else:
            with pytest.raises(grammar.Refused):
                grammar.check(document, version)


PLAIN = "workflow:\n  name: w\n  tasks:\n    - {name: t, image: i, command: [c]}\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (PLAIN.replace("[c]", '["{{ output }}"]'), "'output' is undefined"),
        (PLAIN.replace("[c]", '["{{ workflow_id }}"]'), "'workflow_id' is undefined"),
        (PLAIN.replace("[c]", '["{{ model }}"]'), "'model' is undefined"),
        (PLAIN.replace("[c]", '["{{ model"]'), "Jinja Template Error"),
        (PLAIN.replace("[c]", "[\"{% for a in b %}\"]"), "Jinja Template Error"),
        (PLAIN + "notes: x\n", 'Unknown top-level key "notes"'),
        (PLAIN + PLAIN, 'Duplicate top-level key "workflow"'),
        ("default-values:\n  a: 1\n", "Workflow spec not found"),
        ("".join(f"  {line}\n" for line in PLAIN.splitlines()), "Workflow spec not found"),
    ],
)  # fmt: skip
def test_what_osmo_does_not_render(text: str, why: str) -> None:
    with pytest.raises(grammar.Refused, match=re.escape(why)):
        grammar.render(text)


def test_a_value_with_braces_is_rendered_once_more() -> None:
    """Why replay.py refuses such values: OSMO renders a submitted workflow a second time."""
    with pytest.raises(grammar.Refused):
        text = (WORKFLOWS / "replay-azureml.yaml").read_text(encoding="utf-8")
        grammar.submitted(text, [], ["run_id=train-7", "model_name={{ x }}"])


def test_set_makes_numbers() -> None:
    text = PLAIN.replace("[c]", "['{{ a }}']") + "default-values: {a: x}\n"
    assert "'7'" in grammar.render(text, ["a=007"])
    assert "'007'" in grammar.render(text, [], ["a=007"])
    assert "'x'" in grammar.render(text)
    assert "{{workflow_id}}" in grammar.render(text.replace("{{ a }}", "{{workflow_id}}"))
