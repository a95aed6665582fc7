"""configmap mode: the overlay, the file and the release."""

import json
import shutil
import subprocess

import pytest
import yaml
from mirror_world import (
    CTRL,
    ENV,
    RELEASE,
    STOCK,
    WORKSPACE,
    env_list,
    flat,
    merge_maps,
    user_env,
    workspace_id,
)

TEMPLATES = ("services", "configs", "podTemplates")
ON = {"azureml_workspace": WORKSPACE, "helm_release": RELEASE}

OWN = {
    "metadata": {"labels": {"team": "robots"}, "annotations": {"a": "{{WF_ID}}"}},
    "spec": {
        "volumes": [{"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "{{USER_SHM_SIZE}}"}}],
        "initContainers": [{"name": "init", "image": "busybox"}],
        "containers": [
            {
                "name": "{{USER_CONTAINER_NAME}}",
                "env": [{"name": "MINE", "value": "1"}],
                "resources": {"limits": {"cpu": "{{USER_CPU}}"}},
                "volumeMounts": [{"name": "dshm", "mountPath": "/dev/shm"}],
            },
            {
                "name": "sidecar",
                "image": "log:1",
                "env": [{"name": "AZURE_RESOURCE_GROUP", "value": "its-own"}],
            },
        ],
    },
}


def values_with(template, **others):
    return {
        "services": {"configs": {"podTemplates": {"default_user": template} | others}, "ui": {"replicas": 2}}
    }


def at(values, path=TEMPLATES):
    for key in path:
        values = values[key]
    return values


def files(tf, *documents):
    paths = []
    for number, document in enumerate(documents):
        path = tf.root / f"values-{number}.yaml"
        path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        paths.append(str(path))
    return paths


def test_the_overlay_after_the_operators_files_changes_nothing_but_the_variables(tf):
    own = values_with(OWN, default_ctrl=CTRL)
    tf.apply(azureml_workspace=WORKSPACE, osmo_values_files=files(tf, own))
    merged = merge_maps(own, yaml.safe_load(tf.outputs()["helm_values"]))
    expected = json.loads(json.dumps(own))
    at(expected)["default_user"]["spec"]["containers"][0]["env"] += env_list()
    assert merged == expected
    tf.apply(should_enable_azureml_mirror=False)
    assert merge_maps(merged, yaml.safe_load(tf.outputs()["helm_values"])) == own
    assert merge_maps(own, yaml.safe_load(tf.outputs()["helm_values"])) == own


def test_the_overlay_holds_nothing_but_the_list_of_containers(tf):
    tf.apply(azureml_workspace=WORKSPACE, osmo_values_files=files(tf, values_with(OWN)))
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
    own = OWN
    for key in reversed(["default_user", *[]]):
        own = {key: own}
    for key in reversed(path.split(".")):
        own = {key: own}
    tf.apply(azureml_workspace=WORKSPACE, helm_values_path=path, osmo_values_files=files(tf, own))
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


def test_release_on_off_on_destroy_is_one_upgrade_each(tf, helm):
    tf.apply(**ON)
    assert user_env(helm.history()[-1]["default_user"]) == env_list()
    tf.apply(should_enable_azureml_mirror=False)
    assert helm.history()[-1] == {"default_ctrl": CTRL, "default_user": STOCK}
    tf.apply(should_enable_azureml_mirror=True)
    assert user_env(helm.history()[-1]["default_user"]) == env_list()
    assert tf.plan()[0] is False
    tf.destroy()
    assert helm.history()[-1] == {"default_ctrl": CTRL, "default_user": STOCK}
    assert len(helm.history()) == 4
    values = helm.state["releases"]["osmo-control-plane/osmo"]["values"]
    assert values["services"]["postgres"] == {"password": "hunter2"}


def test_a_change_is_one_upgrade_with_no_gap(tf, helm):
    tf.apply(**ON)
    tf.apply(azureml_workspace={"id": workspace_id("mlw-other")}, extra_env={"FOO": "1"})
    tf.apply(extra_env={})
    envs = [{e["name"]: e["value"] for e in user_env(t["default_user"])} for t in helm.history()]
    other = ENV | {"AZUREML_WORKSPACE_NAME": "mlw-other"}
    assert envs == [ENV, other | {"FOO": "1"}, other]


def test_another_release_is_written_before_the_old_one_is_put_back(tf, helm):
    helm.release("blue/osmo")
    tf.apply(**ON)
    tf.apply(helm_release=RELEASE | {"namespace": "blue"})
    assert user_env(helm.history("blue/osmo")[-1]["default_user"]) == env_list()
    assert helm.history()[-1]["default_user"] == STOCK
    assert helm.state["sequence"] == ["osmo-control-plane/osmo", "blue/osmo", "osmo-control-plane/osmo"]


def test_release_values_taken_again_while_on_are_no_change_and_going_off_is_clean(tf, helm, programs):
    """`helm get values` after an apply holds the mirror's own variables."""
    release = tf.root / "release-values.json"

    def take():
        folder, env = programs
        command = "get values osmo --namespace osmo-control-plane --all --output json"
        done = subprocess.run(
            [folder / "helm", *command.split()], env=env, capture_output=True, text=True, check=True
        )
        release.write_text(done.stdout)

    own = json.loads(json.dumps(OWN))
    helm.release(values=values_with(own))
    take()
    tf.apply(**ON, osmo_release_values=str(release))
    assert user_env(helm.history()[-1]["default_user"]) == [{"name": "MINE", "value": "1"}, *env_list()]
    take()
    tf.apply()
    assert len(helm.history()) == 1 and tf.plan()[0] is False
    tf.apply(azureml_workspace={"id": workspace_id("mlw-other")})
    take()
    tf.apply(should_enable_azureml_mirror=False)
    assert helm.history()[-1]["default_user"] == OWN
    assert len(helm.history()) == 3


def test_both_modes_in_turn(tf, helm, osmo):
    tf.apply(**ON)
    tf.apply(osmo_config_mode="api", helm_release=None)
    assert helm.history()[-1]["default_user"] == STOCK
    assert user_env(osmo.templates["default_user"]) == env_list()
    tf.apply(osmo_config_mode="configmap", helm_release=RELEASE)
    assert user_env(helm.history()[-1]["default_user"]) == env_list()
    assert osmo.templates["default_user"] == STOCK


def test_the_outputs_template_comes_and_goes_in_the_release(tf, helm):
    tf.apply(**ON, run_outputs_volume={"claim_name": "run-outputs"})
    assert helm.history()[-1]["azureml_mirror_outputs"] == {
        "spec": {
            "volumes": [
                {"name": "azureml-mirror-outputs", "persistentVolumeClaim": {"claimName": "run-outputs"}}
            ],
            "containers": [
                {
                    "name": "{{USER_CONTAINER_NAME}}",
                    "volumeMounts": [
                        {"name": "azureml-mirror-outputs", "mountPath": "/mnt/outputs", "readOnly": False}
                    ],
                }
            ],
        }
    }
    assert "volumes" not in helm.history()[-1]["default_user"]["spec"]
    tf.apply(run_outputs_volume=None)
    assert helm.history()[-1].keys() == {"default_ctrl", "default_user"}
    assert user_env(helm.history()[-1]["default_user"]) == env_list()
    tf.apply(run_outputs_volume={"claim_name": "run-outputs"})
    tf.destroy()
    assert helm.history()[-1] == {"default_ctrl": CTRL, "default_user": STOCK}
    assert len(helm.history()) == 4


def test_helm_errors_are_one_line_and_no_secret_is_printed(tf, helm):
    said = tf.fail(**ON | {"helm_release": RELEASE | {"name": "other"}})
    assert (
        "helm cannot read release other in namespace osmo-control-plane: Error: release: not found." in said
    )
    assert "Check helm_release against 'helm list --all-namespaces'" in said
    helm.state = helm.state | {"fail_upgrade": "timed out waiting for the condition"}
    said = tf.fail(helm_release=RELEASE)
    assert "helm upgrade of release osmo in namespace osmo-control-plane failed" in said
    assert (
        "UPGRADE FAILED: timed out waiting" in said and "run terraform again" in said and "W0101" not in said
    )
    helm.state = {k: v for k, v in helm.state.items() if k != "fail_upgrade"}
    said = tf.apply()
    assert len(helm.history()) == 1
    assert "hunter2" not in said + tf.state() + tf.destroy()


def test_a_release_that_is_gone_does_not_stop_a_destroy(tf, helm):
    tf.apply(**ON)
    helm.state = {"releases": {}}
    said = tf.destroy()
    assert "release osmo in namespace osmo-control-plane is gone, and the variables with it" in flat(said)


def test_helm_that_is_not_there(tf, tmp_path):
    """A PATH with nothing but what the shell script needs."""
    folder = tmp_path / "lean"
    folder.mkdir()
    for name in ("sh", "sed", "tail", "dirname", "terraform"):
        (folder / name).symlink_to(shutil.which(name))
    tf.env = tf.env | {"PATH": str(folder)}
    assert "helm is not on PATH, so release osmo in namespace osmo-control-plane was not changed" in tf.fail(
        **ON
    )


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


def test_the_overlay_may_not_overwrite_one_of_the_operators_files(tf):
    (path,) = files(tf, values_with(OWN))
    said = tf.fail(azureml_workspace=WORKSPACE, osmo_values_files=[path], helm_values_file="./values-0.yaml")
    assert "is also one of osmo_values_files" in said


def test_warnings_for_identity_and_base(tf):
    said = tf.plan(azureml_workspace=WORKSPACE)[1]
    assert "No base was given" in said and "carries the label azure.workload.identity/use" in said
    said = tf.plan(osmo_values_files=files(tf, values_with(OWN)))[1]
    assert "carries the label" in said and "names a serviceAccountName" in said and "No base" not in said
    said = tf.plan(osmo_values_files=files(tf, values_with(OWN, default_ctrl=CTRL)))[1]
    assert "Warning" not in said
    label = {"metadata": {"labels": {"azure.workload.identity/use": "true"}}}
    said = tf.plan(osmo_values_files=files(tf, values_with(OWN, default_ctrl=label)))[1]
    assert "names a serviceAccountName" in said and "carries the label" not in said
    assert "Warning" not in tf.plan(should_enable_azureml_mirror=False, osmo_values_files=[])[1]
