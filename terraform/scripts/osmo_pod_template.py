#!/usr/bin/env python3
"""Adds the mirror's variables to an OSMO pod template in OSMO's database, or removes them.

For OSMO 6.2 and 6.3. Later versions read their configuration only from Helm values; use the module's
osmo_config_mode = "configmap" there.

    read history and templates → plan → write, as one revision → read again, until nothing is left to do

OSMO has no conditional write: a PUT replaces the whole template. So the script reads the history again after
a write. If somebody else changed the template between the read and the write, the write has overwritten that
edit. The script then makes its plan again from that revision, so that the edit comes back together with the
variables.

Usage:
    osmo_pod_template.py apply  [--spec FILE] [--dry-run | --check]
    osmo_pod_template.py remove [--spec FILE] [--dry-run | --check]

The specification is the module's output `osmo_api_spec`. Without --spec it is read from AZUREML_MIRROR_SPEC.

Exit codes (sysexits.h): 0 done or nothing to do, 1 --check found drift, 64 usage, 65 OSMO's answer cannot be
read, 75 temporary failure, 77 not allowed, 78 configuration (also when somebody else set the value).
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import secrets
import sys
import time
from dataclasses import replace
from typing import Any

from osmo_config_cli import (
    EX_TEMPFAIL,
    PAGE,
    PAGES,
    InUse,
    MirrorError,
    OsmoCli,
    Revision,
    Templates,
)
from pod_template_merge import Plan, Refused, Seen, missing_identity, plan_apply, plan_remove
from pod_template_spec import EX_USAGE, OUTPUTS_TEMPLATE, Record, Spec, read_record, read_spec

EX_DRIFT = 1
# Attempts after a lost race, and the pause in seconds before the first of them. It doubles each time.
TRIES, FIRST_PAUSE = 5, 0.5


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        spec = read_spec(options.spec)
        cli = OsmoCli(options.osmo)
        return Settler(cli, spec, options.verb).run(dry_run=options.dry_run, check=options.check)
    except MirrorError as error:
        print(f"azureml-mirror: {error}", file=sys.stderr)
        return error.code


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="osmo_pod_template.py",
        description="Adds the mirror's variables to an OSMO pod template, or removes them.",
    )
    parser.add_argument("verb", choices=("apply", "remove"))
    parser.add_argument(
        "--spec",
        metavar="FILE",
        help="the module's output osmo_api_spec ('-': standard input; default: $AZUREML_MIRROR_SPEC)",
    )
    parser.add_argument(
        "--osmo",
        default=os.environ.get("AZUREML_MIRROR_OSMO", "osmo"),
        help="the osmo program (default: osmo)",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--dry-run",
        action="store_true",
        help="print the difference that would be written, without writing it",
    )
    only.add_argument(
        "--check",
        action="store_true",
        help="exit 1 if something would be written, without writing it",
    )
    return parser.parse_args(arguments)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(EX_USAGE, f"{self.prog}: {message}. See {self.prog} --help.\n")


class Settler:
    """Brings OSMO to the state that a verb asks for, and detects concurrent writes."""

    def __init__(self, cli: OsmoCli, spec: Spec, verb: str) -> None:
        self.cli = cli
        self.spec = spec
        self.verb = verb
        self.plan_of = plan_apply if verb == "apply" else plan_remove
        # The state to plan from again, because our write replaced an edit that we had not seen.
        self.lost: Seen | None = None
        self.notes: dict[str, None] = {}
        self.wrote: list[str] = []

    def run(self, *, dry_run: bool, check: bool) -> int:
        for attempt in range(TRIES + 1):
            seen = self.read()
            try:
                plan = self.plan(seen)
            except Refused as refused:
                if check:
                    print(f"drift: {refused}")
                    return EX_DRIFT
                raise
            self.notes |= dict.fromkeys(plan.notes)
            writes = {
                name: template
                for name, template in plan.writes.items()
                if seen.templates.get(name) != template
            }
            if self.verb == "remove":
                writes = {name: template for name, template in writes.items() if name not in plan.deletes}
            if not writes and not plan.deletes:
                return self.done(seen, check=check)
            if dry_run or check:
                return self.show(seen.templates, writes, plan.deletes, check=check)
            if attempt == TRIES:
                break
            if attempt > 1:
                time.sleep(FIRST_PAUSE * 2 ** (attempt - 2))
            if writes:
                self.write(seen, plan, writes)
            else:
                self.delete(seen, plan)
        raise MirrorError(
            EX_TEMPFAIL,
            f"others keep writing OSMO's pod templates: {self.spec.template} did not stay as written after "
            f"{TRIES} tries. Run this again when they are "
            "done (`osmo config history POD_TEMPLATE` shows who).",
        )

    def read(self) -> Seen:
        latest = 0
        record, revision = Record(), None
        for page in range(PAGES):
            rows = self.cli.history(page * PAGE)
            latest = max([latest, *(row.number for row in rows)])
            for row in rows:
                found = read_record(row, self.spec.template)
                if found:
                    record, revision = found, row.number
                    break
            if revision is not None or len(rows) < PAGE:
                break
        written = self.snapshot(revision) if revision is not None else None
        return Seen(latest, self.cli.templates(), record, written)

    def snapshot(self, revision: int) -> Templates | None:
        """The templates at a revision; None where an administrator deleted it from the history."""
        try:
            return self.cli.templates(revision)
        except MirrorError as error:
            if "No config found" in str(error):
                return None
            raise

    def plan(self, seen: Seen) -> Plan:
        if self.lost is None:
            return self.plan_of(self.spec, seen, self.snapshot)
        try:
            return self.plan_of(self.spec, self.lost, self.snapshot)
        except Refused:
            # Restore an edit that we replaced without having seen it, before this ends.
            self.cli.update(
                {self.spec.template: self.lost.templates[self.spec.template]},
                f"aml-mirror: put back revision {self.lost.revision} of {self.spec.template}",
            )
            raise

    def write(self, seen: Seen, plan: Plan, writes: Templates) -> None:
        write = secrets.token_hex(4)
        # A template that is still to be deleted stays on record, because OSMO may refuse to delete it.
        pending = OUTPUTS_TEMPLATE in plan.deletes
        record = replace(plan.record, outputs=plan.record.outputs or pending)
        self.cli.update(writes, record.describe(self.spec.template, plan.what, write))
        self.wrote += writes
        self.lost = self.lost_edit(seen, write)

    def lost_edit(self, seen: Seen, write: str) -> Seen | None:
        """OSMO's state with the edit that came after our read and that our write replaced."""
        rows = [row for row in self.cli.history() if row.number > seen.revision]
        ours = next((row for row in rows if f"write {write}]" in row.description), None)
        between = [row for row in rows if ours is not None and row.number < ours.number]
        if ours is None or not between:
            return None
        theirs = max(between, key=lambda row: row.number)
        template = (self.snapshot(theirs.number) or {}).get(self.spec.template)
        if template is None or template == seen.templates.get(self.spec.template):
            return None
        if max(row.number for row in rows) > ours.number:
            self.warn_of(theirs, ours)
            return None
        print(
            f"azureml-mirror: revision {theirs.number} by {theirs.username} came in between; merging on it",
            file=sys.stderr,
        )
        # With the record from before our write, because our write describes a template without their edit.
        templates = {**seen.templates, self.spec.template: template}
        return replace(seen, revision=theirs.number, templates=templates)

    def warn_of(self, theirs: Revision, ours: Revision) -> None:
        print(
            f"azureml-mirror: warning: revision {theirs.number} by {theirs.username} was replaced by "
            f"{ours.number}, on which others have built since. "
            f"Compare: osmo config diff POD_TEMPLATE:{theirs.number} POD_TEMPLATE:{ours.number}",
            file=sys.stderr,
        )

    def delete(self, seen: Seen, plan: Plan) -> None:
        for name in plan.deletes:
            record = replace(plan.record, outputs=False)
            if name == OUTPUTS_TEMPLATE and self.spec.template in plan.deletes:
                record = replace(seen.record, outputs=False)
            description = record.describe(self.spec.template, f"deleted {name}", secrets.token_hex(4))
            try:
                self.cli.delete(name, description)
            except InUse:
                if name != self.spec.template or name not in plan.writes:
                    raise
                # Pools list the template that the mirror created, so it stays, without the variables.
                self.cli.update(
                    {name: plan.writes[name]},
                    plan.record.describe(name, plan.what, secrets.token_hex(4)),
                )
            self.wrote.append(name)

    def done(self, seen: Seen, *, check: bool) -> int:
        for note in self.notes:
            print(f"azureml-mirror: {note}", file=sys.stderr)
        if self.verb == "apply":
            for what in missing_identity(seen.templates):
                print(
                    f"azureml-mirror: warning: no pod template carries {what}; a mirror would find no "
                    "credential. Add it to default_ctrl.",
                    file=sys.stderr,
                )
        state = "in place" if self.verb == "apply" else "gone"
        how = "written" if self.wrote else "unchanged" if not check else "no drift"
        print(
            f"azureml-mirror: the variables in {self.spec.template} are {state} ({how}, revision "
            f"{seen.revision})"
        )
        return 0

    def show(self, templates: Templates, writes: Templates, deletes: list[str], *, check: bool) -> int:
        for name, template in {**writes, **dict.fromkeys(deletes, None)}.items():
            old, new = (
                json.dumps(value, indent=2, sort_keys=True).splitlines() if value is not None else []
                for value in (templates.get(name), template)
            )
            print(
                "\n".join(
                    difflib.unified_diff(
                        old, new, f"{name} (OSMO)", f"{name} (after {self.verb})", lineterm=""
                    )
                )
            )
        if check:
            changed = ", ".join([*writes, *deletes])
            print(
                f"azureml-mirror: drift in {changed}. Run `{self.verb}` without --check to correct it.",
                file=sys.stderr,
            )
            return EX_DRIFT
        return 0


if __name__ == "__main__":
    sys.exit(main())
