"""Where the base comes from, and what is refused because OSMO would ignore what the module writes."""

import json
import re

import pytest
from mirror_world import ENV, ROOT, STOCK, WORKSPACE, env_list, user_env
from osmo_charts import LAYOUTS, SERVICE, UMBRELLA

USER = "{{USER_CONTAINER_NAME}}"
OWN = {"spec": {"containers": [{"name": USER, "args": ["0644", "line\n", "<&>"], "resources": {"n": 0.5}}]}}
SERVICE_CHART = LAYOUTS["6.3", "service 1.3"]
LATER_CHART = LAYOUTS["6.4", "osmo, later"]


def release(tf, values):
    (tf.root / "release.json").write_text(json.dumps(values))
    return "release.json"


def errors(said):
    return re.findall(r"Error: (.*?)(?= Error: |$)", said)


def test_release_values(tf):
    values = SERVICE_CHART.values({"default_user": OWN}, enabled=True)
    tf.apply(azureml_workspace=WORKSPACE, osmo_release_values=release(tf, values))
    template = tf.outputs()["pod_template"]
    assert user_env(template) == env_list()
    del template["spec"]["containers"][0]["env"]
    assert template == OWN
    assert "no pod template gpu; they have default_user" in tf.fail(pod_template_name="gpu")


def test_release_values_that_are_no_json_or_not_there(tf):
    (tf.root / "release.json").write_text("services: {}\n")
    said = tf.fail(azureml_workspace=WORKSPACE, osmo_release_values="release.json")
    assert "osmo_release_values is not a JSON object" in said
    (tf.root / "release.json").unlink()
    assert "There is no file at osmo_release_values" in tf.fail()


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("configuration.podTemplates", 'set helm_values_path = "services.configs.podTemplates"'),
        ("services.configs", "have no pod template default_user; they have enabled, podTemplates"),
        ("services.configs.podTemplates.default_user.spec", "have no pod template default_user"),
        ("services.configs.enabled", 'set helm_values_path = "services.configs.podTemplates"'),
        ("podTemplates", 'set helm_values_path = "services.configs.podTemplates"'),
    ],
)
def test_a_wrong_path_is_one_error_that_names_the_right_one(tf, path, remedy):
    values = SERVICE_CHART.values({"default_user": OWN}, enabled=True)
    said = tf.fail(
        azureml_workspace=WORKSPACE, osmo_release_values=release(tf, values), helm_values_path=path
    )
    assert len(errors(said)) == 1 and "Warning" not in said
    assert remedy in said


def test_values_with_no_pod_templates_at_all(tf):
    said = tf.fail(azureml_workspace=WORKSPACE, osmo_release_values=release(tf, {"services": {}}))
    assert len(errors(said)) == 1
    assert "Take the file with --all" in said and 'osmo_config_mode = "api"' in said


@pytest.mark.parametrize("off", [False, None, 0, ""])
@pytest.mark.parametrize("layout", [SERVICE_CHART, LAYOUTS["6.4", "osmo 0.1"]])
def test_a_configuration_that_osmo_ignores_is_refused(tf, layout, off):
    values = layout.values({"default_user": OWN}, enabled=off)
    said = tf.fail(
        azureml_workspace=WORKSPACE, osmo_release_values=release(tf, values), helm_values_path=layout.path
    )
    assert len(errors(said)) == 1
    assert f"The release has {layout.switch}: false" in said and f"--set {layout.switch}=true" in said
    assert 'osmo_config_mode = "api"' in said


@pytest.mark.parametrize("snapshot", [{}, {"pod_templates": {}}, "text"])
def test_a_snapshot_that_replaces_the_configuration_is_refused(tf, snapshot):
    values = LATER_CHART.values({"default_user": OWN}, snapshot=snapshot)
    given = {"osmo_release_values": release(tf, values), "helm_values_path": UMBRELLA}
    said = tf.fail(azureml_workspace=WORKSPACE, **given)
    assert len(errors(said)) == 1
    assert "The release has configuration.snapshot" in said
    assert "set configuration.snapshot to null" in said
    release(tf, LATER_CHART.values({"default_user": OWN}, snapshot=None))
    tf.apply()
    assert tf.outputs()["mirror_enabled"] is True


