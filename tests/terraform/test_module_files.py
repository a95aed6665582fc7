"""The module's own files are formatted, valid and documented. Its examples and README work as written."""

import ast
import json
import re
import shutil
import subprocess
import sys

import pytest
from mirror_world import (
    CTRL,
    ROOT,
    STOCK,
    base_environment,
    copy_module,
    env_list,
    user_env,
    workspace_id,
)
from osmo_charts import LAYOUTS
from real_helm import merge

MODULE = ROOT / "terraform"
README = (MODULE / "README.md").read_text()


def terraform(*command, cwd, env=None):
    return subprocess.run(
        ["terraform", *command],
        cwd=cwd,
        env=env or base_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    copy_module(folder)
    return folder / "terraform"


def test_formatted():
    done = terraform("fmt", "-check", "-recursive", "-diff", cwd=MODULE)
    assert done.returncode == 0, done.stdout


def test_valid_and_its_own_tests_pass(checkout):
    assert terraform("init", "-no-color", cwd=checkout).returncode == 0
    done = terraform("validate", "-no-color", cwd=checkout)
    assert done.returncode == 0 and "Warning" not in done.stdout, done.stdout + done.stderr
    done = terraform("test", "-no-color", cwd=checkout)
    assert done.returncode == 0 and "10 passed, 0 failed" in done.stdout, done.stdout + done.stderr


def test_no_provider_is_needed():
    for file in MODULE.rglob("*.tf"):
        text = file.read_text()
        assert "required_providers" not in text
        kinds = set(re.findall(r'^(?:resource|data) "([a-z_]+)"', text, re.MULTILINE))
        assert kinds <= {"terraform_data", "terraform_remote_state"}, file


def test_every_file_is_small_and_named_by_its_topic():
    for file in MODULE.glob("*.tf"):
        assert len(file.read_text().splitlines()) <= 300, file
        assert re.fullmatch(r"(main|variables)\.[a-z_]+\.tf|outputs\.tf|terraform\.tf", file.name)


def blocks(kind):
    found = {}
    for file in MODULE.glob("*.tf"):
        for name, body in re.findall(
            rf'^{kind} "(\w+)" {{\n(.*?)^}}', file.read_text(), re.MULTILINE | re.DOTALL
        ):
            found[name] = body
    return found


def table(heading):
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_the_readme_lists_every_input_and_output():
    assert sorted(table("Inputs")) == sorted(blocks("variable"))
    assert sorted(table("Outputs")) == sorted(blocks("output"))


def test_every_input_is_described_and_every_message_shows_a_good_one():
    for name, body in blocks("variable").items():
        assert "description" in body, name
        for message in re.findall(r"error_message += (.*)$", body, re.MULTILINE):
            assert re.search(
                r"for example|like |it has the form|Make it with|Set |set osmo|export", message, re.I
            ), message
    assert all("description" in body for body in blocks("output").values())


def steps(heading):
    """The fenced blocks of a section, in their order."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    for kind, body in re.findall(r"^ *```(sh|hcl)\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL):
        yield kind, re.sub(r"^   ", "", body, flags=re.MULTILINE)


def do(heading, root, env):
    said = ""
    for kind, body in steps(heading):
        if kind == "hcl":
            (root / "azureml-mirror.tf").write_text(body)
            continue
        done = subprocess.run(
            ["sh", "-e", "-c", body], cwd=root, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, body + done.stdout + done.stderr
        said += done.stdout
    return said


def test_enabling_and_disabling_as_the_readme_says(tmp_path, programs, helm):
    root = tmp_path / "root"
    root.mkdir()
    (root / "platform.tf").write_text('resource "terraform_data" "platform" {}\n')
    copy_module(root / "azureml-mirror")
    said = do("Enabling", root, programs[1])
    assert "The mirror is on: runs go to workspace mlw-robots" in said and "mlw-robots" in said
    assert user_env(helm.history()[-1]["default_user"]) == env_list()
    said = do("Disabling", root, programs[1])
    assert "The mirror is off because should_enable_azureml_mirror is false." in said
    assert helm.history()[-1] == {"default_ctrl": CTRL, "default_user": STOCK} and len(helm.history()) == 2
    left = json.loads((root / "terraform.tfstate").read_text())["resources"]
    assert [resource["name"] for resource in left] == ["platform"]


def test_enabling_and_disabling_in_api_mode_as_the_readme_says(tmp_path, programs, osmo):
    """The variation that the section's first paragraph describes."""
    root = tmp_path / "root"
    root.mkdir()
    copy_module(root / "azureml-mirror")
    block = dict(steps("Enabling"))["hcl"]
    block = re.sub(r"\n  helm_release = \{.*?\n  \}\n", "\n", block, flags=re.DOTALL)
    block = re.sub(r"osmo_release_values +=.*", 'osmo_config_mode = "api"', block)
    (root / "azureml-mirror.tf").write_text(block)
    for command in (["init"], ["apply", "-auto-approve"]):
        assert terraform(*command, cwd=root, env=programs[1]).returncode == 0
    assert user_env(osmo.templates["default_user"]) == env_list()
    (root / "azureml-mirror.tf").write_text(
        block.replace("should_enable_azureml_mirror = true", "should_enable_azureml_mirror = false")
    )
    assert terraform("apply", "-auto-approve", cwd=root, env=programs[1]).returncode == 0
    assert osmo.templates == {"default_ctrl": CTRL, "default_user": STOCK}


@pytest.fixture
def example(checkout, tmp_path, request):
    """One example, initialised in its place in a copy of the repository."""
    shutil.copytree(checkout.parent, tmp_path / "repository", symlinks=True)
    folder = tmp_path / "repository" / "terraform" / "examples" / request.param
    assert terraform("init", "-no-color", cwd=folder).returncode == 0
    assert terraform("validate", "-no-color", cwd=folder).returncode == 0
    return folder


def apply(folder, env, **variables):
    flags = [
        f"-var={name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in variables.items()
    ]
    done = terraform("apply", "-no-color", "-auto-approve", "-input=false", *flags, cwd=folder, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    done = terraform("output", "-json", cwd=folder, env=env)
    return {name: output["value"] for name, output in json.loads(done.stdout).items()}


@pytest.mark.parametrize("example", ["default"], indirect=True)
def test_example_default(example, programs, helm):
    assert "is off" in apply(example, programs[1])["mirror_reason"]
    (example / "release-values.json").write_text(json.dumps(helm.values()))
    given = {"azureml_workspace": {"id": workspace_id()}, "release_values": "release-values.json"}
    assert "is on" in apply(example, programs[1], **given)["mirror_reason"]
    assert user_env(helm.history()[-1]["default_user"]) == env_list()


def state_of(folder, workspace):
    folder.mkdir(parents=True)
    (folder / "main.tf.json").write_text(json.dumps({"output": {"azureml_workspace": {"value": workspace}}}))
    assert terraform("apply", "-auto-approve", cwd=folder).returncode == 0


@pytest.mark.parametrize("example", ["remote-state"], indirect=True)
def test_example_remote_state(example, programs, osmo, tmp_path):
    state_of(tmp_path / "platform", {"id": workspace_id(), "name": "mlw-robots"})
    state = {"backend": "local", "config": {"path": str(tmp_path / "platform" / "terraform.tfstate")}}
    outputs = apply(example, programs[1], platform_state=state)
    assert "found in the output azureml_workspace" in outputs["mirror_reason"]
    assert user_env(osmo.templates["default_user"])[:4] == env_list()
    check = [
        sys.executable,
        "-B",
        example.parents[1] / "scripts" / "osmo_pod_template.py",
        "apply",
        "--check",
        "--spec",
        "-",
    ]
    done = subprocess.run(
        check, input=outputs["osmo_api_spec"], env=programs[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


CONTROL_PLANE = """
services:
  configs:
    enabled: true
    podTemplates:
      default_ctrl:
        metadata: {labels: {azure.workload.identity/use: "true"}}
        spec: {serviceAccountName: "osmo-workflow"}
      default_user:
        spec:
          volumes: [{name: dshm, emptyDir: {medium: Memory, sizeLimit: "{{USER_SHM_SIZE}}"}}]
          containers:
            - name: "{{USER_CONTAINER_NAME}}"
              resources: {limits: {cpu: "{{USER_CPU}}"}}
              volumeMounts: [{name: dshm, mountPath: /dev/shm}]
"""
PLATFORMS = """
services:
  configs:
    podTemplates:
      gpu_tpl: {spec: {nodeSelector: {gpu: "a100"}}}
    pools: {default: {platforms: {gpu: {override_pod_template: [gpu_tpl]}}}}
"""


@pytest.mark.parametrize("example", ["physical-ai-toolchain"], indirect=True)
def test_example_physical_ai_toolchain(example, programs, tmp_path):
    """Its deploy script passes to helm the control plane's file, the identity's file and
    --platform-values.
    """
    values = tmp_path / "toolchain" / "infrastructure" / "setup" / "values"
    values.mkdir(parents=True)
    (values / "osmo-control-plane.yaml").write_text(CONTROL_PLANE)
    (values / "osmo-control-plane-identity.yaml").write_text("serviceAccount: {}\n")
    (values / "osmo-platforms.yaml").write_text(PLATFORMS)
    state_of(tmp_path / "toolchain" / "infrastructure" / "terraform", {"id": workspace_id()})

    def with_helm(*files):
        defaults = LAYOUTS["6.3", "service 1.3"].defaults()
        return merge(tmp_path / "charts", defaults, CONTROL_PLANE, "serviceAccount: {}", *files)

    def deployed(outputs):
        return with_helm(outputs["platform_values"])

    without = with_helm(PLATFORMS)
    on = deployed(apply(example, programs[1], toolchain=str(tmp_path / "toolchain")))
    containers = on["services"]["configs"]["podTemplates"]["default_user"]["spec"]["containers"]
    assert containers[0].pop("env") == env_list()
    assert on == without
    assert (
        deployed(apply(example, programs[1], toolchain=str(tmp_path / "toolchain"), mirror=False)) == without
    )


def test_the_script_imports_nothing_but_the_standard_library():
    scripts = sorted((MODULE / "scripts").glob("*.py"))
    own = {script.stem for script in scripts}
    assert "osmo_pod_template" in own
    for script in scripts:
        tree = ast.parse(script.read_text(), feature_version=(3, 11))
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert all(module.split(".")[0] in sys.stdlib_module_names | own for module in names), (
                script.name,
                names,
            )


def test_nothing_is_left_behind_in_the_checkout():
    left = [path for path in MODULE.rglob("*") if re.search(r"\.terraform|\.tfstate|\.lock\.hcl$", path.name)]
    assert left == []
