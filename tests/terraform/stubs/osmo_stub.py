"""A stand-in for the `osmo` program and the control plane behind it, as OSMO 6.3.1 was seen to behave.

Its world is one JSON file (STUB_OSMO_STATE): templates, pools, revisions, the mode, and what shall go
wrong. It is as strict as the real one: an unknown argument, a file that is not JSON, a missing description
(which would open an editor) or a named update of a name that is not there fail here too.
"""

import argparse
import copy
import fcntl
import json
import os
import sys
import tempfile
from pathlib import Path

CONFIGMAP_409 = (
    "Configs are managed by ConfigMap and cannot be modified via CLI/API. "
    "Update the Helm values and redeploy instead."
)
TYPES = ("POD_TEMPLATE", "POOL", "SERVICE", "WORKFLOW", "BACKEND")


class Failure(Exception):
    def __init__(self, message, code=None, exit_code=2):
        super().__init__(message)
        self.code = code
        self.exit_code = exit_code


def deep_diff(current, updated):
    """The real client's idea of a difference: a key that is only missing from `updated` is none."""
    if current == updated:
        return None
    if isinstance(current, type(updated)) and isinstance(current, dict):
        diff = {}
        for key, value in updated.items():
            found = deep_diff(current[key], value) if key in current else value
            if found is not None:
                diff[key] = found
        return diff if diff else None
    return updated


class World:
    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.lock = Path(self.path + ".lock").open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        with Path(self.path).open(encoding="utf-8") as file:
            self.state = json.load(file)
        return self

    def __exit__(self, *_):
        with Path(self.path).open("w", encoding="utf-8") as file:
            json.dump(self.state, file)
        self.lock.close()

    def revise(self, username, description, tags=()):
        numbers = [row["revision"] for row in self.state["revisions"]]
        self.state["revisions"].append(
            {
                "config_type": "POD_TEMPLATE",
                "name": "",
                "revision": max(numbers, default=0) + 1,
                "username": username,
                "created_at": "2026-01-01T00:00:00",
                "description": description,
                "tags": list(tags),
                "data": copy.deepcopy(self.state["templates"]),
            }
        )

    def put(self, templates, username, description, tags=()):
        self.state["templates"].update(copy.deepcopy(templates))
        self.revise(username, description, tags)

    def race(self, when):
        """Another person's write, once, around an update of ours."""
        if self.state["races"] and self.state["races"][0]["when"] == when:
            race = self.state["races"].pop(0)
            self.put(race["templates"], "eve", "an edit by eve")


def refuse_writes(world):
    if world.state["mode"] == "configmap":
        raise Failure(CONFIGMAP_409, 409)
    if world.state.get("forbidden"):
        raise Failure("User does not have permission", 403)


def show(world, options):
    kind, _, revision = options.config.partition(":")
    if kind not in TYPES:
        raise Failure(f'Invalid config type "{kind}". Available types: {", ".join(TYPES)}')
    if revision:
        rows = [row for row in world.state["revisions"] if str(row["revision"]) == revision]
        if not rows:
            raise Failure("No config found matching the specified criteria")
        data = rows[0]["data"]
    else:
        data = world.state["templates"] if kind == "POD_TEMPLATE" else {}
    for name in options.names:
        if not (isinstance(data, dict) and name in data):
            raise Failure(f'Cannot index into {type(data).__name__} with "{name}"')
        data = data[name]
    print(json.dumps(data, indent=2))


def update(world, options):
    current = world.state["templates"]
    if options.name:
        if options.name not in current:
            raise Failure(f'Config name "{options.name}" not found in {options.config}')
        current = current[options.name]
    if not options.file:
        raise Failure("the stub has no editor: an update without --file would hang", exit_code=97)
    with Path(options.file).open(encoding="utf-8") as file:
        text = file.read()
    try:
        updated = json.loads(text)
    except ValueError as error:
        raise Failure(f"Invalid JSON: {error}\nAttempted changes saved to {leave_behind(text)}") from error
    if deep_diff(current, updated) is None:
        print("No changes were made to the config.")
        return
    if not options.description:
        raise Failure("the stub has no editor: an update without --description would hang", exit_code=97)
    try:
        refuse_writes(world)
    except Failure as error:
        raise Failure(
            f"Error updating config: {error}\nAttempted changes saved to {leave_behind(text)}", error.code
        ) from error
    world.race("before-update")
    world.put(
        {options.name: updated} if options.name else updated, "ada", options.description, options.tags or ()
    )
    world.race("after-update")
    print(f"Successfully updated {options.config} config")