def test_a_chart_without_the_switch_is_fine(tf):
    values = LATER_CHART.values({"default_user": OWN})
    tf.apply(azureml_workspace=WORKSPACE, osmo_release_values=release(tf, values), helm_values_path=UMBRELLA)
    assert user_env(tf.outputs()["pod_template"]) == env_list()


def test_a_mirror_that_is_off_is_refused_for_nothing_of_it(tf):
    """Nothing is written, and switching off must be possible whatever OSMO's state."""
    values = SERVICE_CHART.values({"default_user": OWN}, enabled=False)
    tf.apply(
        azureml_workspace=WORKSPACE,
        should_enable_azureml_mirror=False,
        osmo_release_values=release(tf, values),
    )
    tf.apply(osmo_release_values=None, accept_stock_template=False)


def test_api_mode_writes_although_the_config_map_is_off_and_says_until_when(tf, osmo):
    values = SERVICE_CHART.values({"default_user": OWN}, enabled=False)
    tf.apply(
        azureml_workspace=WORKSPACE,
        osmo_config_mode="api",
        accept_stock_template=False,
        osmo_release_values=release(tf, values),
    )
    assert user_env(osmo.templates["default_user"]) == env_list()
    reason = tf.outputs()["mirror_reason"]
    assert "api mode is for OSMO 6.2 and 6.3" in reason
    assert 'osmo_config_mode = "configmap" takes over' in reason


def test_no_base_is_refused_unless_the_stock_template_is_accepted(tf):
    tf.arguments = {}
    said = tf.fail(azureml_workspace=WORKSPACE)
    assert len(errors(said)) == 1 and "Warning" not in said
    assert "No base was given" in said and "set accept_stock_template = true" in said
    assert "helm get values osmo" in said and "base_pod_template" in said
    assert "No base was given" in tf.fail(accept_stock_template=True, pod_template_name="gpu_user")
    tf.apply(pod_template_name="default_user")
    template = tf.outputs()["pod_template"]
    assert user_env(template) == env_list()
    del template["spec"]["containers"][0]["env"]
    assert template == STOCK


def test_a_variable_that_is_there_is_replaced_in_its_place(tf):
    theirs = {"name": "AZURE_RESOURCE_GROUP", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    last = {"name": "LAST", "value": "0644"}
    template = {"spec": {"containers": [{"name": USER, "env": [theirs, last]}]}}
    values = SERVICE_CHART.values({"default_user": template}, enabled=True)
    tf.apply(azureml_workspace=WORKSPACE, osmo_release_values=release(tf, values))
    env = user_env(tf.outputs()["pod_template"])
    assert env[0] == {"name": "AZURE_RESOURCE_GROUP", "value": ENV["AZURE_RESOURCE_GROUP"]}
    assert env[1] == last and len(env) == 5


@pytest.mark.parametrize(
    "template",
    [{"spec": 1}, {"spec": [1]}, {"spec": {"containers": {"a": 1}}}, {"spec": {"containers": "x"}}],
)
def test_a_template_of_the_release_that_is_none(tf, template):
    values = SERVICE_CHART.values({"default_user": template}, enabled=True)
    said = tf.fail(azureml_workspace=WORKSPACE, osmo_release_values=release(tf, values))
    assert len(errors(said)) == 1
    assert "The pod template default_user of the base is none" in said and "for example" in said


def test_the_base_from_a_values_file_as_the_readme_shows_it(tf):
    readme = (ROOT / "terraform" / "README.md").read_text()
    (expression,) = re.findall(r"^ *base_pod_template = (yamldecode.*)$", readme, re.MULTILINE)
    template = {"default_user": OWN}
    (tf.root / "values.yaml").write_text(json.dumps(SERVICE_CHART.values(template, enabled=True)))
    from mirror_world import Raw

    tf.apply(azureml_workspace=WORKSPACE, base_pod_template=Raw(expression), accept_stock_template=False)
    found = tf.outputs()["pod_template"]
    assert user_env(found) == env_list()
    del found["spec"]["containers"][0]["env"]
    assert found == OWN
    assert SERVICE in expression
