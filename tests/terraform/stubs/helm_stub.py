"""A stand-in for `helm get values` and `helm upgrade`: merges values as Helm 3 does and keeps every revision.

Its world is one JSON file (STUB_HELM_STATE): releases by "namespace/name" with the chart's defaults and the
user's values. Helm reads YAML 1.1, which is what PyYAML reads too.
"""

import argparse
import copy
import fcntl
import json
import os
import sys
from pathlib import Path

import yaml


def merge_maps(under, over):
    """pkg/cli/values mergeMaps: maps key by key, everything else is replaced."""
    merged = copy.deepcopy(under)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge_maps(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def without_nulls(values):
    """Coalescing: a key that is set to null is taken away."""
    return {
        key: without_nulls(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None
    }


def coalesce(under, over):
    return without_nulls(merge_maps(under, over))


def fail(text):
    print(f"Error: {text}", file=sys.stderr)
    raise SystemExit(1)


def main():
    parser = argparse.ArgumentParser(prog="helm")
    commands = parser.add_subparsers(dest="command", required=True)
    get = commands.add_parser("get").add_subparsers(dest="what", required=True).add_parser("values")
    get.add_argument("release")
    get.add_argument("--all", action="store_true")
    get.add_argument("--output", "-o", choices=("json", "yaml", "table"), default="table")
    upgrade = commands.add_parser("upgrade")
    upgrade.add_argument("release")
    upgrade.add_argument("chart")
    upgrade.add_argument("--reuse-values", action="store_true")
    upgrade.add_argument("--values", "-f", action="append", default=[])
    upgrade.add_argument("--set", action="append", default=[])
    upgrade.add_argument("--version")
    for one in (get, upgrade):
        one.add_argument("--namespace", "-n", default="default")
    options = parser.parse_args()

    path = os.environ["STUB_HELM_STATE"]
    with Path(path + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with Path(path).open(encoding="utf-8") as file:
            state = json.load(file)
        key = f"{options.namespace}/{options.release}"
        release = state["releases"].get(key)
        if release is None:
            if options.command == "get":
                fail("release: not found")
            fail(f'UPGRADE FAILED: "{options.release}" has no deployed releases')
        if options.command == "get":
            values = coalesce(release["defaults"], release["values"]) if options.all else release["values"]
            print(json.dumps(values) if options.output == "json" else yaml.safe_dump(values))
            return
        if state.get("fail_upgrade"):
            print("W0101 warning: something else", file=sys.stderr)
            fail(f"UPGRADE FAILED: {state['fail_upgrade']}")
        if not options.chart.endswith(".tgz") and options.chart != release["chart"]:
            fail(f'chart "{options.chart}" not found')
        if options.version is None and not options.chart.endswith(".tgz"):
            fail("the stub would have upgraded to the newest chart")
        new = {}
        for source in options.values:
            text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
            new = merge_maps(new, yaml.safe_load(text) or {})
        for assignment in options.set:
            keys, _, value = assignment.partition("=")
            if value != "null":
                fail(f"the stub knows only =null, not {assignment}")
            inner = None
            for name in reversed(keys.split(".")):
                inner = {name: inner}
            new = merge_maps(new, inner)
        release["values"] = coalesce(release["values"], new) if options.reuse_values else without_nulls(new)
        release["version"] = options.version or release["version"]
        release["history"].append(copy.deepcopy(coalesce(release["defaults"], release["values"])))
        state.setdefault("sequence", []).append(key)
        with Path(path).open("w", encoding="utf-8") as file:
            json.dump(state, file)
    print("Release upgraded. NOTES: the admin password is hunter2")


if __name__ == "__main__":
    main()