def leave_behind(text):
    with tempfile.NamedTemporaryFile(
        "w", prefix="POD_TEMPLATE-update_", suffix=".json", dir="/tmp/", delete=False
    ) as file:
        file.write(text)
        return file.name


def delete(world, options):
    if not options.description:
        raise Failure("the stub has no editor: a delete without --description would hang", exit_code=97)
    refuse_writes(world)
    if world.state.get("may_not_delete"):
        raise Failure("User does not have permission", 403)
    if options.name not in world.state["templates"]:
        raise Failure(f"Pod Template {options.name} does not exist.", 400)
    pools = [pool for pool, names in world.state["pools"].items() if options.name in names]
    if pools:
        raise Failure(f"Pod Template {options.name} is used in pools {', '.join(pools)}", 400)
    del world.state["templates"][options.name]
    world.revise("ada", options.description)
    print(f'Successfully deleted {options.config} config "{options.name}"')


def history(world, options):
    if not 0 < options.count <= 1000:
        raise Failure("limit must be between 1 and 1000", 422)
    rows = sorted(world.state["revisions"], key=lambda row: row["revision"], reverse=options.order == "desc")
    rows = rows[options.offset : options.offset + options.count]
    if options.format_type != "json":
        for row in rows:
            print(row["revision"], row["username"], row["description"])
        return
    print(
        json.dumps(
            {"configs": [{k: v for k, v in row.items() if k != "data"} | {"data": None} for row in rows]},
            indent=2,
        )
    )


def rollback(world, options):
    kind, _, revision = options.revision.partition(":")
    rows = [row for row in world.state["revisions"] if str(row["revision"]) == revision]
    if kind not in TYPES or not rows or not options.description:
        raise Failure("No config found matching the specified criteria")
    refuse_writes(world)
    world.state["templates"] = copy.deepcopy(rows[0]["data"])
    world.revise("ada", options.description)
    print(f"Successfully rolled back {kind} to revision {revision}.")


def parse(arguments):
    parser = argparse.ArgumentParser(prog="osmo")
    config = parser.add_subparsers(required=True).add_parser("config").add_subparsers(required=True)
    one = config.add_parser("show")
    one.add_argument("config")
    one.add_argument("names", nargs="*")
    one.set_defaults(run=show, verb="show")
    for name, run in (("update", update), ("delete", delete)):
        one = config.add_parser(name)
        one.add_argument("config", choices=TYPES)
        one.add_argument("name", nargs="?")
        if name == "update":
            one.add_argument("--file", "-f")
        one.add_argument("--description", "-d")
        one.add_argument("--tags", "-t", nargs="+")
        one.set_defaults(run=run, verb=name)
    one = config.add_parser("history")
    one.add_argument("config", nargs="?", choices=TYPES)
    one.add_argument("--offset", "-o", type=int, default=0)
    one.add_argument("--count", "-c", type=int, default=20)
    one.add_argument("--order", choices=("asc", "desc"), default="asc")
    one.add_argument("--format-type", "-t", choices=("json", "text"), default="text")
    one.set_defaults(run=history, verb="history")
    one = config.add_parser("rollback")
    one.add_argument("revision")
    one.add_argument("--description", "-d")
    one.set_defaults(run=rollback, verb="rollback")
    return parser.parse_args(arguments)


def main():
    options = parse(sys.argv[1:])
    with World(os.environ["STUB_OSMO_STATE"]) as world:
        world.state["calls"].append(sys.argv[1:])
        if world.state["mode"] == "retired" and options.verb in ("update", "delete", "rollback"):
            # A client without the commands that write (NVIDIA/OSMO#1338).
            print("usage: osmo config [-h] {list,show} ...", file=sys.stderr)
            what = f"argument subcommand: invalid choice: {options.verb!r} (choose from list, show)"
            print(f"osmo config: error: {what}", file=sys.stderr)
            return 2
        try:
            if not world.state.get("logged_in", True):
                raise Failure('Must login first with "login" command')
            failing = world.state["failures"]
            if failing and failing[0]["verb"] == options.verb:
                failure = failing.pop(0)
                raise Failure(failure["message"], failure.get("code"), failure["exit_code"])
            if world.state.get("notice"):
                print(world.state["notice"])
            options.run(world, options)
        except Failure as failure:
            # The real client prints its errors on stdout.
            if getattr(options, "format_type", "") == "json":
                print(json.dumps({"message": str(failure), "code": failure.code or 1}, indent=2))
            else:
                print("Error message:", failure)
                print("Error code:", failure.code or 1)
            return failure.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
