"""The workflows as OSMO renders and judges them, and that this judge is none that lets everything pass."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import osmo_grammar as grammar
from aml_mirror.cli.arguments import parser, with_default_command
from aml_mirror.core.settings import resolve

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.yaml"))
NAMES = [path.name for path in WORKFLOWS]
# Values that people pass, and what YAML and Jinja could make of them.
ODD = 'it\'s "q": {a: [1]}, # no\\comment & *x <y> %'


def text_of(name: str) -> str:
    return (ROOT / "workflows" / name).read_text(encoding="utf-8")


def defaults(name: str) -> dict[str, Any]:
    return yaml.safe_load(text_of(name).partition("\ndefault-values:")[2])


# What has no default, and so is refused by OSMO where it is forgotten.
REQUIRED = {
    "replay-azureml.yaml": {"run_id": "groot-train-17"},
    "backfill-azureml.yaml": {"source": "azure://acct/runs"},
    "train-and-mirror.yaml": {"outputs": "azure://acct/runs"},
}


def submitted(name: str, *strings: str, numbers: tuple[str, ...] = ()) -> Any:
    """What OSMO gets to see of a workflow; what is required is given unless ``strings`` gives it."""
    required = [f"{key}={value}" for key, value in REQUIRED[name].items()]
    return grammar.submitted(text_of(name), numbers, [*required, *strings])


def tasks_of(name: str, *strings: str) -> dict[str, dict[str, Any]]:
    document = submitted(name, *strings)
    return {task["name"]: task for task in document["workflow"]["tasks"]}


def flags_of(task: dict[str, Any]) -> dict[str, str]:
    """Flag -> value of a task's arguments."""
    return dict(argument.partition("=")[::2] for argument in task["args"][1:])


def test_there_are_workflows() -> None:
    assert NAMES == ["backfill-azureml.yaml", "replay-azureml.yaml", "train-and-mirror.yaml"]


