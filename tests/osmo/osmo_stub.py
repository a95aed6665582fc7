#!/usr/bin/env python3
"""A stand-in for the ``osmo`` program and the control plane behind it, as far as workflows go.

It prints what the real program prints (NVIDIA/OSMO, ``src/cli``), errors on stdout included, and refuses what
the real server refuses. Its world is ``world.json`` in the folder that OSMO_CONFIG_FILE_DIR names, where the
real program keeps its login; without that file nobody is logged in. Queries need the standard library alone,
so that the file can be put into any pod as ``/osmo/usr/bin/osmo``; ``submit`` needs osmo_grammar.py beside
it.

What the world holds (``OsmoWorld`` in osmo_world.py writes it):
  version      "6.2", "6.3" or "6.4": whose grammar is refused
  workflows    name -> {uuid, status, spec, outputs, logs, tasks: [{name, group, status, exit_code,
               task_uuid}]}; ``next``: what a query changes, one entry after each:
               {"status": …, "tasks": {NAME: STATUS}}
  faults       [{"on": "workflow query", "times": 1, "exit": 10, "code": 500, "message": …}] or with "raw"
               (printed as it is), "sleep" (seconds), "signal"
  labels       OSMO 6.4's policy: [{"key", "enforcement": "warn" or "enforce", "allow_list": []}]
  pod_env      the pod template's variables, which win over a workflow's
  pod_path     PATH of a pod; submitted tasks are really run where it is set
  calls        every call that was made: arguments and names of variables
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

SERVICE = "https://osmo.example"
SPLIT_BYTES = 32 << 10  # osmo_exec splits longer lines


class Failure(Exception):
    def __init__(self, message, code=400, exit_code=2):
        super().__init__(message)
        self.code, self.exit_code = code, exit_code


class World:
    """The state, read and written under a lock."""

    def __init__(self):
        folder = os.environ.get("OSMO_CONFIG_FILE_DIR") or os.path.expanduser("~/.config/osmo")
        self.path = os.path.join(folder, "world.json")

    def __enter__(self):
        if not os.path.exists(self.path):
            raise Failure('Must login first with "login" command', None)
        # In a pod the folder is mounted read-only for some users: then nothing is kept.
        self.lock = None
        with contextlib.suppress(OSError):
            self.lock = open(self.path + ".lock", "a")
            fcntl.flock(self.lock, fcntl.LOCK_EX)
        with open(self.path, encoding="utf-8") as file:
            self.state = json.load(file)
        return self

    def __exit__(self, *_):
        if self.lock:
            new = f"{self.path}.{os.getpid()}"
            with open(new, "w", encoding="utf-8") as file:
                json.dump(self.state, file)
            os.replace(new, self.path)
            self.lock.close()

    def workflow(self, name):
        for known, found in self.state["workflows"].items():
            if name in (known, found["uuid"]):
                return known, found
        raise Failure(f"Workflow {name} is not found.")


def write_log():
    folder = os.environ.get("OSMO_LOG_FILE_DIR") or os.path.expanduser("~/.local/state/osmo")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "client.log"), "a", encoding="utf-8") as file:
        file.write(f"Running OSMO CLI command: {' '.join(sys.argv[1:])}\n")


def play_fault(world, command):
    for fault in world.state.get("faults", []):
        if fault["on"] == command and fault.get("times", 1) != 0:
            fault["times"] = fault.get("times", 1) - 1
            return fault
    return None


def suffer(fault):
    time.sleep(fault.get("sleep", 0))
    if "signal" in fault:
        os.kill(os.getpid(), fault["signal"])
    if "stderr" in fault:
        print(fault["stderr"], file=sys.stderr)
    if "raw" in fault:
        sys.stdout.write(fault["raw"])
        sys.stdout.flush()
        raise SystemExit(fault.get("exit", 0))
    if "message" in fault or "exit" in fault:
        raise Failure(fault.get("message", "refused"), fault.get("code"), fault.get("exit", 2))


def server_error(body, status=500):
    """The message of an OSMOServerError: the answer with its headers."""
    return f"Status Code: {status}\nHeader:\n  set-cookie: session=cookie-of-the-service\nBody:\n{body}"


def query_answer(name, found):
    groups = {}
    for task in found["tasks"]:
        group = task.get("group") or f"{task['name']}-group"
        groups.setdefault(group, []).append(
            {
                "name": task["name"],
                "retry_id": 0,
                "status": task["status"],
                "failure_message": None,
                "exit_code": task.get("exit_code"),
                "logs": f"{SERVICE}/api/workflow/{name}/logs?task_name={task['name']}",
                "events": f"{SERVICE}/api/workflow/{name}/events",
                "start_time": "2026-11-01T10:00:00",
                "pod_name": f"{found['uuid'][:16]}-{task['task_uuid'][:16]}",
                "task_uuid": task["task_uuid"],
                "lead": True,
            }
        )
    return {
        "name": name,
        "uuid": found["uuid"],
        "submitted_by": "ada",
        "spec": f"{SERVICE}/api/workflow/{name}/spec",
        "template_spec": f"{SERVICE}/api/workflow/{name}/spec?use_template=true",
        "logs": f"{SERVICE}/api/workflow/{name}/logs?last_n_lines=1000",
        "events": f"{SERVICE}/api/workflow/{name}/events",
        "overview": f"{SERVICE}/workflows/{name}",
        "tags": [],
        "submit_time": "2026-11-01T10:00:00",
        "queued_time": 1.0,
        "status": found["status"],
        "outputs": found.get("outputs", ""),
        "groups": [
            {"name": group, "status": tasks[0]["status"], "tasks": tasks} for group, tasks in groups.items()
        ],
        "pool": "default",
        "backend": "default",
        "plugins": {"rsync": False},
        "priority": "NORMAL",
    }


def query(world, options):
    name, found = world.workflow(options.workflow_id)
    answer = query_answer(name, found)
    if found.get("next"):
        change = found["next"].pop(0)
        found["status"] = change.get("status", found["status"])
        for task in found["tasks"]:
            task["status"] = change.get("tasks", {}).get(task["name"], task["status"])
    if options.format_type == "json":
        print(json.dumps(answer, indent=2))
    else:
        print(f"Workflow ID : {options.workflow_id}\nStatus      : {found['status']}")


def spec(world, options):
    _, found = world.workflow(options.workflow_id)
    print(found["spec"], end="" if found["spec"].endswith("\n") else "\n")


def logs(world, options):
    name, found = world.workflow(options.workflow_id)
    if options.task and options.task not in [task["name"] for task in found["tasks"]]:
        raise Failure(f"Task {options.task} of workflow {name} is not found.")
    print(f"Workflow {options.workflow_id} has logs:")
    lines = [line for line in found.get("logs", []) if not options.task or f" [{options.task}]" in line]
    for line in lines[-options.last_n_lines :] if options.last_n_lines else lines:
        print(line)


def cancel(world, options):
    for given in options.workflow_ids:
        name, found = world.workflow(given)
        found["status"] = "FAILED_CANCELED"
        for task in found["tasks"]:
            if task["status"] in ("RUNNING", "WAITING", "PROCESSING"):
                task["status"] = "FAILED_CANCELED"
            if task.get("pid"):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(task["pid"], signal.SIGKILL)
        print(f"Cancel job for workflow {name} is submitted!")


def submit(world, options):
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import yaml

    import osmo_grammar as grammar

    if not options.pool and not world.state.get("default_pool"):
        raise Failure('No pool specified. Set a default pool with "osmo profile set pool"')
    if options.pool and options.pool not in world.state.get("pools", ["default"]):
        raise Failure(f"Pool {options.pool} not found", exit_code=1)
    try:
        text = Path(options.workflow_file).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Failure(str(error), None, 1) from error
    try:
        if options.dry:
            print(yaml.dump(yaml.safe_load(grammar.render(text, options.set, options.set_string))))
            return
        document = grammar.submitted(text, options.set, options.set_string)
        grammar.check(document, world.state.get("version", "6.3"), world.state.get("max_num_tasks", 20))
    except grammar.Refused as error:
        if "Unknown URI scheme" in str(error):
            body = json.dumps({"message": f"Internal server error: {error}"})
            raise Failure(server_error(body), 500, 10) from error
        raise Failure(f"Workflow  submit failed:\n{error}", 400, 1) from error
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
                [sys.executable, __file__, "--run", name],
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
    """The warnings of OSMO's policy of labels; Failure for the first label that it enforces."""
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
        raise Failure(f"Workflow  submit failed:\n{refusal}", 400, 1)
    return warnings


