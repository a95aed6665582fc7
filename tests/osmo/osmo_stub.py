#!/usr/bin/env python3
"""A stand-in for the ``osmo`` program and its control plane, for workflows only.

It prints what the real program prints (NVIDIA/OSMO, ``src/cli``), including errors on stdout, and refuses
what the real server refuses. Its world is the file ``world.json`` in the folder that OSMO_CONFIG_FILE_DIR
names, where the real program stores its login. Without that file nobody is logged in. Queries need only the
standard library, so that the file can be put into any pod as ``/osmo/usr/bin/osmo``. ``submit`` needs
osmo_submit.py in the same folder.

The content of the world (``OsmoWorld`` in osmo_world.py writes it):
  version      "6.2", "6.3" or "6.4": whose grammar is refused
  workflows    name -> {uuid, status, spec, outputs, logs, labels, user, pool, submit_time, end_time, tasks:
               [{name, group, status, exit_code, task_uuid}]}; ``next``: what a query changes, one entry
               after each: {"status": …, "tasks": {NAME: STATUS}}
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
import signal
import sys
import time
from pathlib import Path

SERVICE = "https://osmo.example"


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
        # In a pod the folder is mounted read-only for some users. Then nothing is stored.
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


def query_answer(name, found, version):
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
        **({"labels": found.get("labels") or {}, "warnings": []} if version == "6.4" else {}),
    }


def query(world, options):
    name, found = world.workflow(options.workflow_id)
    answer = query_answer(name, found, world.state.get("version"))
    if found.get("next"):
        change = found["next"].pop(0)
        found["status"] = change.get("status", found["status"])
        for task in found["tasks"]:
            task["status"] = change.get("tasks", {}).get(task["name"], task["status"])
    if options.format_type == "json":
        print(json.dumps(answer, indent=2))
    else:
        print(f"Workflow ID : {options.workflow_id}\nStatus      : {found['status']}")


MAX_LIMIT = 1000


def list_entry(name, found, version):
    """Like ListEntry in src/service/core/workflow/objects.py; ``labels`` since 6.4."""
    status = found["status"]
    ended = status == "COMPLETED" or status.startswith("FAILED")
    entry = {
        "user": found.get("user", "ada"),
        "name": name,
        "workflow_uuid": found["uuid"],
        "submit_time": found.get("submit_time", "2026-11-01T10:00:00"),
        "start_time": found.get("start_time", "2026-11-01T10:00:01"),
        "end_time": found.get("end_time", "2026-11-01T11:00:00") if ended else None,
        "queued_time": 1.0,
        "duration": 3599.0,
        "status": status,
        "overview": f"{SERVICE}/workflows/{name}",
        "logs": f"{SERVICE}/api/workflow/{name}/logs",
        "error_logs": f"{SERVICE}/api/workflow/{name}/error_logs" if status.startswith("FAILED") else None,
        "grafana_url": None,
        "dashboard_url": None,
        "pool": found.get("pool", "default"),
        "app_owner": None,
        "app_name": None,
        "app_version": None,
        "priority": "NORMAL",
    }
    return {**entry, "labels": found.get("labels") or {}} if version == "6.4" else entry


def list_answer(state, asked):
    """``GET /api/workflow`` (list_workflow in workflow_service.py and get_workflows in helpers.py).

    ``asked`` has limit, offset, order, users, all_users, pools, all_pools, submitted_after and statuses.
    """
    limit, offset = int(asked.get("limit", 20)), int(asked.get("offset", 0))
    if limit > MAX_LIMIT:
        raise Failure("Limit must be less than 1000.")
    users = asked.get("users") or ([] if asked.get("all_users") else ["ada"])
    pools = asked.get("pools") or ([] if asked.get("all_pools") else ["default"])
    after = asked.get("submitted_after") or ""
    entries = [
        entry
        for name, found in state["workflows"].items()
        for entry in [list_entry(name, found, state.get("version"))]
        if entry["status"] != "FAILED_SUBMISSION"
        and (not asked.get("statuses") or entry["status"] in asked["statuses"])
        and (not users or entry["user"] in users)
        and (not pools or entry["pool"] in pools)
        and entry["submit_time"] >= after
    ]
    entries.sort(key=lambda entry: entry["submit_time"], reverse=asked.get("order", "ASC") == "DESC")
    page = entries[offset : offset + limit]
    return {"workflows": page, "more_entries": len(entries) > offset + limit}


def list_workflows(world, options):
    """Like _list_workflows in src/cli/workflow.py: pages of 1,000, the newest first, reversed for asc."""
    asked = {"order": "DESC", "users": options.user, "all_users": options.all_users, "pools": options.pool}
    asked |= {"all_pools": not options.pool, "statuses": options.status}
    if options.submitted_after:
        asked["submitted_after"] = f"{options.submitted_after}T00:00:00"
    found, done = [], 0
    while True:
        count = min(options.count - done, MAX_LIMIT)
        world.state["requests"] = world.state.get("requests", 0) + 1
        answer = list_answer(world.state, {**asked, "limit": count, "offset": options.offset + done})
        found += answer["workflows"]
        done += count
        if options.count <= done or not answer["more_entries"]:
            break
    if options.order == "asc":
        found.reverse()
    if options.format_type == "json":
        print(json.dumps({"workflows": found}, indent=2))
    else:
        print("\n".join(f"{entry['user']} {entry['name']} {entry['status']}" for entry in found))


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
    # Imported here because it needs more than the standard library, and no pod submits anything.
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import osmo_submit

    try:
        osmo_submit.submit(world, options)
    except osmo_submit.NotTaken as error:
        raise Failure(str(error), error.code, error.exit_code) from error


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
    one = commands.add_parser("list")
    one.add_argument("--count", "-c", type=int, default=20)
    one.add_argument("--offset", "-f", type=int, default=0)
    one.add_argument("--name", "-n")
    one.add_argument("--order", "-o", choices=("asc", "desc"), default="asc")
    one.add_argument("--status", "-s", nargs="+")
    one.add_argument("--format-type", "-t", dest="format_type", choices=("json", "text"), default="text")
    one.add_argument("--submitted-after", dest="submitted_after")
    group = one.add_mutually_exclusive_group()
    group.add_argument("--user", "-u", nargs="+", default=[])
    group.add_argument("--all-users", "-a", action="store_true")
    one.add_argument("--pool", "-p", nargs="+", default=[])
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
    """The version of the program, which its world defines."""
    if "submit" not in sys.argv:
        return None
    try:
        with World() as world:
            return world.state["version"]
    except Failure:
        return None


COMMANDS = {
    "query": query,
    "spec": spec,
    "logs": logs,
    "cancel": cancel,
    "submit": submit,
    "list": list_workflows,
}


def main():
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