@pytest.mark.parametrize("version", grammar.VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_every_version_takes_every_workflow(name: str, version: str) -> None:
    grammar.check(submitted(name), version)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_required_is_asked_for(name: str) -> None:
    (required,) = REQUIRED[name]
    with pytest.raises(grammar.Refused, match=f"'{required}' is undefined"):
        grammar.submitted(text_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_default_can_be_overridden_by_a_string(name: str) -> None:
    """And every one that is text by any text."""
    given = defaults(name)
    assert None not in given.values(), "a null would be rendered as None"
    for key, value in given.items():
        new = {"exec_timeout": "5d", "memory": "3Gi", "storage": "9Gi"}.get(key)
        new = new or ("007" if isinstance(value, int) else ODD)
        if key == "flags":
            new = "--tag a=b"
        document = submitted(name, f"{key}={new}")
        grammar.check(document, "6.3")
        before = submitted(name)
        assert document != before, f"{key} changes nothing"
        if not isinstance(value, int):
            words = [part for part in _strings(document) if new in part]
            assert words or key == "flags", f"{key} did not arrive whole: {document}"


@pytest.mark.parametrize("name", NAMES)
def test_a_numeric_id_stays_text(name: str) -> None:
    """``--set`` makes numbers of digits, which YAML would read as others again."""
    for task in tasks_of(name, "run_id=0017", "model_name=1e3", "checkpoint=0200").values():
        if task["command"] == ["aml-mirror"]:
            assert flags_of(task)["--model-name"] == "1e3"
            if name == "replay-azureml.yaml":
                assert task["environment"]["REPLAY_RUN_ID"] == "0017"
                assert task["environment"]["RUN_ID"] == "0017-replay"
                assert flags_of(task)["--checkpoint"] == "0200"
    grammar.check(submitted(name, numbers=("run_id=17", "model_name=5", "checkpoint=200")), "6.2")


@pytest.mark.parametrize("name", NAMES)
def test_what_every_mirroring_task_keeps_to(name: str) -> None:
    document = submitted(name)
    mirroring = [task for task in document["workflow"]["tasks"] if task["command"] == ["aml-mirror"]]
    assert mirroring
    for task in mirroring:
        assert "inputs" not in task
        assert "outputs" not in task
        assert "{{output}}" not in str(task)
        assert task["exitActions"] == {"RESCHEDULE": "75,255"}
        # A variable that is set to nothing would be one that shadows the pod template's, were it not for the
        # order in which OSMO merges; and coordinates come from the template alone.
        assert all(task.get("environment", {"": "x"}).values())
        assert not {key for key in task.get("environment", {}) if key.startswith(("AZURE", "MLFLOW"))}
        resource = document["workflow"]["resources"][task.get("resource", "default")]
        assert not resource.get("gpu")
        assert set(resource) == {"cpu", "memory", "storage"}, "no platform unless one is asked for"


@pytest.mark.parametrize("name", NAMES)
def test_the_program_takes_the_arguments(name: str, tmp_path: Path) -> None:
    """Also with nothing set, since an empty flag counts as unset."""
    strings = ["source=azure://acct/runs/x", "flags=--tag site=lab --debug", "shards=3", "wait_for=3d"]
    for given in ([], strings):
        for task in tasks_of(name, *given).values():
            if task["command"] != ["aml-mirror"]:
                continue
            flags = parser().parse_args(with_default_command(task["args"]))
            settings = resolve(flags, {}, tmp_path)
            if given and "site" in settings.tags:
                assert settings.tags == {"site": "lab"}
                assert settings.source == "azure://acct/runs/x"
            if not given and name == "replay-azureml.yaml":
                assert (settings.source, settings.model_name, settings.task) == ("", "", "")
                assert task["environment"]["OUTPUT_BASE"] == "/mnt/outputs"
                assert settings.wait_seconds == 0


@pytest.mark.parametrize("action", ["mirror", "plan", "doctor"])
def test_other_commands_take_the_same_arguments(action: str) -> None:
    (task,) = tasks_of("replay-azureml.yaml", f"action={action}").values()
    assert parser().parse_args(with_default_command(task["args"])).command == action


def test_a_platform_is_passed_where_it_is_given() -> None:
    document = submitted("replay-azureml.yaml", "platform=cpu-nodes")
    assert document["workflow"]["resources"]["default"]["platform"] == "cpu-nodes"


@pytest.mark.parametrize("shards", [1, 2, 7, 20, 50])
def test_the_backlog_is_spread(shards: int) -> None:
    """A task, and so a group, a shard; each knows its number and how many there are."""
    document = submitted("backfill-azureml.yaml", f"shards={shards}", "source=azure://a/b")
    tasks = {task["name"]: flags_of(task) for task in document["workflow"]["tasks"]}
    assert [flags["--shard"] for flags in tasks.values()] == [f"{n}/{shards}" for n in range(shards)]
    assert {flags["--source"] for flags in tasks.values()} == {"azure://a/b"}
    grammar.check(document, "6.3", max_tasks=50)
    if shards > 20:
        with pytest.raises(grammar.Refused, match="more than 20 tasks"):
            grammar.check(document, "6.3")


@pytest.mark.parametrize("shards", ["0", "-1", "many"])
def test_no_shards_are_refused(shards: str) -> None:
    document = submitted("backfill-azureml.yaml", f"shards={shards}")
    with pytest.raises(grammar.Refused):
        grammar.check(document, "6.3")


def test_the_mirror_beside_a_training_is_a_group_of_its_own() -> None:
    document = submitted("train-and-mirror.yaml", "exec_timeout=30h")
    train, mirror = document["workflow"]["tasks"]
    assert "groups" not in document["workflow"], "bare tasks are a group each"
    assert train["outputs"] == [{"url": "azure://acct/runs/{{workflow_id}}"}]
    assert flags_of(mirror)["--run-id"] == "{{workflow_id}}"
    assert flags_of(mirror)["--task"] == train["name"]
    assert flags_of(mirror)["--wait-for"] == "30h"


@pytest.mark.parametrize("name", NAMES)
def test_one_image_line_for_the_release_to_write(name: str) -> None:
    lines = [line for line in text_of(name).splitlines() if re.fullmatch(r"  image: \S+", line)]
    assert len(lines) == 1
    assert re.fullmatch(r"  image: \S+/aml-mirror@sha256:[0-9a-f]{64}", lines[0]), lines[0]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_rendered_is_tidy_yaml(name: str, tmp_path: Path) -> None:
    """The templates are no YAML for a linter; what OSMO makes of them is."""
    (tmp_path / "rendered.yaml").write_text(
        grammar.render(text_of(name), [], [f"{key}={value}" for key, value in REQUIRED[name].items()]),
        encoding="utf-8",
    )
    rules = (
        "{extends: default, rules: {line-length: {max: 160}, document-start: disable, indentation: disable, "
    )
    rules += (
        "trailing-spaces: disable, comments: disable, empty-lines: disable, comments-indentation: disable}}"
    )
    done = subprocess.run(
        [Path(sys.executable).with_name("yamllint"), "--strict", "-d", rules, "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def _strings(found: Any) -> list[str]:
    if isinstance(found, dict):
        return [text for value in found.values() for text in _strings(value)]
    if isinstance(found, list):
        return [text for value in found for text in _strings(value)]
    return [found] if isinstance(found, str) else []


# What OSMO would refuse has to be refused here: each change makes a good workflow a bad one.
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
    """Why replay.py refuses such values: what is submitted is rendered a second time."""
    with pytest.raises(grammar.Refused):
        submitted("replay-azureml.yaml", "model_name={{ x }}")


def test_set_makes_numbers() -> None:
    text = PLAIN.replace("[c]", "['{{ a }}']") + "default-values: {a: x}\n"
    assert "'7'" in grammar.render(text, ["a=007"])
    assert "'007'" in grammar.render(text, [], ["a=007"])
    assert "'x'" in grammar.render(text)
    assert "{{workflow_id}}" in grammar.render(text.replace("{{ a }}", "{{workflow_id}}"))
