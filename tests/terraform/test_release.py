"""configmap mode: the release that is upgraded. Helm is real."""

import json
import shutil
import subprocess

from mirror_world import (
    CTRL,
    ENV,
    RELEASE,
    STOCK,
    WORKSPACE,
    env_list,
    flat,
    user_env,
    workspace_id,
)
from osmo_charts import OWN, values_with

ON = {"azureml_workspace": WORKSPACE, "helm_release": RELEASE}


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
    assert helm.values(everything=False)["postgres"] == {"password": "hunter2"}


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
    assert helm.sequence == ["osmo-control-plane/osmo", "blue/osmo", "osmo-control-plane/osmo"]


def test_release_values_taken_again_while_on_are_no_change_and_going_off_is_clean(tf, helm, programs):
    """`helm get values` after an apply contains the mirror's own variables."""
    release = tf.root / "release-values.json"

    def take():
        folder, env = programs
        command = "get values osmo --namespace osmo-control-plane --all --output json"
        done = subprocess.run(
            [folder / "helm", *command.split()], env=env, capture_output=True, text=True, check=True
        )
        release.write_text(done.stdout)

    own = json.loads(json.dumps(OWN))
    helm.uninstall()
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
    helm.refusal = "configmaps is forbidden: nobody may change them"
    said = tf.fail(helm_release=RELEASE)
    assert "helm upgrade of release osmo in namespace osmo-control-plane failed" in said
    assert "UPGRADE FAILED: " in said and "configmaps is forbidden" in said and "run terraform again" in said
    helm.refusal = ""
    said = tf.apply()
    assert len(helm.history()) == 1
    assert "hunter2" not in said + tf.state() + tf.destroy()


def test_a_release_that_is_gone_does_not_stop_a_destroy(tf, helm):
    tf.apply(**ON)
    helm.uninstall()
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
