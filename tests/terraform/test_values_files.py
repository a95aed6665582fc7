"""Values files: merged as Helm merges them, and what Terraform would misread refused with its line."""

import pytest
import yaml
from mirror_world import ENV, STOCK, WORKSPACE, coalesce, env_list, merge_maps, user_env

PATH = ("services", "configs", "podTemplates")
DEFAULTS = {"services": {"configs": {"podTemplates": {"default_user": STOCK}}}}


def nest(text):
    """YAML of pod templates, put under the chart's path."""
    return "services:\n  configs:\n    podTemplates:\n" + "".join(
        f"      {line}\n" if line else "\n" for line in text.strip("\n").split("\n")
    )


def write(tf, *texts):
    paths = []
    for number, text in enumerate(texts):
        (tf.root / f"values-{number}.yaml").write_text(text)
        paths.append(f"values-{number}.yaml")
    return paths


def as_helm(*texts):
    values = {}
    for text in texts:
        values = merge_maps(values, yaml.safe_load(text) or {})
    values = coalesce(DEFAULTS, values)
    for key in PATH:
        values = values[key]
    return values


ONE = """
# A comment with 0644 and 2024-01-01 in it.
defaults: &defaults   # an anchor
  cpu: "{{USER_CPU}}"
  memory: '{{USER_MEMORY}}'
default_user:
  metadata:
    labels: {team: "robots", rank: 'a''b # no comment'}   # 0644
    annotations:
      from: "2024-01-01"
      note: |
        0644 and 2024-01-01
        ---
        value: 0755
      folded: >-
        a: 0644

        b: 2024-01-01
  spec:
    volumes:
    - name: dshm
      emptyDir: {medium: Memory}
    securityContext: {fsGroup: 420, runAsNonRoot: yes}
    containers:
    - name: "{{USER_CONTAINER_NAME}}"
      resources:
        limits:
          <<: *defaults
          cpu: "2"
        requests: *defaults
"""
TWO = """
default_user:
  metadata:
    labels: {rank: null, more: "1"}
  spec:
    nodeSelector: {gpu: "a100"}
    securityContext: {fsGroup: 1000}
    containers:
    - name: "{{USER_CONTAINER_NAME}}"
      env:
      - {name: MINE, value: "x"}
    - name: sidecar
gpu_tpl:
  spec:
    nodeSelector: {gpu: "h100"}
"""


def test_comments_anchors_and_merge_keys_come_through(tf):
    texts = [nest(ONE)]
    tf.apply(azureml_workspace=WORKSPACE, osmo_values_files=write(tf, *texts))
    template = tf.outputs()["pod_template"]
    assert user_env(template) == env_list()
    del template["spec"]["containers"][0]["env"]
    assert template == as_helm(*texts)["default_user"]
    assert template["spec"]["containers"][0]["resources"]["limits"] == {
        "cpu": "2",
        "memory": "{{USER_MEMORY}}",
    }


def test_several_files_merge_as_helm_merges_them(tf):
    texts = [nest(ONE), "# nothing\n", "", nest(TWO), "---\nother: 1\n"]
    tf.apply(azureml_workspace=None, osmo_values_files=write(tf, *texts))
    assert tf.outputs()["pod_template"] == as_helm(*texts)["default_user"]
    assert tf.outputs()["pod_template"]["metadata"]["labels"] == {"team": "robots", "more": "1"}


def test_the_charts_defaults_lie_under_the_files(tf):
    text = nest("default_user:\n  spec:\n    volumes: [{name: dshm, emptyDir: {}}]\n")
    tf.apply(azureml_workspace=WORKSPACE, osmo_values_files=write(tf, text))
    template = tf.outputs()["pod_template"]
    assert template["spec"]["volumes"] == [{"name": "dshm", "emptyDir": {}}]
    assert template["spec"]["containers"][0]["resources"] == STOCK["spec"]["containers"][0]["resources"]


def test_a_map_over_a_scalar_and_a_scalar_over_a_map(tf):
    texts = [
        nest("default_user: {metadata: {labels: {}}, spec: {a: 1, b: {x: 1}, c: {x: 1}, d: [1], e: {x: 1}}}"),
        nest("default_user: {metadata: null, spec: {a: {q: 1}, b: 2, c: null, d: {z: 1}, e: null}}"),
        nest("default_user: {spec: {a: {z: 2}, b: {w: 3}, c: {v: 4}}}"),
    ]
    tf.apply(azureml_workspace=None, osmo_values_files=write(tf, *texts))
    assert tf.outputs()["pod_template"] == as_helm(*texts)["default_user"]


def test_windows_line_ends(tf):
    (path,) = write(tf, "")
    (tf.root / path).write_bytes(nest(ONE).replace("\n", "\r\n").encode())
    tf.apply(azureml_workspace=None, osmo_values_files=[path])
    assert tf.outputs()["pod_template"]["spec"]["volumes"][0]["name"] == "dshm"


REFUSED = [
    ("defaultMode: 0644", "leading zero", "420"),
    ("defaultMode: 0644 # octal", "leading zero", "420"),
    ("- 0755", "leading zero", '"0644"'),
    ("x: {mode: 0644}", "leading zero", "420"),
    ("x: [1, 010]", "leading zero", "420"),
    ("x: -017", "leading zero", "420"),
    ("0123: x", "leading zero", "420"),
    ("x: &mode 0644", "leading zero", "420"),
    ("when: 2024-01-01", "timestamp", '"2024-01-01"'),
    ("when: 2001-12-14t21:59:43.10-05:00", "timestamp", "quotes"),
    ("when: 2001-12-14 21:59:43.10 -5", "timestamp", "quotes"),
    ("x: {when: 2024-1-1}", "timestamp", "quotes"),
    ("- 2024-01-01", "timestamp", "quotes"),
    ("n: 1_000", "number with _", "1000"),
    ("n: 0b101", "number with _ or 0b", "quotes"),
    ("cpu: {{USER_CPU}}", "Jinja marker without quotes", '"{{USER_CPU}}"'),
]


