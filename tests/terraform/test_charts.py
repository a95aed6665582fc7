"""The versions and charts of OSMO that terraform/README.md lists, each rendered by real Helm."""

import json
import re

import pytest
import yaml
from mirror_world import CTRL, ROOT, WORKSPACE, Raw, env_list, user_env
from osmo_charts import LAYOUTS, nest
from real_helm import merge, rendered

README = (ROOT / "terraform" / "README.md").read_text()


def rows(heading):
    """The cells of a section's table, without its head and without the marks of code."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in table[2:]]


VERSIONS = {(osmo, chart): rest for osmo, chart, *rest in rows("OSMO versions and charts")}


def test_the_table_lists_the_layouts():
    assert list(VERSIONS) == list(LAYOUTS)


@pytest.mark.parametrize("row", list(LAYOUTS), ids=" ".join)
def test_each_row_as_real_helm_renders_it(tf, tmp_path, row):
    layout, (path, read_if, mode) = LAYOUTS[row], VERSIONS[row]
    chart = layout.write(tmp_path)
    assert path == (layout.path or "none")
    defaults = merge(tmp_path / "defaults", layout.defaults(), "{}")
    (tf.root / "release.json").write_text(json.dumps(defaults))
    given = {"azureml_workspace": WORKSPACE, "osmo_release_values": "release.json"}
    if not layout.path:
        # OSMO 6.2: no value of the chart reaches OSMO's configuration.
        assert (read_if, mode) == ("never", "api")
        assert rendered(chart, nest("services.configs.podTemplates", {"podTemplates": {"a": {}}})) is None
        assert 'set osmo_config_mode = "api"' in tf.fail(**given)
        return
    assert "configmap" in mode
    given["helm_values_path"] = layout.path
    if layout.switch:
        # With the chart's defaults, an overlay would change nothing that OSMO reads.
        assert read_if == f"{layout.switch}: true"
        assert rendered(chart, {}) is None
        assert f"{layout.switch}: false" in tf.fail(**given)
        own = layout.values({"default_ctrl": CTRL}, enabled=True)
    else:
        assert read_if == "configuration.snapshot: null"
        own = layout.values({"default_ctrl": CTRL}, snapshot={"pod_templates": {"theirs": {}}})
        assert rendered(chart, own) == {"theirs": {}}
        (tf.root / "release.json").write_text(json.dumps(merge(tmp_path / "on", layout.defaults(), own)))
        assert "configuration.snapshot" in tf.fail(**given)
        own = layout.values({"default_ctrl": CTRL})
    (tf.root / "release.json").write_text(json.dumps(merge(tmp_path / "on", layout.defaults(), own)))
    tf.apply(**given)
    before = rendered(chart, own)
    after = rendered(chart, merge(tmp_path / "both", own, tf.outputs()["helm_values"]))
    assert user_env(after["default_user"]) == env_list()
    del after["default_user"]["spec"]["containers"][0]["env"]
    assert after == before and before["default_ctrl"] == CTRL


YAML = rows("Before the first release")


def test_there_are_traps_in_the_readme():
    assert any(written == "0644" for written, *_ in YAML)


@pytest.mark.parametrize(("written", "helm", "terraform"), YAML)
def test_what_yamldecode_changes_as_the_readme_says(tf, tmp_path, written, helm, terraform):
    """Each row: the text in the file, the value that Helm reads, the value that Terraform reads."""
    text = f"x: {written}\n"
    assert merge(tmp_path, {}, text)["x"] == json.loads(helm)
    (tf.root / "values.yaml").write_text(
        yaml.safe_dump({"spec": {"containers": []}}) + text.replace("x:", "trap:")
    )
    tf.apply(azureml_workspace=None, base_pod_template=Raw('yamldecode(file("values.yaml"))'))
    found = tf.outputs()["pod_template"]["trap"]
    assert found == json.loads(terraform) and found != json.loads(helm)


def test_quotes_are_the_way_out_of_every_trap(tf, tmp_path):
    quoted = "".join(f'k{number}: "{written}"\n' for number, (written, *_) in enumerate(YAML))
    (tf.root / "values.yaml").write_text(quoted)
    tf.apply(azureml_workspace=None, base_pod_template=Raw('yamldecode(file("values.yaml"))'))
    assert tf.outputs()["pod_template"] == merge(tmp_path, {}, quoted)


def test_no_word_of_what_is_gone():
    """The module no longer merges values files, so its page must not promise that."""
    assert not re.search(r"osmo_values_files|8 levels", README)