def run(name):
    """The backend: each task of a workflow in a process group of its own, all at the same time."""
    with World() as world:
        _, found = world.workflow(name)
        found["status"] = "RUNNING"
        for task in found["tasks"]:
            task["status"] = "RUNNING"
        tasks = [dict(task) for task in found["tasks"]]
        template, path = world.state.get("pod_env", {}), world.state["pod_path"]
    threads = [threading.Thread(target=run_task, args=(name, task, template, path)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with World() as world:
        _, found = world.workflow(name)
        if found["status"] == "RUNNING":
            fine = all(task["status"] == "COMPLETED" for task in found["tasks"])
            found["status"] = "COMPLETED" if fine else "FAILED"


def run_task(name, task, template, path):
    tokens = {"workflow_id": name, "output": "/osmo/data/output"}

    def filled(text):
        return re.sub(r"{{ *(\w+) *}}", lambda match: tokens.get(match[1], match[0]), text)

    with tempfile.TemporaryDirectory(prefix="pod-") as home:
        environment = {
            "PATH": path,
            "HOME": home,
            "TMPDIR": home,
            "KUBERNETES_SERVICE_HOST": "10.0.0.1",
            **{key: filled(value) for key, value in task["run"]["environment"].items()},
            "OSMO_CONFIG_FILE_DIR": os.environ["OSMO_CONFIG_FILE_DIR"],
            "NVIDIA_VISIBLE_DEVICES": "",
            **template,
        }
        try:
            process = subprocess.Popen(
                [filled(word) for word in task["run"]["command"]],
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        except FileNotFoundError as error:
            process, code = None, 2
            keep(name, task, [f"panic: exec: {error.filename}: executable file not found in $PATH"])
        if process:
            update(name, task["name"], pid=process.pid)
            for line in process.stdout:
                text = line.decode(errors="replace").rstrip("\n")
                keep(
                    name, task, [text[at : at + SPLIT_BYTES] for at in range(0, len(text) or 1, SPLIT_BYTES)]
                )
            code = process.wait()
            code = 255 if code < 0 else code
    update(name, task["name"], exit_code=code, status="COMPLETED" if code == 0 else "FAILED", pid=None)


def keep(name, task, lines):
    date = datetime.now(UTC).strftime("%Y/%m/%d %H:%M:%S")
    with World() as world:
        world.workflow(name)[1]["logs"] += [f"{date} [{task['name']}] {line}" for line in lines]


def update(name, task_name, **changes):
    with World() as world:
        for task in world.workflow(name)[1]["tasks"]:
            if task["name"] == task_name and not task["status"].startswith("FAILED"):
                task.update(changes)


def parser():
    top = argparse.ArgumentParser(prog="osmo")
    modules = top.add_subparsers(dest="module", required=True)
    commands = modules.add_parser("workflow").add_subparsers(dest="command", required=True)
    one = commands.add_parser("query")
    one.add_argument("workflow_id")
    one.add_argument("--verbose", "-v", action="store_true")
    one.add_argument("--format-type", "-t", dest="format_type", choices=("json", "text"), default="text")
    one = commands.add_parser("spec")
    one.add_argument("workflow_id")
    one.add_argument("--template", action="store_true")
    one = commands.add_parser("logs")
    one.add_argument("workflow_id")
    one.add_argument("--task", "-t")
    one.add_argument("--retry-id", "-r", type=int)
    one.add_argument("--error", action="store_true")
    one.add_argument("-n", dest="last_n_lines", type=int)
    one = commands.add_parser("cancel")
    one.add_argument("workflow_ids", nargs="+")
    one.add_argument("--format-type", "-t", dest="format_type", choices=("json", "text"), default="text")
    one = commands.add_parser("submit")
    one.add_argument("workflow_file")
    one.add_argument("--format-type", "-t", dest="format_type", choices=("json", "text"), default="text")
    one.add_argument("--set", action="extend", nargs="+", default=[])
    one.add_argument("--set-string", action="extend", dest="set_string", nargs="+", default=[])
    one.add_argument("--set-env", action="extend", dest="set_env", nargs="+", default=[])
    one.add_argument("--dry-run", action="store_true", dest="dry")
    one.add_argument("--pool", "-p")
    one.add_argument("--priority")
    # Since 6.4.
    one.set_defaults(labels=[])
    if client_version() == "6.4":
        one.add_argument("--label", action="append", dest="labels", metavar="KEY=VALUE")
    return top


def client_version():
    """The version of the program, which is that of its world."""
    if "submit" not in sys.argv:
        return None
    try:
        with World() as world:
            return world.state["version"]
    except Failure:
        return None


COMMANDS = {"query": query, "spec": spec, "logs": logs, "cancel": cancel, "submit": submit}


def main():
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2])
        return
    options = parser().parse_args()
    command = f"{options.module} {options.command}"
    write_log()
    message, code, exit_code = None, None, 0
    try:
        with World() as world:
            calls = world.state.setdefault("calls", [])
            calls.append({"arguments": sys.argv[1:], "environment": sorted(os.environ)})
            fault = play_fault(world, command)
            if fault is None:
                COMMANDS[options.command](world, options)
        if fault:
            suffer(fault)
    except Failure as error:
        message, code, exit_code = str(error), error.code, error.exit_code
    if message:
        if getattr(options, "format_type", "text") == "json":
            print(json.dumps({"message": message, "code": code or 1}, indent=2))
        else:
            print("Error message:", message)
            print("Error code:", code or 1)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
