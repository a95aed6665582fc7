"""api mode: terraform, the script and a control plane that behaves like OSMO's."""

import json

import pytest
from mirror_world import CTRL, ENV, STOCK, WORKSPACE, env_list, user_env, workspace_id

API = {"osmo_config_mode": "api", "azureml_workspace": WORKSPACE}


def test_on_off_on_is_one_revision_each(tf, osmo):
    tf.apply(**API)
    assert user_env(osmo.templates["default_user"]) == env_list()
    assert len(osmo.revisions) == 2
    tf.apply(should_enable_azureml_mirror=False)
    assert osmo.templates == {"default_ctrl": CTRL, "default_user": STOCK}
    assert len(osmo.revisions) == 3
    tf.apply(should_enable_azureml_mirror=True)
    assert osmo.env_at(4) == ENV
    assert len(osmo.revisions) == 4
    assert tf.plan() == (False, tf.plan()[1])


def test_second_apply_changes_nothing(tf, osmo):
    tf.apply(**API)
    changes, _ = tf.plan()
    assert not changes
    calls = len(osmo.state["calls"])
    tf.apply()
    assert len(osmo.state["calls"]) == calls


def test_destroy_takes_away_exactly_what_was_added(tf, osmo):
    mine = {"name": "MINE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    template = {"spec": {"containers": [{"name": "{{USER_CONTAINER_NAME}}", "env": [mine]}], "volumes": []}}
    osmo.reset({"default_user": template, "default_ctrl": CTRL})
    tf.apply(**API)
    assert user_env(osmo.templates["default_user"]) == [mine, *env_list()]
    tf.destroy()
    assert osmo.templates == {"default_user": template, "default_ctrl": CTRL}
    assert len(osmo.revisions) == 3


def test_a_change_is_one_revision_with_no_gap(tf, osmo):
    tf.apply(**API)
    tf.apply(azureml_workspace={"id": workspace_id("mlw-other")}, extra_env={"FOO": "1"})
    assert len(osmo.revisions) == 3
    assert osmo.env_at(3) == ENV | {"AZUREML_WORKSPACE_NAME": "mlw-other", "FOO": "1"}
    tf.apply(extra_env={})
    assert len(osmo.revisions) == 4
    assert osmo.env_at(4) == ENV | {"AZUREML_WORKSPACE_NAME": "mlw-other"}
    assert all(set(ENV) <= set(osmo.env_at(n)) for n in range(2, 5))
    tf.destroy()
    assert osmo.templates["default_user"] == STOCK


def test_a_new_template_name_is_written_before_the_old_one_is_cleared(tf, osmo):
    osmo.reset({"default_user": STOCK, "gpu_user": STOCK, "default_ctrl": CTRL})
    tf.apply(**API)
    tf.apply(pod_template_name="gpu_user")
    assert osmo.env_at(3) == ENV and osmo.env_at(3, "gpu_user") == ENV
    assert osmo.env_at(4) == {} and osmo.env_at(4, "gpu_user") == ENV
    assert len(osmo.revisions) == 4
    tf.destroy()
    assert osmo.templates["gpu_user"] == STOCK


def test_workspace_disappears_and_comes_back(tf, osmo):
    tf.apply(**API)
    tf.apply(azureml_workspace=None)
    assert osmo.templates["default_user"] == STOCK
    tf.apply(azureml_workspace=WORKSPACE)
    assert user_env(osmo.templates["default_user"]) == env_list()
    assert len(osmo.revisions) == 4


def test_off_from_the_start_never_calls_osmo(tf, osmo):
    tf.apply(**API | {"azureml_workspace": None})
    tf.destroy()
    assert osmo.state["calls"] == []


def test_a_later_edit_by_others_stays(tf, osmo):
    tf.apply(**API)
    template = osmo.templates["default_user"]
    container = template["spec"]["containers"][0]
    container["env"][1]["value"] = "rg-of-eve"
    container["env"].append({"name": "EVE", "value": "1"})
    template["metadata"] = {"labels": {"eve": "yes"}}
    osmo.edit({"default_user": template})
    tf.destroy()
    left = osmo.templates["default_user"]
    assert user_env(left) == [
        {"name": "AZURE_RESOURCE_GROUP", "value": "rg-of-eve"},
        {"name": "EVE", "value": "1"},
    ]
    assert left["metadata"] == {"labels": {"eve": "yes"}}


def occupied(entry):
    return {
        "spec": {
            "containers": [{"name": "{{USER_CONTAINER_NAME}}", "env": [entry, {"name": "Z", "value": "z"}]}]
        }
    }


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "AZURE_RESOURCE_GROUP", "value": "theirs"},
        {"name": "AZURE_RESOURCE_GROUP", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ],
)
def test_somebody_elses_value_is_overwritten_only_when_told_and_comes_back(tf, osmo, entry):
    osmo.reset({"default_user": occupied(entry), "default_ctrl": CTRL})
    said = tf.fail(**API)
    assert "AZURE_RESOURCE_GROUP in the pod template default_user is set to something else" in said
    assert "overwrite_existing = true" in said and "theirs" not in said
    assert osmo.templates["default_user"] == occupied(entry) and len(osmo.revisions) == 1
    tf.apply(overwrite_existing=True)
    env = user_env(osmo.templates["default_user"])
    assert env[0] == {"name": "AZURE_RESOURCE_GROUP", "value": "rg-robots"} and env[1]["name"] == "Z"
    assert [e["name"] for e in env].count("AZURE_RESOURCE_GROUP") == 1
    tf.destroy()
    assert osmo.templates["default_user"] == occupied(entry)


