"""The workflows as OSMO renders and validates them."""

from __future__ import annotations

import re
import subprocess
import sys
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
MIRRORING = [name for name in NAMES if name not in ("evaluate-and-promote.yaml", "pull-and-evaluate.yaml")]
# Values that users pass, and that YAML or Jinja could misread.
ODD = 'it\'s "q": {a: [1]}, # no\\comment & *x <y> %'


def text_of(name: str) -> str:
    return (ROOT / "workflows" / name).read_text(encoding="utf-8")


def defaults(name: str) -> dict[str, Any]:
    return yaml.safe_load(text_of(name).partition("\ndefault-values:")[2])


# Values without a default. OSMO refuses a workflow if one is missing.
REQUIRED = {
    "pull-and-evaluate.yaml": {"outputs": "azure://acct/evals"},
    "replay-azureml.yaml": {"run_id": "groot-train-17"},
    "backfill-azureml.yaml": {"source": "azure://acct/runs"},
    "train-and-mirror.yaml": {"outputs": "azure://acct/runs"},
    "evaluate-and-promote.yaml": {"version": "act-pick:3"},
    "watch-azureml.yaml": {},
}


def submitted(name: str, *strings: str, numbers: tuple[str, ...] = ()) -> Any:
    """The workflow that OSMO sees. Required values are filled in unless ``strings`` has them."""
    required = [f"{key}={value}" for key, value in REQUIRED[name].items()]
    return grammar.submitted(text_of(name), numbers, [*required, *strings])


def tasks_of(name: str, *strings: str) -> dict[str, dict[str, Any]]:
    document = submitted(name, *strings)
    return {task["name"]: task for task in document["workflow"]["tasks"]}


def flags_of(task: dict[str, Any]) -> dict[str, str]:
    """Flag -> value of a task's arguments."""
    return dict(argument.partition("=")[::2] for argument in task["args"][1:])


def test_there_are_workflows() -> None:
    assert NAMES == [
        "backfill-azureml.yaml",
        "evaluate-and-promote.yaml",
        "pull-and-evaluate.yaml",
        "replay-azureml.yaml",
        "train-and-mirror.yaml",
        "watch-azureml.yaml",
    ]


