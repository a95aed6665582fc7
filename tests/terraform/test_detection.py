"""Is there a workspace, and what are its coordinates?"""

import json

import pytest
from mirror_world import ENV, RELEASE, SUBSCRIPTION, WORKSPACE, Raw, env_list, user_env, workspace_id

COORDINATES = {
    name: ENV[name] for name in ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZUREML_WORKSPACE_NAME")
}


def test_given_workspace(tf):
    tf.apply(azureml_workspace=WORKSPACE | {"name": "mlw-robots", "workspace_id": "6d2c"})
    outputs = tf.outputs()
    assert outputs["mirror_enabled"] is True
    assert outputs["azureml_env"] == COORDINATES
    assert outputs["mirror_reason"] == (
        "The mirror is on: runs go to workspace mlw-robots in resource group rg-robots, "
        "found in azureml_workspace."
    )
    assert tf.plan()[0] is False


def test_no_workspace_is_off_without_error_or_difference(tf, helm):
    tf.apply(azureml_workspace=None, helm_release=RELEASE, helm_values_file="out/overlay.yaml")
    outputs = tf.outputs()
    assert outputs["mirror_enabled"] is False and outputs["azureml_env"] == {}
    assert outputs["mirror_reason"].startswith("The mirror is off because azureml_workspace is null")
    assert tf.plan()[0] is False
    assert helm.history() == [] and not (tf.root / "out").exists()
    assert json.loads(tf.state())["resources"] == []


def test_toggled_off_leaves_no_trace(tf, helm):
    tf.apply(azureml_workspace=WORKSPACE, should_enable_azureml_mirror=False, helm_release=RELEASE)
    assert tf.outputs()["mirror_reason"] == "The mirror is off because should_enable_azureml_mirror is false."
    assert helm.history() == [] and json.loads(tf.state())["resources"] == []


def platform_state(tf, **outputs):
    """A state like the one from the platform's own apply, created with terraform itself."""
    folder = tf.root.parent / "platform"
    folder.mkdir(exist_ok=True)
    blocks = {name: {"value": value} for name, value in outputs.items()}
    (folder / "main.tf.json").write_text(json.dumps({"output": blocks} if blocks else {"locals": {"x": 1}}))
    here, tf.root = tf.root, folder
    done = tf.run("apply", "-auto-approve", "-input=false")
    tf.root = here
    assert done.returncode == 0, done.stderr
    return {"backend": "local", "config": {"path": str(folder / "terraform.tfstate")}}


def test_platform_state(tf):
    found = {"id": workspace_id(), "name": "mlw-robots", "workspace_id": "6d2c"}
    state = platform_state(tf, azureml_workspace=found, other="x")
    tf.apply(platform_state=state)
    outputs = tf.outputs()
    assert outputs["azureml_env"] == COORDINATES
    assert "found in the output azureml_workspace of the platform's state" in outputs["mirror_reason"]
    assert tf.plan()[0] is False


def test_platform_state_workspace_appears_is_renamed_and_disappears(tf, osmo):
    state = platform_state(tf, other="x")
    tf.apply(platform_state=state, osmo_config_mode="api")
    assert tf.outputs()["mirror_reason"] == (
        "The mirror is off because the platform's state has no output azureml_workspace."
    )
    assert tf.plan()[0] is False and osmo.state["calls"] == []
    platform_state(tf, azureml_workspace=WORKSPACE)
    tf.apply()
    assert user_env(osmo.templates["default_user"]) == env_list()
    platform_state(tf, azureml_workspace={"id": workspace_id("mlw-renamed")})
    tf.apply()
    assert user_env(osmo.templates["default_user"]) == env_list(
        ENV | {"AZUREML_WORKSPACE_NAME": "mlw-renamed"}
    )
    for gone in (None, {"id": None, "name": None}):
        platform_state(tf, azureml_workspace=gone)
        tf.apply()
        assert user_env(osmo.templates["default_user"]) == []
        assert "is null" in tf.outputs()["mirror_reason"] or "no output" in tf.outputs()["mirror_reason"]
    assert len(osmo.revisions) == 4


