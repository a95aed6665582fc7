"""``osmo workflow submit`` of the stub: OSMO's checks of a workflow and of its labels."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path

import yaml

import osmo_grammar as grammar
from osmo_stub import SERVICE, server_error

BACKEND = Path(__file__).with_name("osmo_backend.py")


class NotTaken(Exception):
    """OSMO refuses the workflow, with this HTTP status and exit code of the client."""

    def __init__(self, message, code=400, exit_code=2):
        super().__init__(message)
        self.code, self.exit_code = code, exit_code


def submit(world, options):
    if not options.pool and not world.state.get("default_pool"):
        raise NotTaken('No pool specified. Set a default pool with "osmo profile set pool"')
    if options.pool and options.pool not in world.state.get("pools", ["default"]):
        raise NotTaken(f"Pool {options.pool} not found", exit_code=1)
    try:
        text = Path(options.workflow_file).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotTaken(str(error), None, 1) from error
    try:
        if options.dry:
            print(yaml.dump(yaml.safe_load(grammar.render(text, options.set, options.set_string))))
            return
        document = grammar.submitted(text, options.set, options.set_string)
        grammar.check(document, world.state.get("version", "6.3"), world.state.get("max_num_tasks", 20))
    except grammar.Refused as error:
        if "Unknown URI scheme" in str(error):
            body = json.dumps({"message": f"Internal server error: {error}"})
            raise NotTaken(server_error(body), 500, 10) from error
        raise NotTaken(f"Workflow  submit failed:\n{error}", 400, 1) from error
    workflow = document["workflow"]
    labels = workflow.setdefault("labels", {}) | dict(one.split("=", 1) for one in options.labels)
    warnings = judge_labels(world, labels)
    if labels:
        workflow["labels"] = labels
    else:
        del workflow["labels"]
    groups = workflow.pop("groups", None) or [
        {"name": f"{task['name']}-group", "tasks": [task]} for task in workflow.pop("tasks")
    ]
    workflow.pop("tasks", None)
    numbers = [int(known.rpartition("-")[2]) for known in world.state["workflows"]]
    name = f"{workflow['name']}-{max(numbers, default=0) + 1}"
    world.state["workflows"][name] = {
        "uuid": uuid.uuid4().hex,
        "status": "PENDING",
        "spec": yaml.dump({"version": 2, "workflow": {**workflow, "groups": groups}}),
        "outputs": "",
        "labels": labels,
        "logs": [],
        "tasks": [
            {
                "name": task["name"],
                "group": group["name"],
                "status": "PROCESSING",
                "exit_code": None,
                "task_uuid": uuid.uuid4().hex,
                "run": {
                    "command": [*map(str, task["command"]), *map(str, task.get("args", []))],
                    "environment": {key: str(value) for key, value in task.get("environment", {}).items()},
                },
            }
            for group in groups
            for task in group["tasks"]
        ],
    }
    if world.state.get("pod_path"):
        with open(world.path + f".{name}.log", "w") as log:
            subprocess.Popen(
                [sys.executable, BACKEND, name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    answer = {"name": name, "overview": f"{SERVICE}/workflows/{name}", "logs": None, "spec": None}
    if options.format_type == "json":
        known = {"warnings": warnings} if world.state.get("version") == "6.4" else {}
        print(json.dumps({**answer, "dashboard_url": None, **known}, indent=2))
    else:
        print(f"Workflow submit successful.\nWorkflow ID        - {name}")
        print(f"Workflow Overview  - {answer['overview']}")
        for warning in warnings:
            print(f"WARNING: {warning}")


def judge_labels(world, labels):
    """The warnings of OSMO's label policy. Failure for the first label that it enforces."""
    warnings, refusal = [], None
    for policy in world.state.get("labels", []):
        key, enforced = policy["key"], policy["enforcement"] == "enforce"
        allowed = policy.get("allow_list") or [labels.get(key)]
        if key not in labels:
            said = f"Workflow is missing required label '{key}'."
            if not enforced:
                said = (
                    f"Workflow is missing label '{key}'; "
                    "add it now to avoid rejected submissions once it is required."
                )
        elif labels[key] not in allowed:
            said = f"Workflow label '{key}' has a value that is not allowed."
        else:
            continue
        if enforced:
            refusal = refusal or said
        else:
            warnings.append(said)
    if refusal:
        raise NotTaken(f"Workflow  submit failed:\n{refusal}", 400, 1)
    return warnings
