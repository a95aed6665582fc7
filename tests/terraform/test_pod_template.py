"""The pod template: the base plus the variables, and nothing else."""

import copy

import pytest
from mirror_world import ENV, STOCK, WORKSPACE, env_list, user_env

USER = "{{USER_CONTAINER_NAME}}"

FULL = {
    "apiVersion": "v1",
    "metadata": {"labels": {"a.b/c": "x"}, "annotations": {"wf": "{{WF_ID}}", "n": "12"}},
    "spec": {
        "serviceAccountName": "sa",
        "terminationGracePeriodSeconds": 30,
        "hostNetwork": False,
        "nothing": None,
        "tolerations": [{"key": "k", "operator": "Exists"}, {"key": "l"}],
        "initContainers": [{"name": USER, "env": [{"name": "AZURE_RESOURCE_GROUP", "value": "init"}]}],
        "volumes": [{"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "{{USER_SHM_SIZE}}"}}],
        "containers": [
            {"name": "before", "env": [{"name": "AZURE_RESOURCE_GROUP", "value": "sidecar"}]},
            {
                "name": USER,
                "env": [
                    {"name": "FIRST", "value": "1"},
                    {
                        "name": "AZURE_RESOURCE_GROUP",
                        "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
                    },
                    {"name": "SECOND", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "AZURE_RESOURCE_GROUP", "value": "again"},
                    {"name": "LAST", "value": ""},
                ],
                "resources": {"limits": {"cpu": "{{USER_CPU}}", "n": 0.5}, "requests": {}},
                "volumeMounts": [{"name": "dshm", "mountPath": "/dev/shm", "readOnly": True}],
                "args": ["--x={{ USER_GPU }}", "a: {b}", "yes", "0644", "line\nline\n", "<&>"],
            },
            {"name": "after", "image": "x:1"},
        ],
    },
}


def test_everything_else_stays_as_it_was(tf):
    tf.apply(azureml_workspace=WORKSPACE, base_pod_template=FULL)
    expected = copy.deepcopy(FULL)
    expected["spec"]["containers"][1]["env"] = [
        {"name": "FIRST", "value": "1"},
        {"name": "AZURE_RESOURCE_GROUP", "value": "rg-robots"},
        {"name": "SECOND", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "LAST", "value": ""},
        *[entry for entry in env_list() if entry["name"] != "AZURE_RESOURCE_GROUP"],
    ]
    assert tf.outputs()["pod_template"] == expected


def test_off_is_the_base(tf):
    tf.apply(azureml_workspace=None, base_pod_template=FULL)
    assert tf.outputs()["pod_template"] == FULL


def test_stock_template(tf):
    tf.apply(azureml_workspace=WORKSPACE)
    expected = copy.deepcopy(STOCK)
    expected["spec"]["containers"][0]["env"] = env_list()
    assert tf.outputs()["pod_template"] == expected


@pytest.mark.parametrize(
    "base",
    [
        {},
        {"spec": None},
        {"spec": {"volumes": []}},
        {"spec": {"containers": None}},
        {"spec": {"containers": []}},
        {"spec": {"containers": [{"name": "sidecar"}]}},
    ],
)
def test_a_template_with_no_user_container_gets_one(tf, base):
    tf.apply(azureml_workspace=WORKSPACE, base_pod_template=base)
    before = (base.get("spec") or {}).get("containers") or []
    assert tf.outputs()["pod_template"]["spec"]["containers"] == [*before, {"name": USER, "env": env_list()}]


@pytest.mark.parametrize("env", [[], None])
@pytest.mark.parametrize("name", [USER, "{{ USER_CONTAINER_NAME }}"])
def test_an_empty_env_and_spaces_in_the_marker(tf, env, name):
    tf.apply(
        azureml_workspace=WORKSPACE, base_pod_template={"spec": {"containers": [{"name": name, "env": env}]}}
    )
    assert tf.outputs()["pod_template"]["spec"]["containers"] == [{"name": name, "env": env_list()}]


def test_extra_env_in_a_fixed_order(tf):
    tf.apply(azureml_workspace=WORKSPACE, extra_env={"ZED": "${z}", "ALPHA": "{{USER_CPU}}", "EMPTY": ""})
    assert user_env(tf.outputs()["pod_template"])[4:] == env_list(
        {"ALPHA": "{{USER_CPU}}", "EMPTY": "", "ZED": "${z}"}
    )
    assert tf.outputs()["azureml_env"].keys() == ENV.keys() - {"OSMO_WORKFLOW_ID"}
    assert tf.plan()[0] is False


@pytest.mark.parametrize(
    ("extra", "part"),
    [
        ({"AZURE_RESOURCE_GROUP": "x"}, "extra_env may not set"),
        ({"OSMO_WORKFLOW_ID": "x"}, "extra_env may not set"),
        ({"1X": "x"}, "does not begin with a digit"),
        ({"A-B": "x"}, "a name has letters"),
        ({"A": None}, "a value is not null"),
    ],
)
def test_extra_env_that_cannot_be(tf, extra, part):
    said = tf.fail(azureml_workspace=WORKSPACE, extra_env=extra)
    assert part in said and "for example" in said


def test_the_outputs_volume_is_a_template_of_its_own(tf):
    tf.apply(
        azureml_workspace=WORKSPACE,
        osmo_config_mode="configmap",
        run_outputs_volume={"claim_name": "runs", "mount_path": "/data/runs", "read_only": True},
    )
    assert "volumes" not in tf.outputs()["pod_template"]["spec"]
    overlay = tf.outputs()["helm_values"]
    assert '"claimName": "runs"' in overlay and '"mountPath": "/data/runs"' in overlay
    assert '"readOnly": true' in overlay
    tf.apply(should_enable_azureml_mirror=False)
    assert "azureml_mirror_outputs" not in tf.outputs()["helm_values"]


@pytest.mark.parametrize(
    ("volume", "part"),
    [
        ({"claim_name": "Run_Outputs"}, 'for example "run-outputs"'),
        ({"claim_name": "a", "mount_path": "relative"}, "is an absolute path"),
        ({"claim_name": "a", "mount_path": "/"}, "not / and not under /osmo"),
        ({"claim_name": "a", "mount_path": "/osmo/data"}, "not / and not under /osmo"),
    ],
)
def test_an_outputs_volume_that_cannot_be(tf, volume, part):
    assert part in tf.fail(azureml_workspace=WORKSPACE, run_outputs_volume=volume)


@pytest.mark.parametrize("base", ["text", [], {"spec": []}, {"spec": "x"}])
def test_a_base_that_is_no_template(tf, base):
    assert "base_pod_template is a pod template as an object" in tf.fail(
        azureml_workspace=WORKSPACE, base_pod_template=base
    )


def test_two_bases_are_refused(tf):
    (tf.root / "values.json").write_text('{"a": 1}')
    said = tf.fail(azureml_workspace=WORKSPACE, base_pod_template=FULL, osmo_release_values="values.json")
    assert "Give one base only" in said and "osmo_release_values (preferred)" in said