def test_platform_state_by_another_output_name_and_workspace_argument_wins(tf):
    state = platform_state(tf, aml=WORKSPACE) | {"output": "aml"}
    tf.apply(platform_state=state)
    assert tf.outputs()["mirror_enabled"] is True
    tf.apply(azureml_workspace={"id": workspace_id("mlw-given")})
    assert tf.outputs()["azureml_env"]["AZUREML_WORKSPACE_NAME"] == "mlw-given"


@pytest.mark.parametrize("value", [{"id": "mlw-robots"}, {"name": "mlw-robots"}, "mlw-robots", [1]])
def test_platform_state_with_something_else_in_the_output(tf, value):
    said = tf.fail(platform_state=platform_state(tf, azureml_workspace=value))
    assert "The output azureml_workspace of the platform's state is not a workspace" in said
    assert "/workspaces/mlw-robots" in said


def test_a_secret_in_the_backend_configuration_is_refused(tf):
    said = tf.fail(platform_state={"backend": "azurerm", "config": {"key": "x", "access_key": "hunter2"}})
    assert "platform_state.config holds a secret" in said and "ARM_ACCESS_KEY" in said


@pytest.mark.parametrize(
    "given",
    [
        workspace_id().replace("resourceGroups", "resourcegroups").replace("workspaces", "WORKSPACES"),
        workspace_id().replace("Microsoft.MachineLearningServices", "microsoft.machinelearningservices")
        + "/",
        workspace_id().replace("/subscriptions", "/Subscriptions"),
    ],
)
def test_segments_of_the_id_are_read_without_regard_to_case(tf, given):
    tf.apply(azureml_workspace={"id": given})
    assert tf.outputs()["azureml_env"] == COORDINATES


MALFORMED = [
    "mlw-robots",
    "",
    workspace_id().replace(SUBSCRIPTION, "sub-1"),
    workspace_id().replace("workspaces", "registries"),
    workspace_id().replace("MachineLearningServices", "CognitiveServices"),
    workspace_id() + "/computes/gpu",
    " " + workspace_id(),
    workspace_id().replace("/resourceGroups/rg-robots", ""),
]


@pytest.mark.parametrize("given", MALFORMED)
def test_a_malformed_id_is_an_error_that_shows_a_good_one(tf, given):
    said = tf.fail(azureml_workspace={"id": given})
    assert "azureml_workspace.id is not the resource id of an Azure ML workspace" in said
    assert (
        "/resourceGroups/rg-robots/providers/Microsoft.MachineLearningServices/workspaces/mlw-robots" in said
    )


def test_a_null_id_and_a_name_of_another_workspace(tf):
    assert "Pass null for the whole object" in tf.fail(azureml_workspace={"id": None})
    assert "two workspaces are mixed" in tf.fail(azureml_workspace=WORKSPACE | {"name": "mlw-other"})


def test_a_workspace_made_in_the_same_apply_plans(tf, osmo, helm):
    """Its id is unknown before it is created, so whether the mirror is on must not depend on it."""
    tf.extra = {"resource": {"terraform_data": {"workspace": {"input": workspace_id()}}}}
    made = Raw("{ id = terraform_data.workspace.output, name = null }")
    changes, said = tf.plan(azureml_workspace=made, helm_release=RELEASE, helm_values_file="out/overlay.yaml")
    assert changes and "(known after apply)" in said
    tf.apply()
    assert tf.outputs()["azureml_env"] == COORDINATES
    assert len(helm.history()) == 1 and user_env(helm.history()[0]["default_user"]) == env_list()
    assert tf.plan()[0] is False
    tf.apply(osmo_config_mode="api", helm_release=None, helm_values_file=None)
    assert user_env(osmo.templates["default_user"]) == env_list()


def test_a_malformed_id_that_is_known_late_is_refused_too(tf):
    tf.extra = {"resource": {"terraform_data": {"workspace": {"input": "nonsense"}}}}
    said = tf.fail(azureml_workspace=Raw("{ id = terraform_data.workspace.output }"))
    assert "is not the resource id of an Azure ML workspace" in said


def test_a_workspace_marked_as_sensitive(tf):
    tf.apply(azureml_workspace=Raw(f'sensitive({{ id = "{workspace_id()}" }})'))
    assert tf.outputs()["azureml_env"] == COORDINATES
    tf.apply(azureml_workspace=Raw(f'{{ id = sensitive("{workspace_id()}") }}'))
    assert tf.outputs()["azureml_env"] == COORDINATES