@pytest.mark.parametrize(("line", "what", "remedy"), REFUSED)
def test_what_terraform_would_misread_is_refused_with_its_line(tf, line, what, remedy):
    paths = write(tf, "a: 1\n", f"# comment\nb:\n  {line}\n")
    said = tf.fail(azureml_workspace=WORKSPACE, osmo_values_files=paths)
    assert "values-1.yaml line 3: " in said
    assert what in said and remedy in said and "values-0.yaml" not in said


def test_all_findings_are_told_in_the_order_of_their_lines(tf):
    text = "a: 0644\nb:\n" + "  - x\n" * 8 + "c: 2024-01-01\n"
    said = tf.fail(azureml_workspace=WORKSPACE, osmo_values_files=write(tf, text))
    assert said.index("line 1:") < said.index("line 11:")


@pytest.mark.parametrize(
    "text", ["a: 1\n---\nb: 2\n", "---\na: 1\n--- # second\nb: 1\n", "# c\n\na: 1\n---\n"]
)
def test_several_documents_are_refused_with_the_line(tf, text):
    lines = text.split("\n")
    line = max(number for number, content in enumerate(lines, 1) if content.startswith("---"))
    said = tf.fail(azureml_workspace=WORKSPACE, osmo_values_files=write(tf, text))
    assert f"values-0.yaml line {line}: a second YAML document" in said and "one document a file" in said


ACCEPTED = [
    'mode: "0644"',
    "mode: '0644'",
    "mode: 0",
    "mode: 0.5",
    "mode: 0x1F",
    "mode: 420",
    "version: 2024-01-01-preview",
    "version: v2024-01-01",
    "image: repo/x:0644",
    "image: repo/x@sha256:0123",
    "path: /2024-01-01/x",
    "args: [\"0644\", '2024-01-01']",
    'text: "a \\" b: 0644"',
    "x: a # b: 0644",
    "id: 0123abc",
    "ip: 010.0.0.1",
    "x: a 0644",
]


@pytest.mark.parametrize("line", ACCEPTED)
def test_what_is_no_trap_is_accepted(tf, line):
    text = nest(f"default_user:\n  metadata:\n    annotations:\n      {line}\n")
    tf.apply(azureml_workspace=None, osmo_values_files=write(tf, text))
    assert tf.outputs()["pod_template"] == as_helm(text)["default_user"]


@pytest.mark.parametrize("text", ["a: [1\n", "a: b: c\n", "\ta: 1\n", "- 1\n", "just text\n"])
def test_a_file_that_is_no_yaml_mapping(tf, text):
    said = tf.fail(azureml_workspace=WORKSPACE, osmo_values_files=write(tf, text))
    assert "values-0.yaml is no YAML mapping that Terraform can read" in said and "names the place" in said


def test_a_file_that_is_not_there(tf):
    said = tf.fail(azureml_workspace=WORKSPACE, osmo_values_files=["nowhere.yaml"])
    assert "No such values file: nowhere.yaml" in said and "for example" in said


def deep(levels, leaf):
    for level in range(levels):
        leaf = {f"k{level}": leaf}
    return yaml.safe_dump({"services": {"configs": {"podTemplates": {"default_user": {"spec": leaf}}}}})


def test_files_that_differ_too_deep_are_refused_and_one_file_may_be_as_deep_as_it_likes(tf):
    tf.apply(azureml_workspace=None, osmo_values_files=write(tf, deep(30, {"a": 1})))
    node = tf.outputs()["pod_template"]["spec"]
    for level in reversed(range(30)):
        node = node[f"k{level}"]
    assert node == {"a": 1}
    tf.apply(osmo_values_files=write(tf, deep(5, {"a": 1}), deep(5, {"b": 2})))
    said = tf.fail(osmo_values_files=write(tf, deep(6, {"a": 1}), deep(6, {"b": 2})))
    assert "differ more than 8 levels below services.configs.podTemplates, at default_user.spec.k5" in said
    assert "Give osmo_release_values instead" in said


def test_a_template_that_the_files_take_away(tf):
    said = tf.fail(
        azureml_workspace=WORKSPACE, osmo_values_files=write(tf, nest("default_user: null\nx: {}\n"))
    )
    assert "have no pod template default_user; they have x" in said


def test_env_of_the_base_is_replaced_in_place(tf):
    text = nest(
        """
default_user:
  spec:
    containers:
    - name: "{{USER_CONTAINER_NAME}}"
      env:
      - name: AZURE_RESOURCE_GROUP
        valueFrom: {secretKeyRef: {name: s, key: k}}
      - name: LAST
        value: "0644"
"""
    )
    tf.apply(azureml_workspace=WORKSPACE, osmo_values_files=write(tf, text))
    env = user_env(tf.outputs()["pod_template"])
    assert env[0] == {"name": "AZURE_RESOURCE_GROUP", "value": ENV["AZURE_RESOURCE_GROUP"]}
    assert env[1] == {"name": "LAST", "value": "0644"} and len(env) == 5


@pytest.mark.parametrize(
    "template", ["{spec: 1}", "{spec: [1]}", "{spec: {containers: {a: 1}}}", "{spec: {containers: x}}"]
)
def test_a_template_in_the_files_that_is_none(tf, template):
    said = tf.fail(
        azureml_workspace=WORKSPACE, osmo_values_files=write(tf, nest(f"default_user: {template}"))
    )
    assert "The pod template default_user of the base is none" in said and "for example" in said
