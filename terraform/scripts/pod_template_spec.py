"""The script's input (Spec) and what it stores in OSMO's history (Record)."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from osmo_config_cli import MirrorError, Revision, Template

EX_USAGE = 64  # sysexits.h
SPEC_HINT = (
    "Take the module's output: terraform output -raw osmo_api_spec > spec.json, then --spec spec.json."
)

OUTPUTS_TEMPLATE = "azureml_mirror_outputs"

# OSMO keeps a description with each write, so the record is stored there. "owns FOO@12" means that FOO had
# another value before, which revision 12 shows. "created" names what did not exist before and is removed with
# the last variable.
RECORD = re.compile(
    r"^aml-mirror (?P<template>\S+): .*"
    r"\[owns (?P<owns>[^;\]]*); created (?P<created>\w+); outputs (?P<outputs>yes|no); "
    r"write (?P<write>[0-9a-f]{8})\]$"
)


@dataclass(frozen=True)
class Spec:
    """What Terraform asks for."""

    template: str
    env: dict[str, str]
    base: Template
    outputs_template: Template | None = None
    overwrite_existing: bool = False


@dataclass(frozen=True)
class Record:
    """What the mirror added to a template, as its last write left it."""

    owns: dict[str, int | None] = field(default_factory=dict)
    created: str = "nothing"  # nothing, env, container, template
    outputs: bool = False

    def describe(self, template: str, what: str, write: str) -> str:
        owns = ",".join(name if before is None else f"{name}@{before}" for name, before in self.owns.items())
        outputs = "yes" if self.outputs else "no"
        record = f"owns {owns}; created {self.created}; outputs {outputs}; write {write}"
        return f"aml-mirror {template}: {what} [{record}]"


def read_record(row: Revision, template: str) -> Record | None:
    """The record in a revision's description. None if the mirror did not write it, or for another
    template.
    """
    found = RECORD.match(row.description)
    if not found or found["template"] != template:
        return None
    owns: dict[str, int | None] = {}
    for part in filter(None, found["owns"].split(",")):
        name, _, before = part.partition("@")
        owns[name] = int(before) if before.isdigit() else None
    return Record(owns, found["created"], found["outputs"] == "yes")


def read_spec(source: str | None) -> Spec:
    """The specification from a file, standard input or AZUREML_MIRROR_SPEC. MirrorError (64) if there is
    none.
    """
    where = source or "AZUREML_MIRROR_SPEC"
    try:
        if source == "-":
            text = sys.stdin.read()
        else:
            text = Path(source).read_text(encoding="utf-8") if source else os.environ["AZUREML_MIRROR_SPEC"]
        value = json.loads(text)
        # `terraform output -json` prints a string output as a JSON string of JSON.
        value = json.loads(value) if isinstance(value, str) else value
        spec = Spec(
            template=value["template"],
            env={variable["name"]: variable["value"] for variable in value["env"]},
            base=value.get("base") or {},
            outputs_template=value.get("outputs_template"),
            overwrite_existing=bool(value.get("overwrite_existing", False)),
        )
        texts = [spec.template, *spec.env, *spec.env.values()]
        if (
            not spec.env
            or not all(isinstance(text, str) for text in texts)
            or not isinstance(spec.base, dict)
        ):
            raise ValueError("template and env are text, env is not empty")
    except KeyError as error:
        missing = "it is not set" if error.args[0] == "AZUREML_MIRROR_SPEC" else f"{error.args[0]} is missing"
        raise MirrorError(EX_USAGE, f"no specification in {where}: {missing}. {SPEC_HINT}") from error
    except OSError as error:
        raise MirrorError(
            EX_USAGE, f"the specification {where} cannot be read: {error.strerror}. {SPEC_HINT}"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise MirrorError(EX_USAGE, f"{where} is not a specification: {error}. {SPEC_HINT}") from error
    return spec
