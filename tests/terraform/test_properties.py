"""Random templates and variables through the real terraform and the script: untouched keys stay unchanged.

One terraform run merges a batch of cases (the module with for_each), because starting it costs more than
merging.
"""

import copy
import json
import sys
import unicodedata

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mirror_world import ENV, ROOT, STOCK, WORKSPACE
from osmo_charts import LAYOUTS
from real_helm import merge

sys.path.insert(0, str(ROOT / "terraform" / "scripts"))
from pod_template_merge import Seen, merge_env, plan_apply, plan_remove
from pod_template_spec import Spec

USER = "{{USER_CONTAINER_NAME}}"
CHART = LAYOUTS["6.3", "service 1.3"]
BATCH = 25
RUN = settings(
    max_examples=4,
    deadline=None,
    database=None,
    derandomize=True,
    # A failing batch is reported unchanged, because shrinking it would start terraform hundreds of times.
    phases=[Phase.generate],
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)

# Texts that are difficult in HCL, JSON and YAML. Terraform stores text in NFC, so the inputs are in NFC.
HARD = [
    "{{USER_CPU}}", "{{ USER_GPU }}", "${x}", "%{if}", "$${", "yes", "No", "null", "~", "0644", "1_000",
    "2024-01-01", "1e3", "", " ", "a: b", "- a", "# c", "'", '"', "\\", "{a}", "[1]", "&a", "*a", "<&>",
    "é", "日本", "a\nb", "a\n", "\tx", "|", "true",
]  # fmt: skip
ONE_LINE = [text for text in HARD if "\n" not in text and "\t" not in text]
letters = st.characters(exclude_categories=("Cs", "Cc", "Cn", "Zl", "Zp"), exclude_characters="\ufeff")


def texts(hard, smallest=0):
    drawn = st.sampled_from([text for text in hard if len(text) >= smallest]) | st.text(
        letters, min_size=smallest, max_size=8
    )
    return drawn.map(lambda text: unicodedata.normalize("NFC", text))


def trees(hard, leaves=6):
    scalars = (
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.integers(-64, 64).map(lambda n: n / 8)
        | texts(hard)
    )
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(hard, 1), inner, max_size=3),
        max_leaves=leaves,
    )


NAMES = [*ENV, "MINE", "OTHER", "EXTRA_A", "EXTRA_B"]
entries = st.fixed_dictionaries(
    {"name": st.sampled_from(NAMES)}, optional={"value": texts(HARD), "valueFrom": trees(HARD)}
)
containers = st.fixed_dictionaries(
    {"name": st.sampled_from([USER, "{{ USER_CONTAINER_NAME }}", "sidecar", "osmo-ctrl"])},
    optional={
        "env": st.lists(entries, max_size=5),
        "resources": trees(HARD),
        "volumeMounts": st.lists(trees(HARD, 2), max_size=2),
        "anything": trees(HARD),
    },
)
templates = st.fixed_dictionaries(
    {},
    optional={
        "metadata": trees(HARD),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "containers": st.lists(containers, max_size=3),
                "initContainers": st.lists(containers, max_size=1),
                "volumes": trees(HARD),
                "anything": trees(HARD),
            },
        ),
    },
)
extras = st.dictionaries(st.sampled_from(["EXTRA_A", "EXTRA_B", "MINE"]), texts(HARD), max_size=3)
cases = st.lists(st.tuples(templates, extras), min_size=BATCH, max_size=BATCH)