def test_an_equal_value_that_was_there_stays_on_removal(tf, osmo):
    entry = {"name": "AZURE_RESOURCE_GROUP", "value": "rg-robots"}
    osmo.reset({"default_user": occupied(entry), "default_ctrl": CTRL})
    tf.apply(**API)
    tf.destroy()
    assert osmo.templates["default_user"] == occupied(entry)


def test_a_missing_template_is_made_from_the_base_and_taken_away(tf, osmo):
    osmo.reset({"default_ctrl": CTRL})
    tf.apply(**API)
    assert user_env(osmo.templates["default_user"]) == env_list()
    assert (
        osmo.templates["default_user"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
        == "{{USER_CPU}}"
    )
    tf.destroy()
    assert osmo.templates == {"default_ctrl": CTRL}


def test_a_made_template_that_a_pool_lists_stays_without_the_variables(tf, osmo):
    osmo.reset({"default_ctrl": CTRL})
    tf.apply(**API)
    osmo.set(pools={"default": ["default_user"]})
    tf.destroy()
    assert osmo.templates == {"default_ctrl": CTRL, "default_user": STOCK}


def test_a_template_without_a_user_container_gets_one_and_loses_it(tf, osmo):
    template = {"spec": {"volumes": [{"name": "dshm", "emptyDir": {}}]}}
    osmo.reset({"default_user": template, "default_ctrl": CTRL})
    tf.apply(**API)
    assert osmo.templates["default_user"]["spec"]["containers"] == [
        {"name": "{{USER_CONTAINER_NAME}}", "env": env_list()}
    ]
    tf.destroy()
    # The osmo program treats a missing key as no change, so an empty list remains.
    assert osmo.templates["default_user"] == {"spec": template["spec"] | {"containers": []}}


def test_configmap_mode_is_named_by_the_409(tf, osmo):
    osmo.set(mode="configmap")
    said = tf.fail(**API)
    assert "this OSMO takes no writes of its configuration" in said
    assert 'Set osmo_config_mode = "configmap"' in said
    assert osmo.templates["default_user"] == STOCK


def test_a_failed_apply_is_run_again_by_the_next(tf, osmo):
    osmo.set(logged_in=False)
    said = tf.fail(**API)
    assert "osmo is not logged in" in said and "osmo login" in said
    osmo.set(logged_in=True)
    tf.apply()
    assert user_env(osmo.templates["default_user"]) == env_list()


def test_a_change_that_failed_keeps_the_old_values_and_can_still_be_removed(tf, osmo):
    tf.apply(**API)
    osmo.set(forbidden=True)
    said = tf.fail(azureml_workspace={"id": workspace_id("mlw-other")})
    assert "OSMO does not allow" in said
    assert user_env(osmo.templates["default_user"]) == env_list()
    osmo.set(forbidden=False)
    tf.destroy()
    assert osmo.templates["default_user"] == STOCK


def test_a_missing_osmo_program_is_one_line(tf, osmo):
    said = tf.fail(**API, osmo_cli="/nowhere/osmo")
    assert (
        "the osmo program '/nowhere/osmo' is not there. Install the OSMO client, or set osmo_cli to its path."
        in said
    )


def test_the_outputs_template_comes_and_goes_with_its_volume(tf, osmo):
    tf.apply(**API, run_outputs_volume={"claim_name": "run-outputs", "mount_path": "/mnt/outputs"})
    assert len(osmo.revisions) == 2
    spec = osmo.templates["azureml_mirror_outputs"]["spec"]
    assert spec["volumes"][0]["persistentVolumeClaim"] == {"claimName": "run-outputs"}
    assert "volumes" not in osmo.templates["default_user"]["spec"]
    tf.apply(run_outputs_volume=None)
    assert "azureml_mirror_outputs" not in osmo.templates
    assert user_env(osmo.templates["default_user"]) == env_list()
    tf.apply(run_outputs_volume={"claim_name": "other"})
    tf.destroy()
    assert osmo.templates == {"default_ctrl": CTRL, "default_user": STOCK}


def test_an_outputs_template_that_a_pool_lists_stops_the_removal_with_what_to_do(tf, osmo):
    tf.apply(**API, run_outputs_volume={"claim_name": "run-outputs"})
    osmo.set(pools={"gpu": ["azureml_mirror_outputs"]})
    said = tf.fail(should_enable_azureml_mirror=False)
    assert (
        "OSMO does not delete the pod template azureml_mirror_outputs" in said
        and "Take it out of the pools" in said
    )
    assert osmo.templates["default_user"] == STOCK
    osmo.set(pools={})
    tf.apply()
    assert osmo.templates == {"default_ctrl": CTRL, "default_user": STOCK}


def test_a_template_of_that_name_by_others_is_not_touched(tf, osmo):
    osmo.reset({"default_user": STOCK, "default_ctrl": CTRL, "azureml_mirror_outputs": {"spec": {}}})
    assert "is not the mirror's" in tf.fail(**API, run_outputs_volume={"claim_name": "c"})
    tf.apply(run_outputs_volume=None)
    tf.destroy()
    assert osmo.templates["azureml_mirror_outputs"] == {"spec": {}}


def test_block_removed_as_the_readme_says(tf, osmo):
    tf.apply(**API)
    tf.apply(should_enable_azureml_mirror=False)
    (tf.root / "main.tf.json").write_text("{}")
    done = tf.run("apply", "-auto-approve", "-input=false")
    assert done.returncode == 0, done.stderr
    assert osmo.templates["default_user"] == STOCK
    assert json.loads(tf.state())["resources"] == []


def test_no_secret_in_state_or_log(tf, osmo):
    secret = {"name": "PASSWORD", "value": "hunter2"}
    osmo.reset({"default_user": occupied(secret), "default_ctrl": CTRL})
    said = tf.apply(**API)
    said += tf.apply(extra_env={"FOO": "1"})
    assert "hunter2" not in said + tf.state()
    said = tf.destroy()
    assert "hunter2" not in said + tf.state()


def test_a_warning_where_no_template_carries_the_identity(tf, osmo):
    osmo.reset({"default_user": STOCK})
    said = tf.apply(**API)
    assert "no pod template carries the label azure.workload.identity/use" in said
    assert "no pod template carries a serviceAccountName" in said


def test_a_block_that_went_too_early_is_mended_as_the_readme_says(tf, osmo):
    tf.apply(**API)
    (tf.root / "main.tf.json").write_text("{}")
    assert tf.run("apply", "-auto-approve", "-input=false").returncode == 0
    assert user_env(osmo.templates["default_user"]) == env_list()
    tf.apply()
    tf.apply(should_enable_azureml_mirror=False)
    assert osmo.templates["default_user"] == STOCK
    assert len(osmo.revisions) == 3


def test_drift_is_mended_by_replacing_the_resource_that_acts(tf, osmo):
    tf.apply(**API)
    osmo.edit({"default_user": STOCK})
    assert tf.plan()[0] is False
    tf.apply("-replace=module.mirror.terraform_data.api_write[0]")
    assert user_env(osmo.templates["default_user"]) == env_list()
    assert len(osmo.revisions) == 4
