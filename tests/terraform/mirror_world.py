"""The real terraform on a copy of the module, and stand-ins for the programs that it runs."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STUBS = Path(__file__).resolve().parent / "stubs"

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"


def workspace_id(name="mlw-robots", group="rg-robots"):
    return (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}"
        f"/providers/Microsoft.MachineLearningServices/workspaces/{name}"
    )


WORKSPACE = {"id": workspace_id()}
ENV = {
    "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
    "AZURE_RESOURCE_GROUP": "rg-robots",
    "AZUREML_WORKSPACE_NAME": "mlw-robots",
    "OSMO_WORKFLOW_ID": "{{WF_ID}}",
}
RESOURCES = {
    "cpu": "{{USER_CPU}}",
    "memory": "{{USER_MEMORY}}",
    "nvidia.com/gpu": "{{USER_GPU}}",
    "ephemeral-storage": "{{USER_STORAGE}}",
}
STOCK = {
    "spec": {
        "containers": [
            {"name": "{{USER_CONTAINER_NAME}}", "resources": {"limits": RESOURCES, "requests": RESOURCES}}
        ]
    }
}
CTRL = {
    "metadata": {"labels": {"azure.workload.identity/use": "true"}},
    "spec": {"serviceAccountName": "osmo-workflow", "containers": [{"name": "osmo-ctrl"}]},
}
OUTPUTS = ("mirror_enabled", "mirror_reason", "azureml_env", "pod_template", "helm_values", "osmo_api_spec")


def env_list(env=ENV):
    return [{"name": name, "value": value} for name, value in env.items()]


def user_env(template):
    """The variables of the user container as a list of entries."""
    for container in template["spec"].get("containers", []):
        if container["name"] == "{{USER_CONTAINER_NAME}}":
            return container.get("env", [])
    return []


def copy_module(to):
    """Only the module: it needs no files from outside its folder."""
    clean = shutil.ignore_patterns(".terraform*", "*.tfstate*", "__pycache__")
    shutil.copytree(ROOT / "terraform", to / "terraform", ignore=clean)


def base_environment():
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TF_", "AZUREML_MIRROR", "STUB_"))
    }
    # No configuration of this machine, and no update check. Terraform runs for half a second, so that
    # collecting its garbage, which is a quarter of its work, gains nothing.
    quiet = {"CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": os.devnull, "TF_IN_AUTOMATION": "1"}
    return kept | quiet | {"GOGC": "off"}


def in_hcl(value):
    """A value for a .tf.json file, in which ${ and %{ begin a template."""
    if isinstance(value, str):
        return value.replace("${", "$${").replace("%{", "%%{")
    if isinstance(value, list):
        return [in_hcl(item) for item in value]
    if isinstance(value, dict):
        return {key: in_hcl(item) for key, item in value.items()}
    return value


class Raw(str):
    """An HCL expression, not a text."""


def root_of(arguments, extra):
    given = {
        key: f"${{{value}}}" if isinstance(value, Raw) else in_hcl(value) for key, value in arguments.items()
    }
    root = {
        "module": {"mirror": {"source": "./checkout/terraform", **given}},
        "output": {name: {"value": f"${{module.mirror.{name}}}"} for name in OUTPUTS},
    }
    return root | extra


@dataclass
class Terraform:
    root: Path
    env: dict = field(repr=False)
    # Most tests are not about the source of the base.
    arguments: dict = field(default_factory=lambda: {"accept_stock_template": True})
    extra: dict = field(default_factory=dict)

    def write(self):
        (self.root / "main.tf.json").write_text(json.dumps(root_of(self.arguments, self.extra)))

    def run(self, *command):
        return subprocess.run(
            ["terraform", *command, "-no-color"],
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )

    def apply(self, *flags, **arguments):
        self.arguments |= arguments
        self.write()
        done = self.run("apply", "-auto-approve", "-input=false", *flags)
        assert done.returncode == 0, errors_of(done)
        return done.stdout + done.stderr

    def fail(self, **arguments):
        """Applies and expects an error; returns its text without Terraform's line breaks."""
        self.arguments |= arguments
        self.write()
        done = self.run("apply", "-auto-approve", "-input=false")
        assert done.returncode != 0, done.stdout
        return flat(done.stdout + done.stderr)

    def plan(self, **arguments):
        """Whether there is something to change, and the output."""
        self.arguments |= arguments
        self.write()
        done = self.run("plan", "-input=false", "-detailed-exitcode", "-lock=false")
        assert done.returncode in (0, 2), errors_of(done)
        return done.returncode == 2, flat(done.stdout + done.stderr)

    def destroy(self):
        done = self.run("destroy", "-auto-approve", "-input=false")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def outputs(self):
        done = self.run("output", "-json")
        assert done.returncode == 0, done.stderr
        return {name: output["value"] for name, output in json.loads(done.stdout).items()}

    def state(self):
        return (self.root / "terraform.tfstate").read_text()


def errors_of(done):
    """Terraform's output from its first error on."""
    said = done.stdout + done.stderr
    return said[said.find("Error: ") :]


def flat(text):
    return " ".join(text.replace("│", " ").replace("╷", " ").replace("╵", " ").split())


def install(folder, name, stub):
    file = folder / name
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -B "{stub}" "$@"\n')
    file.chmod(0o755)
    return file


class Osmo:
    """The control plane behind the stub, as a test sees it."""

    def __init__(self, folder, env):
        self.file = folder.parent / "osmo-state.json"
        self.env = env
        env["STUB_OSMO_STATE"] = str(self.file)
        self.program = install(folder, "osmo", STUBS / "osmo_stub.py")
        self.reset({"default_ctrl": CTRL, "default_user": STOCK})

    def reset(self, templates, **more):
        self.state = {
            "mode": "api", "templates": templates, "pools": {}, "revisions": [], "races": [], "failures":
            [], "calls": [],
        } | more  # fmt: skip
        self.edit(templates, by="setup")

    @property
    def state(self):
        return json.loads(self.file.read_text())

    @state.setter
    def state(self, value):
        self.file.write_text(json.dumps(value))

    def set(self, **more):
        self.state = self.state | more

    def edit(self, templates, by="eve"):
        """A write by somebody else."""
        state = self.state
        state["templates"] |= templates
        state["revisions"].append(
            {
                "config_type": "POD_TEMPLATE", "name": "", "revision": len(state["revisions"]) + 1,
                "username": by, "created_at": "2026-01-01T00:00:00", "description": f"by {by}", "tags": [],
                "data": json.loads(json.dumps(state["templates"])),
            }
        )  # fmt: skip
        self.state = state

    @property
    def templates(self):
        return self.state["templates"]

    @property
    def revisions(self):
        return self.state["revisions"]

    def env_at(self, revision, template="default_user"):
        data = self.revisions[revision - 1]["data"]
        return (
            {entry["name"]: entry.get("value") for entry in user_env(data[template])}
            if template in data
            else {}
        )


RELEASE = {"name": "osmo", "namespace": "osmo-control-plane", "chart": "osmo/service", "version": "1.3.1"}