def through_terraform(tf, arguments, cases):
    """The outputs pod_template and helm_values of every case, from one apply."""
    (tf.root / "cases.json").write_text(json.dumps({f"case{n:03}": case for n, case in enumerate(cases)}))
    outputs = {
        name: {"value": f"${{{{for key, one in module.mirror : key => one.{name}}}}}"}
        for name in ("pod_template", "helm_values")
    }
    root = {
        "locals": {"cases": '${jsondecode(file("cases.json"))}'},
        "module": {"mirror": {"source": "./checkout/terraform", "for_each": "${local.cases}"} | arguments},
        "output": outputs,
    }
    (tf.root / "main.tf.json").write_text(json.dumps(root))
    done = tf.run("apply", "-auto-approve", "-input=false")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    values = tf.outputs()
    return [
        (values["pod_template"][key], values["helm_values"][key]) for key in sorted(values["pod_template"])
    ]


def is_user(container):
    return container["name"] in (USER, "{{ USER_CONTAINER_NAME }}")


def assert_only_the_variables_differ(base, merged, env):
    """The rule, written independently of both implementations."""
    assert {k: v for k, v in merged.items() if k != "spec"} == {k: v for k, v in base.items() if k != "spec"}
    spec = base.get("spec", {})
    assert {k: v for k, v in merged["spec"].items() if k != "containers"} == {
        k: v for k, v in spec.items() if k != "containers"
    }
    before, after = spec.get("containers", []), merged["spec"]["containers"]
    if not any(is_user(container) for container in before):
        before = [*before, {"name": USER}]
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        if not is_user(old):
            assert new == old
            continue
        assert {k: v for k, v in new.items() if k != "env"} == {k: v for k, v in old.items() if k != "env"}
        others = [entry for entry in old.get("env", []) if entry["name"] not in env]
        assert [entry for entry in new["env"] if entry["name"] not in env] == others
        ours = [entry for entry in new["env"] if entry["name"] in env]
        assert sorted(entry["name"] for entry in ours) == sorted(env)
        assert all(entry == {"name": entry["name"], "value": env[entry["name"]]} for entry in ours)
        # Existing entries keep their place, and new ones follow.
        names = [entry["name"] for entry in old.get("env", [])]
        in_place = [name for n, name in enumerate(names) if name not in env or names.index(name) == n]
        assert [entry["name"] for entry in new["env"]][: len(in_place)] == in_place


@RUN
@given(cases)
def test_random_templates(tf, drawn):
    arguments = {
        "azureml_workspace": WORKSPACE,
        "base_pod_template": "${each.value[0]}",
        "extra_env": "${each.value[1]}",
    }
    for (base, extra), (merged, overlay) in zip(drawn, through_terraform(tf, arguments, drawn), strict=True):
        env = ENV | {name: extra[name] for name in sorted(extra)}
        assert_only_the_variables_differ(base, merged, env)
        assert merge_env(base, env) == merged
        values = CHART.values({"default_user": base})
        after = templates_in(merge(tf.root / "charts", values, overlay))
        assert without_nulls(after) == {"default_user": without_nulls(merged)}


@RUN
@given(cases)
def test_off_is_the_base_again(tf, drawn):
    bases = [case[0] for case in drawn]
    arguments = {"base_pod_template": "${each.value}", "should_enable_azureml_mirror": False}
    for base, (left, overlay) in zip(bases, through_terraform(tf, arguments, bases), strict=True):
        on = CHART.values({"default_user": merge_env(base, ENV)})
        back = templates_in(merge(tf.root / "charts", on, overlay))["default_user"]
        if not any(marked(container) for container in base.get("spec", {}).get("containers", [])):
            assert left == base
            containers = (base.get("spec") or {}).get("containers", [])
            assert without_nulls((back.get("spec") or {}).get("containers", [])) == without_nulls(containers)


def marked(container):
    """A base from a release with the mirror on: the mirror's variables are not the operator's."""
    return is_user(container) and {"name": "OSMO_WORKFLOW_ID", "value": "{{WF_ID}}"} in container.get(
        "env", []
    )


