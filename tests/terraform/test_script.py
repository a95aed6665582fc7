"""The script osmo_pod_template.py on its own: its output, its exit codes, and concurrent writers."""

import json
import subprocess
import sys

import pytest
from mirror_world import CTRL, ENV, ROOT, STOCK, env_list, user_env

SCRIPT = ROOT / "terraform" / "scripts" / "osmo_pod_template.py"
SPEC = {"template": "default_user", "env": env_list(), "base": STOCK}


@pytest.fixture
def run(osmo, tmp_path):
    def call(verb, *flags, spec=SPEC, env=None):
        return subprocess.run(
            [sys.executable, "-B", SCRIPT, verb, "--osmo", osmo.program, *flags],
            env=osmo.env | {"AZUREML_MIRROR_SPEC": json.dumps(spec)} | (env or {}),
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return call


def test_apply_twice_is_one_revision(run, osmo):
    assert run("apply").returncode == 0
    assert len(osmo.revisions) == 2
    done = run("apply")
    assert done.returncode == 0 and "unchanged" in done.stdout
    assert len(osmo.revisions) == 2


def test_dry_run_prints_the_difference_and_writes_nothing(run, osmo):
    done = run("apply", "--dry-run")
    assert done.returncode == 0
    assert '+              "value": "rg-robots"' in done.stdout.replace("            ", "              ")
    assert done.stdout.startswith("--- default_user (OSMO)\n+++ default_user (after apply)")
    assert len(osmo.revisions) == 1 and not any("update" in call for call in osmo.state["calls"])
    run("apply")
    done = run("remove", "--dry-run")
    assert '"value": "rg-robots"' in done.stdout and len(osmo.revisions) == 2


def test_check_tells_drift_by_its_exit_code(run, osmo):
    done = run("apply", "--check")
    assert done.returncode == 1 and "drift in default_user" in done.stderr
    assert len(osmo.revisions) == 1
    run("apply")
    done = run("apply", "--check")
    assert done.returncode == 0 and "no drift" in done.stdout
    osmo.edit({"default_user": STOCK})
    assert run("apply", "--check").returncode == 1
    changed = json.loads(json.dumps(STOCK))
    changed["spec"]["containers"][0]["env"] = [{"name": "AZURE_RESOURCE_GROUP", "value": "theirs"}]
    osmo.edit({"default_user": changed})
    done = run("apply", "--check")
    assert done.returncode == 1 and "set to something else by somebody else" in done.stdout
    assert len(osmo.revisions) == 4


def edited(**env):
    template = json.loads(json.dumps(STOCK))
    template["spec"]["containers"][0]["env"] = env_list(env)
    template["metadata"] = {"labels": {"eve": "was here"}}
    return template


def test_a_revision_in_between_is_noticed_and_merged(run, osmo):
    osmo.set(races=[{"when": "before-update", "templates": {"default_user": edited(EVE="1")}}])
    done = run("apply")
    assert done.returncode == 0, done.stderr
    assert "revision 2 by eve came in between; merging on it" in done.stderr
    template = osmo.templates["default_user"]
    assert template["metadata"] == {"labels": {"eve": "was here"}}
    assert user_env(template) == [{"name": "EVE", "value": "1"}, *env_list()]
    assert len(osmo.revisions) == 4
    assert run("remove").returncode == 0
    assert osmo.templates["default_user"] == edited(EVE="1")


def test_a_revision_in_between_of_another_template_costs_nothing(run, osmo):
    osmo.set(races=[{"when": "before-update", "templates": {"default_ctrl": {"spec": {}}}}])
    assert run("apply").returncode == 0
    assert len(osmo.revisions) == 3 and osmo.templates["default_ctrl"] == {"spec": {}}


def test_an_edit_that_replaced_ours_is_noticed_and_merged(run, osmo):
    osmo.set(races=[{"when": "after-update", "templates": {"default_user": edited(EVE="1")}}])
    assert run("apply").returncode == 0
    assert user_env(osmo.templates["default_user"]) == [{"name": "EVE", "value": "1"}, *env_list()]
    assert len(osmo.revisions) == 4


def test_an_edit_in_between_that_sets_our_variable_comes_back_and_stops_us(run, osmo):
    theirs = edited(AZURE_RESOURCE_GROUP="theirs")
    osmo.set(races=[{"when": "before-update", "templates": {"default_user": theirs}}])
    done = run("apply")
    assert done.returncode == 78 and "AZURE_RESOURCE_GROUP" in done.stderr
    assert osmo.templates["default_user"] == theirs


def test_a_race_on_removal(run, osmo):
    run("apply")
    with_ours = edited(**ENV, EVE="1")
    osmo.set(races=[{"when": "before-update", "templates": {"default_user": with_ours}}])
    assert run("remove").returncode == 0
    assert osmo.templates["default_user"] == edited(EVE="1")


@pytest.mark.parametrize("verb", ["apply", "remove"])
def test_what_others_have_built_on_our_revision_stays(run, osmo, verb):
    """Our write replaced Eve's edit unseen, and Ada has built on our write: that is not undone."""
    if verb == "remove":
        run("apply")
    # Ada's revision contains what we write, and not what Eve had written.
    ada = edited(**ENV, ADA="1") if verb == "apply" else edited(ADA="1")
    eve = edited(EVE="1") if verb == "apply" else edited(**ENV, EVE="1")
    before = len(osmo.revisions)
    osmo.set(
        races=[
            {"when": "before-update", "templates": {"default_user": eve}},
            {"when": "after-update", "templates": {"default_user": ada}},
        ]
    )
    done = run(verb)
    assert done.returncode == 0, done.stderr
    assert osmo.templates["default_user"] == ada
    assert len(osmo.revisions) == before + 3
    warning = f"revision {before + 1} by eve was replaced by {before + 2}, on which others have built since"
    assert warning in done.stderr
    assert f"osmo config diff POD_TEMPLATE:{before + 1} POD_TEMPLATE:{before + 2}" in done.stderr


def test_others_who_never_stop(run, osmo):
    race = {"when": "after-update", "templates": {"default_user": STOCK}}
    osmo.set(races=[race] * 20)
    done = run("apply")
    assert done.returncode == 75 and "others keep writing OSMO's pod templates" in done.stderr
    assert done.stderr.count("\n") == 1 + done.stderr.count("warning") + done.stderr.count("in between")


def test_remove_twice_and_without_a_record(run, osmo):
    run("apply")
    run("remove")
    revisions = len(osmo.revisions)
    assert run("remove").returncode == 0 and len(osmo.revisions) == revisions
    osmo.edit({"default_user": edited(**ENV)}, by="ada")
    done = run("remove", spec=SPEC)
    assert done.returncode == 0 and "was not added by the mirror" in done.stderr
    assert user_env(osmo.templates["default_user"]) == env_list()


def test_a_rollback_by_an_administrator_does_not_confuse_the_record(run, osmo):
    run("apply")
    rolled = subprocess.run(
        [osmo.program, "config", "rollback", "POD_TEMPLATE:1", "--description", "back"],
        env=osmo.env,
        check=False,
    )
    assert rolled.returncode == 0 and osmo.templates["default_user"] == STOCK
    assert run("apply").returncode == 0
    assert user_env(osmo.templates["default_user"]) == env_list()
    run("remove")
    assert osmo.templates["default_user"] == STOCK


def test_a_record_from_before_a_rollback_does_not_count(run, osmo):
    """The record says that the mirror created the container. After the rollback there is one that Ada
    created.
    """
    bare = {"spec": {"containers": []}}
    osmo.reset({"default_ctrl": CTRL, "default_user": bare})
    run("apply")
    assert user_env(osmo.templates["default_user"]) == env_list()
    command = [osmo.program, "config", "rollback", "POD_TEMPLATE:1", "--description", "back"]
    subprocess.run(command, env=osmo.env, check=True, capture_output=True)
    ada = {"spec": {"containers": [{"name": "{{USER_CONTAINER_NAME}}", "env": []}]}}
    osmo.edit({"default_user": ada}, by="ada")
    assert run("apply").returncode == 0
    assert run("remove").returncode == 0
    assert osmo.templates["default_user"] == ada


def test_a_record_far_back_in_the_history_is_found(run, osmo):
    run("apply")
    for number in range(230):
        osmo.edit({"other": {"n": number}})
    assert run("remove").returncode == 0
    assert osmo.templates["default_user"] == STOCK


def test_a_service_that_fails_for_now_is_asked_again(run, osmo):
    failure = {"verb": "show", "message": "Status Code: 503", "code": 503, "exit_code": 10}
    osmo.set(failures=[failure])
    assert run("apply").returncode == 0
    osmo.set(failures=[failure] * 9)
    done = run("apply")
    assert (
        done.returncode == 75
        and "OSMO does not answer for now" in done.stderr
        and done.stderr.count("\n") == 1
    )


def test_a_notice_before_the_answer_is_no_error(run, osmo):
    osmo.set(notice="WARNING: a newer osmo client is available")
    assert run("apply").returncode == 0


def test_a_failed_write_leaves_no_file_in_the_temporary_folder(run, osmo):
    from pathlib import Path

    before = set(Path("/tmp").glob("POD_TEMPLATE*"))
    osmo.set(mode="configmap")
    done = run("apply")
    assert done.returncode == 78 and "Configs are managed by ConfigMap" in done.stderr
    assert set(Path("/tmp").glob("POD_TEMPLATE*")) == before


@pytest.mark.parametrize(
    ("state", "code", "part"),
    [
        ({"mode": "configmap"}, 78, 'Set osmo_config_mode = "configmap"'),
        ({"mode": "retired"}, 78, 'api mode is for 6.2 and 6.3. Set osmo_config_mode = "configmap"'),
        ({"logged_in": False}, 77, "Run `osmo login URL`"),
        ({"forbidden": True}, 77, "role osmo-admin"),
    ],
)
def test_what_osmo_refuses_ends_in_one_line(run, osmo, state, code, part):
    osmo.set(**state)
    done = run("apply")
    assert done.returncode == code and part in done.stderr
    assert done.stderr.startswith("azureml-mirror: ") and done.stderr.count("\n") == 1
    assert osmo.templates["default_user"] == STOCK


def test_deleting_needs_more_rights_than_writing(run, osmo):
    outputs = {"spec": {"volumes": [], "containers": []}}
    run("apply", spec=SPEC | {"outputs_template": outputs})
    osmo.set(may_not_delete=True)
    done = run("remove")
    assert done.returncode == 77 and "role osmo-admin" in done.stderr
    assert osmo.templates["default_user"] == STOCK
    osmo.set(may_not_delete=False)
    assert run("remove").returncode == 0
    assert osmo.templates == {"default_ctrl": CTRL, "default_user": STOCK}


@pytest.mark.parametrize(
    "text", ["", "not json", "[]", "{}", '{"template": "x", "env": []}', '{"template": 1, "env": [{}]}']
)
def test_a_specification_that_is_none(run, text):
    done = run("apply", env={"AZUREML_MIRROR_SPEC": text})
    assert done.returncode == 64 and "terraform output -raw osmo_api_spec" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_specification_from_a_file_and_as_terraform_prints_it(run, tmp_path, osmo):
    (tmp_path / "spec.json").write_text(json.dumps(json.dumps(SPEC)))
    assert run("apply", "--spec", "spec.json", env={"AZUREML_MIRROR_SPEC": ""}).returncode == 0
    assert user_env(osmo.templates["default_user"]) == env_list()
    done = run("apply", "--spec", "missing.json")
    assert done.returncode == 64 and "missing.json cannot be read" in done.stderr


def test_usage(run):
    for flags in (("--dry-run", "--check"), ("--nonsense",)):
        done = run("apply", *flags)
        assert done.returncode == 64 and done.stderr.count("\n") == 1 and "--help" in done.stderr
    assert run("frobnicate").returncode == 64


def test_an_answer_that_is_no_json(run, osmo, tmp_path):
    program = tmp_path / "other-osmo"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    done = run("apply", "--osmo", str(program))
    assert done.returncode == 65 and "printed no JSON" in done.stderr
    program.chmod(0o644)
    done = run("apply", "--osmo", str(program))
    assert done.returncode == 78 and "may not be run" in done.stderr


def test_the_outputs_template_changed_by_others_is_left(run, osmo):
    run("apply", spec=SPEC | {"outputs_template": {"spec": {"volumes": []}}})
    osmo.edit({"azureml_mirror_outputs": {"spec": {"volumes": [{"name": "eve"}]}}})
    done = run("remove")
    assert done.returncode == 0 and "azureml_mirror_outputs was changed by somebody else" in done.stderr
    assert osmo.templates["azureml_mirror_outputs"] == {"spec": {"volumes": [{"name": "eve"}]}}


def test_python_3_11_and_the_standard_library_are_enough():
    """Isolated mode without site-packages. Only the scripts' own folder is added."""
    code = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import osmo_pod_template"
    done = subprocess.run(
        [sys.executable, "-B", "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
