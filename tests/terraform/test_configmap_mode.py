"""configmap mode: the overlay and its file. Helm is real."""

import json

import pytest
import yaml
from mirror_world import (
    CTRL,
    ENV,
    RELEASE,
    STOCK,
    WORKSPACE,
    env_list,
    user_env,
    workspace_id,
)
from osmo_charts import LAYOUTS, OWN, values_with
from real_helm import merge

TEMPLATES = ("services", "configs", "podTemplates")
ON = {"azureml_workspace": WORKSPACE, "helm_release": RELEASE}
SERVICE = LAYOUTS["6.3", "service 1.3"]


def at(values, path=TEMPLATES):
    for key in path:
        values = values[key]
    return values


def taken(tf, values):
    """The file of `helm get values --all` of a release with these values."""
    path = tf.root / "release-values.json"
    path.write_text(json.dumps(merge(tf.root / "charts", SERVICE.defaults(), values)))
    return str(path)


def test_the_overlay_after_the_operators_files_changes_nothing_but_the_variables(tf):
    def with_helm(*files):
        return merge(tf.root / "charts", SERVICE.defaults(), *files)

    own = values_with(OWN, default_ctrl=CTRL)
    tf.apply(azureml_workspace=WORKSPACE, osmo_release_values=taken(tf, own))
    on = tf.outputs()["helm_values"]
    expected = with_helm(own)
    at(expected)["default_user"]["spec"]["containers"][0]["env"] += env_list()
    assert with_helm(own, on) == expected
    tf.apply(should_enable_azureml_mirror=False)
    off = tf.outputs()["helm_values"]
    assert with_helm(own, on, off) == with_helm(own, off) == with_helm(own)


def test_the_overlay_holds_nothing_but_the_list_of_containers(tf):
    tf.apply(azureml_workspace=WORKSPACE, osmo_release_values=taken(tf, values_with(OWN)))
    overlay = at(yaml.safe_load(tf.outputs()["helm_values"]))
    assert overlay.keys() == {"default_user"} and overlay["default_user"].keys() == {"spec"}
    assert overlay["default_user"]["spec"].keys() == {"containers"}


def test_jinja_markers_are_quoted_in_the_overlay(tf):
    tf.apply(azureml_workspace=WORKSPACE)
    text = tf.outputs()["helm_values"]
    assert '"{{USER_CPU}}"' in text and '"{{WF_ID}}"' in text
    markers = [line for line in text.splitlines() if "{{" in line]
    assert markers and all('"{{' in line for line in markers)
    resources = at(yaml.safe_load(text))["default_user"]["spec"]["containers"][0]["resources"]
    assert resources == STOCK["spec"]["containers"][0]["resources"]


@pytest.mark.parametrize("path", ["configuration.podTemplates", "podTemplates", "a.b.c.d.e"])
def test_another_path_in_the_values(tf, path):
    own = {"default_user": OWN}
    for key in reversed(path.split(".")):
        own = {key: own}
    (tf.root / "release-values.json").write_text(json.dumps(own))
    tf.apply(azureml_workspace=WORKSPACE, helm_values_path=path, osmo_release_values="release-values.json")
    overlay = at(yaml.safe_load(tf.outputs()["helm_values"]), path.split("."))
    assert overlay["default_user"]["spec"]["containers"][0]["env"] == [
        {"name": "MINE", "value": "1"},
        *env_list(),
    ]


def test_the_file_is_written_changed_and_put_back(tf):
    file = tf.root / "out" / "deep" / "overlay.yaml"
    tf.apply(azureml_workspace=WORKSPACE, helm_values_file="out/deep/overlay.yaml")
    assert file.read_text() == tf.outputs()["helm_values"]
    assert tf.plan()[0] is False
    tf.apply(azureml_workspace={"id": workspace_id("mlw-other")})
    assert "mlw-other" in file.read_text() and "mlw-robots" not in file.read_text()
    tf.apply(should_enable_azureml_mirror=False)
    assert file.read_text() == tf.outputs()["helm_values"]
    assert at(yaml.safe_load(file.read_text()))["default_user"] == STOCK
    tf.apply(should_enable_azureml_mirror=True)
    assert user_env(at(yaml.safe_load(file.read_text()))["default_user"]) == env_list(
        ENV | {"AZUREML_WORKSPACE_NAME": "mlw-other"}
    )
    tf.destroy()
    assert at(yaml.safe_load(file.read_text()))["default_user"] == STOCK
    assert list(file.parent.iterdir()) == [file]


def test_a_file_that_the_operator_deleted_is_not_made_again_when_going_off(tf):
    tf.apply(azureml_workspace=WORKSPACE, helm_values_file="overlay.yaml")
    (tf.root / "overlay.yaml").unlink()
    tf.destroy()
    assert not (tf.root / "overlay.yaml").exists()


def test_a_file_that_cannot_be_written_is_one_line(tf):
    (tf.root / "folder").mkdir()
    said = tf.fail(azureml_workspace=WORKSPACE, helm_values_file="folder")
    assert "helm_values_file folder is a folder. Give the path of a file" in said
    (tf.root / "file").write_text("")
    said = tf.fail(helm_values_file="file/overlay.yaml")
    assert "the folder file for helm_values_file cannot be made" in said


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"helm_release": {"name": "osmo", "namespace": "n", "chart": "osmo/service"}}, "version is needed"),
        ({"helm_release": RELEASE | {"name": "OSMO"}}, "lower case letters"),
        ({"helm_release": RELEASE | {"chart": "--kubeconfig"}}, "is a chart reference"),
        ({"helm_release": RELEASE, "osmo_config_mode": "api"}, 'is for osmo_config_mode = "configmap"'),
        ({"helm_values_file": "x.yaml", "osmo_config_mode": "api"}, 'is for osmo_config_mode = "configmap"'),
        ({"helm_values_file": "out/"}, "is the path of a file"),
        ({"helm_values_path": "services..x"}, "one to five keys"),
        ({"osmo_config_mode": "both"}, 'is "configmap"'),
        ({"pod_template_name": "azureml_mirror_outputs"}, "which the module writes itself"),
    ],
)
def test_arguments_that_cannot_be_are_refused_with_an_example(tf, arguments, part):
    said = tf.fail(azureml_workspace=WORKSPACE, **arguments)
    assert part in said and ("for example" in said or "Set " in said or "set osmo_config_mode" in said)


def test_warnings_for_identity(tf):
    said = tf.plan(azureml_workspace=WORKSPACE)[1]
    assert "carries the label azure.workload.identity/use" in said
    said = tf.plan(osmo_release_values=taken(tf, values_with(OWN)))[1]
    assert "carries the label" in said and "names a serviceAccountName" in said
    said = tf.plan(osmo_release_values=taken(tf, values_with(OWN, default_ctrl=CTRL)))[1]
    assert "Warning" not in said
    label = {"metadata": {"labels": {"azure.workload.identity/use": "true"}}}
    said = tf.plan(osmo_release_values=taken(tf, values_with(OWN, default_ctrl=label)))[1]
    assert "names a serviceAccountName" in said and "carries the label" not in said
    # One template of several: the plan does not know the others.
    said = tf.plan(osmo_release_values=None, base_pod_template=OWN)[1]
    assert "Warning" not in said
    assert "Warning" not in tf.plan(should_enable_azureml_mirror=False, base_pod_template=None)[1]