trees_of_maps = st.recursive(
    trees(ONE_LINE, 3),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "spec", "x.y/z", "labels"]), inner, max_size=4),
    max_leaves=12,
)
maps = st.dictionaries(st.sampled_from(["a", "b", "spec", "x.y/z", "labels"]), trees_of_maps, max_size=4)
files = st.lists(
    st.dictionaries(
        st.sampled_from(["default_user", "default_ctrl"]),
        st.fixed_dictionaries({}, optional={"metadata": trees_of_maps, "spec": maps}),
    ),
    min_size=1,
    max_size=4,
)


@RUN
@given(st.lists(files, min_size=12, max_size=12))
def test_after_random_values_files_the_overlay_changes_nothing_but_the_variables(tf, drawn):
    """Helm merges the files, the module creates the overlay from the result, and Helm merges it over the
    files.
    """
    given, paths = [], []
    for number, documents in enumerate(drawn):
        values = [CHART.values(document, enabled=True) for document in documents]
        values = [CHART.defaults() | {"other": 1}, *values]
        given.append(values)
        taken = merge(tf.root / "charts", *values)
        # A file may have removed the template, which is refused.
        if not isinstance(templates_in(taken).get("default_user"), dict):
            given[-1] = values = [values[0]]
            taken = merge(tf.root / "charts", *values, "other: 1")
        paths.append(f"values-{number}.json")
        (tf.root / paths[-1]).write_text(json.dumps(taken))
    arguments = {"osmo_release_values": "${each.value}", "azureml_workspace": WORKSPACE}
    outcomes = through_terraform(tf, arguments, paths)
    for values, path, (template, overlay) in zip(given, paths, outcomes, strict=True):
        before = json.loads((tf.root / path).read_text())
        after = merge(tf.root / "charts", *values, overlay)
        templates = templates_in(after)
        # Helm removes a null in some places and keeps it in others. OSMO treats both alike.
        merged = without_nulls(templates.pop("default_user"))
        assert merged == without_nulls(template)
        base = without_nulls(templates_in(before).pop("default_user"))
        assert_only_the_variables_differ(base, merged, ENV)
        beside = {name: one for name, one in templates_in(before).items() if name != "default_user"}
        assert without_nulls(templates) == without_nulls(beside)


def templates_in(values):
    return values["services"]["configs"]["podTemplates"]


def without_nulls(tree):
    if isinstance(tree, dict):
        return {key: without_nulls(value) for key, value in tree.items() if value is not None}
    return [without_nulls(item) for item in tree] if isinstance(tree, list) else tree


@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@given(templates, extras, st.booleans())
def test_the_script_takes_away_exactly_what_it_added(base, extra, overwrite):
    env = ENV | extra
    spec = Spec("default_user", env, STOCK, None, overwrite_existing=True)
    original = copy.deepcopy(base)
    seen = Seen(7, {"default_user": base})
    applied = plan_apply(spec, seen, lambda revision: None)
    assert base == original
    assert_only_the_variables_differ(base, applied.writes["default_user"], env)
    on = Seen(8, applied.writes, applied.record, applied.writes)
    again = plan_apply(spec, on, lambda revision: {"default_user": base})
    assert again.writes == applied.writes and again.record.owns == applied.record.owns
    removed = plan_remove(spec, on, lambda revision: {"default_user": base} if revision == 7 else None)
    left = removed.writes.get("default_user", applied.writes["default_user"])
    for container in (base.get("spec") or {}).get("containers", []):
        names = [entry["name"] for entry in container.get("env", [])]
        if is_user(container) and (len(names) != len(set(names)) or marked(container)):
            return  # A name that is set twice is set once afterwards. Either of the two may remain.
    users = [container for container in (base.get("spec") or {}).get("containers", []) if is_user(container)]
    if len(users) < 2:
        assert normal(left) == normal(base)


def normal(template):
    """For OSMO an empty list of containers or an empty spec is the same as none."""
    spec = {k: v for k, v in (template.get("spec") or {}).items() if not (k == "containers" and v == [])}
    return {k: v for k, v in template.items() if k != "spec"} | ({"spec": spec} if spec else {})