@pytest.mark.parametrize("version", grammar.VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_every_version_takes_every_workflow(name: str, version: str) -> None:
    grammar.check(submitted(name), version)


@pytest.mark.parametrize("name", [name for name in NAMES if REQUIRED[name]])
def test_what_is_required_is_asked_for(name: str) -> None:
    (required,) = REQUIRED[name]
    with pytest.raises(grammar.Refused, match=f"'{required}' is undefined"):
        grammar.submitted(text_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_default_can_be_overridden_by_a_string(name: str) -> None:
    """Any text may replace every value that is text."""
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


@pytest.mark.parametrize("name", MIRRORING)
def test_a_numeric_id_stays_text(name: str) -> None:
    """``--set`` turns digits into numbers, which YAML would read differently again."""
    for task in tasks_of(name, "run_id=0017", "model_name=1e3", "checkpoint=0200").values():
        if task["command"] == ["aml-mirror"]:
            assert flags_of(task)["--model-name"] == "1e3"
            if name == "replay-azureml.yaml":
                assert task["environment"]["REPLAY_RUN_ID"] == "0017"
                assert task["environment"]["RUN_ID"] == "0017-replay"
                assert flags_of(task)["--checkpoint"] == "0200"
    grammar.check(submitted(name, numbers=("run_id=17", "model_name=5", "checkpoint=200")), "6.2")


@pytest.mark.parametrize("name", MIRRORING)
def test_what_every_mirroring_task_keeps_to(name: str) -> None:
    document = submitted(name)
    mirroring = [task for task in document["workflow"]["tasks"] if task["command"] == ["aml-mirror"]]
    assert mirroring
    for task in mirroring:
        assert "inputs" not in task
        assert "outputs" not in task
        assert "{{output}}" not in str(task)
        assert task["exitActions"] == {"RESCHEDULE": "75,255"}
        # An empty variable would hide the pod template's if OSMO merged in another order. Coordinates come
        # only from the template.
        assert all(task.get("environment", {"": "x"}).values())
        assert not {key for key in task.get("environment", {}) if key.startswith(("AZURE", "MLFLOW"))}
        resource = document["workflow"]["resources"][task.get("resource", "default")]
        assert not resource.get("gpu")
        assert set(resource) == {"cpu", "memory", "storage"}, "no platform unless one is asked for"


@pytest.mark.parametrize("name", NAMES)
def test_the_program_takes_the_arguments(name: str, tmp_path: Path) -> None:
    """Also with nothing set, because an empty flag counts as unset."""
    strings = ["source=azure://acct/runs/x", "flags=--tag site=lab --debug", "shards=3", "wait_for=3d"]
    for given in ([], strings):
        for task in tasks_of(name, *given).values():
            if task["command"] != ["aml-mirror"]:
                continue
            words = [word.replace("{{workflow_id}}", f"{name[:-5]}-7") for word in task["args"]]
            flags = parser().parse_args(with_default_command(words))
            settings = resolve(flags, {}, tmp_path)
            if given and "site" in settings.tags:
                assert settings.tags == {"site": "lab"}
                assert name == "watch-azureml.yaml" or settings.source == "azure://acct/runs/x"
            if not given and name == "replay-azureml.yaml":
                assert (settings.source, settings.model_name, settings.task) == ("", "", "")
                assert task["environment"]["OUTPUT_BASE"] == "/mnt/outputs"
                assert settings.wait_seconds == 0


@pytest.mark.parametrize("version", grammar.VERSIONS)
@pytest.mark.parametrize(
    ("name", "value", "resource"),
    [
        ("replay-azureml.yaml", "cpu", "cpu"),
        ("backfill-azureml.yaml", "cpu", "cpu"),
        ("train-and-mirror.yaml", "gpus", "gpu"),
    ],
)
def test_what_is_no_whole_number_of_processors_is_refused(
    name: str, value: str, resource: str, version: str
) -> None:
    """`| int` would render it as 0, which OSMO would accept or report as too small."""
    for bad in ("500m", "0.5", "two", "1Gi", ""):
        with pytest.raises(grammar.Refused, match=f"{resource}: Input should be a valid integer"):
            grammar.check(submitted(name, f"{value}={bad}"), version)
    for numbers, strings in (((f"{value}=3",), ()), ((), (f"{value}=3",))):
        document = submitted(name, *strings, numbers=numbers)
        grammar.check(document, version)
        assert int(document["workflow"]["resources"]["default"][resource]) == 3


@pytest.mark.parametrize(
    "place",
    [
        'azure://acct/runs/it\'s "q": {a: [1]} #no\\comment & <y> %',
        'azure://acct/runs"}]',
        "azure://acct/runs\n  evil: 1",
        "azure://acct/runs/é日本",
    ],
)
def test_a_place_for_outputs_arrives_whole(place: str) -> None:
    """However YAML could misread the value. OSMO's own token still follows it."""
    document = submitted("train-and-mirror.yaml", f"outputs={place}")
    task = document["workflow"]["tasks"][0]
    assert task["outputs"] == [{"url": place + "/{{workflow_id}}"}]
    assert document["workflow"].keys() == submitted("train-and-mirror.yaml")["workflow"].keys()


@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_quoted_for_yaml(name: str) -> None:
    """Each value that a user passes goes through tojson, or is a number of tasks."""
    body = text_of(name).partition("\ndefault-values:")[0]
    for expression in re.findall(r"\{\{(?!\w+\}\})(.*?)\}\}", body):
        assert "tojson" in expression or expression.strip() == "shard", expression


@pytest.mark.parametrize("action", ["mirror", "plan", "doctor"])
def test_other_commands_take_the_same_arguments(action: str) -> None:
    (task,) = tasks_of("replay-azureml.yaml", f"action={action}").values()
    assert parser().parse_args(with_default_command(task["args"])).command == action


def test_a_platform_is_passed_where_it_is_given() -> None:
    document = submitted("replay-azureml.yaml", "platform=cpu-nodes")
    assert document["workflow"]["resources"]["default"]["platform"] == "cpu-nodes"


@pytest.mark.parametrize("shards", [1, 2, 7, 20, 50])
def test_the_backlog_is_spread(shards: int) -> None:
    """One task per shard, each in its own group. Each knows its number and the total."""
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


@pytest.mark.parametrize("name", MIRRORING)
def test_one_image_line_for_the_release_to_write(name: str) -> None:
    lines = [line for line in text_of(name).splitlines() if re.fullmatch(r"  image: \S+", line)]
    assert len(lines) == 1
    assert re.fullmatch(r"  image: \S+/aml-mirror@sha256:[0-9a-f]{64}", lines[0]), lines[0]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_rendered_is_tidy_yaml(name: str, tmp_path: Path) -> None:
    """A linter cannot read the templates as YAML, but it can read what OSMO renders."""
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


def test_an_evaluation_pulls_first(tmp_path: Path) -> None:
    """Run the task's shell script, with stand-ins for the two programs that it calls."""
    (task,) = tasks_of(
        "pull-and-evaluate.yaml", "version=act-pick:3", "evaluation=evaluate --policy /tmp/policy/model"
    ).values()
    for name, code in (("aml-mirror", 0), ("evaluate", 7)):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "{name}|$*" >> {tmp_path}/calls\nexit ${{CODE:-{code}}}\n'
        )
        program.chmod(0o755)
    environment = {**task["environment"], "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([*task["command"], *task["args"]], env=environment)
    assert done.returncode == 7
    flags = ["pull", "act-pick:3", "/tmp/policy", "--refuse-pickle"]
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"aml-mirror|{' '.join(flags)}", "evaluate|--policy /tmp/policy/model",
    ]  # fmt: skip
    settings = resolve(parser().parse_args(flags), {}, tmp_path)
    assert (settings.reference, settings.folder, settings.refuse_pickle) == (
        "act-pick:3",
        "/tmp/policy",
        True,
    )
    # A version that differs from what was mirrored is not evaluated.
    (tmp_path / "calls").unlink()
    done = subprocess.run([*task["command"], *task["args"]], env={**environment, "CODE": "65"})
    assert done.returncode == 65
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
