"""What the script osmo_pod_template.py decides: plans, records, specifications, refusals."""

import json
import sys

import pytest
from mirror_world import CTRL, ENV, ROOT, STOCK, env_list, user_env

sys.path.insert(0, str(ROOT / "terraform" / "scripts"))
from osmo_config_cli import Answer, InUse, MirrorError, OsmoCli, Revision
from pod_template_merge import Refused, Seen, merge_env, missing_identity, plan_apply, plan_remove
from pod_template_spec import OUTPUTS_TEMPLATE, Record, Spec, read_record, read_spec

SPEC = Spec("default_user", ENV, STOCK)
OURS = {"spec": {"volumes": [{"name": "ours"}]}}
THEIRS = {"spec": {"volumes": [{"name": "theirs"}]}}


def with_env(**env):
    template = json.loads(json.dumps(STOCK))
    template["spec"]["containers"][0]["env"] = env_list(env)
    return template


def seen(template, owns=(), written=None, outputs=None, created="nothing", record_outputs=False, revision=7):
    templates = {"default_user": template} if template else {}
    if outputs:
        templates[OUTPUTS_TEMPLATE] = outputs
    record = Record(dict(owns), created, record_outputs)
    return Seen(revision, templates, record, written)


def nothing(revision):
    raise AssertionError("no revision has to be looked at")


NAME = next(iter(ENV))


def test_a_value_of_somebody_else_is_refused_and_ours_is_written_anew():
    with pytest.raises(Refused, match=NAME):
        plan_apply(SPEC, seen(with_env(**{NAME: "theirs"})), nothing)
    overwriting = Spec("default_user", ENV, STOCK, overwrite_existing=True)
    plan = plan_apply(overwriting, seen(with_env(**{NAME: "theirs"})), nothing)
    assert plan.record.owns[NAME] == 7 and user_env(plan.writes["default_user"]) == env_list()
    # The value from an earlier specification, as our last write left it.
    before = with_env(**{**ENV, NAME: "before"})
    ours = seen(before, dict.fromkeys(ENV), {"default_user": before})
    assert user_env(plan_apply(SPEC, ours, nothing).writes["default_user"]) == env_list()
    # Somebody has changed it since.
    changed = with_env(**{**ENV, NAME: "theirs"})
    with pytest.raises(Refused, match=NAME):
        plan_apply(SPEC, seen(changed, dict.fromkeys(ENV), {"default_user": before}), nothing)


def test_what_the_mirror_added_goes_and_what_somebody_changed_since_stays():
    ours = with_env(**ENV)
    plan = plan_remove(SPEC, seen(ours, dict.fromkeys(ENV), {"default_user": ours}), nothing)
    assert user_env(plan.writes["default_user"]) == [] and plan.notes == []
    changed = with_env(**{**ENV, NAME: "theirs"})
    plan = plan_remove(SPEC, seen(changed, dict.fromkeys(ENV), {"default_user": ours}), nothing)
    assert user_env(plan.writes["default_user"]) == [{"name": NAME, "value": "theirs"}]
    assert f"{NAME} in default_user was changed by somebody else" in plan.notes[0]


def test_a_variable_that_the_specification_no_longer_has_goes_if_it_is_still_ours():
    shorter = Spec("default_user", {key: value for key, value in ENV.items() if key != NAME}, STOCK)
    ours = with_env(**ENV)
    plan = plan_apply(shorter, seen(ours, dict.fromkeys(ENV), {"default_user": ours}), nothing)
    assert user_env(plan.writes["default_user"]) == env_list(shorter.env) and NAME not in plan.record.owns
    changed = with_env(**{**ENV, NAME: "theirs"})
    plan = plan_apply(shorter, seen(changed, dict.fromkeys(ENV), {"default_user": ours}), nothing)
    assert {"name": NAME, "value": "theirs"} in user_env(plan.writes["default_user"])
    assert f"{NAME} in default_user was changed by somebody else" in plan.notes[0]


def test_a_variable_that_was_there_with_our_value_is_not_ours():
    plan = plan_apply(SPEC, seen(with_env(**{NAME: ENV[NAME]})), nothing)
    assert NAME not in plan.record.owns and set(plan.record.owns) == ENV.keys() - {NAME}
    plan = plan_remove(SPEC, seen(with_env(**ENV)), nothing)
    assert plan.writes == {} and f"{NAME} in default_user was not added by the mirror" in plan.notes[0]


def test_variables_go_into_every_container_of_the_user_and_into_no_other():
    names = [
        "{{USER_CONTAINER_NAME}}",
        "{{ USER_CONTAINER_NAME }}",
        "{{USER_CONTAINER_NAME}}-sidecar",
        "ctrl",
    ]
    twice = env_list({NAME: "old"}) * 2
    template = {"spec": {"containers": [{"name": name, "env": [*twice, "$x"]} for name in names]}}
    merged = [one["env"] for one in merge_env(template, {NAME: "new"})["spec"]["containers"]]
    assert merged == [[*env_list({NAME: "new"}), "$x"]] * 2 + [[*twice, "$x"]] * 2
    for bare in ({}, {"spec": None}, {"spec": {}}, {"spec": {"containers": None}}):
        assert user_env(merge_env(bare, ENV)) == env_list()


def test_what_a_pod_needs_for_an_identity_may_be_in_any_template():
    assert missing_identity({"a": STOCK, "b": CTRL}) == []
    labelled, served = {"metadata": CTRL["metadata"]}, {"spec": CTRL["spec"]}
    assert missing_identity({"a": labelled, "b": served}) == []
    assert missing_identity({"a": labelled}) == ["a serviceAccountName"]
    assert missing_identity({"a": served}) == ['the label azure.workload.identity/use: "true"']
    assert len(missing_identity({"a": STOCK})) == 2


def test_what_was_overwritten_comes_back():
    ours = with_env(**ENV)
    plan = plan_remove(
        SPEC,
        seen(ours, {**dict.fromkeys(ENV), NAME: 3}, {"default_user": ours}),
        lambda revision: {"default_user": with_env(**{NAME: f"of {revision}"})},
    )
    assert user_env(plan.writes["default_user"]) == [{"name": NAME, "value": "of 3"}]
    # Its revision is gone from the history: the variable is still removed.
    plan = plan_remove(
        SPEC, seen(ours, {**dict.fromkeys(ENV), NAME: 3}, {"default_user": ours}), lambda revision: None
    )
    assert user_env(plan.writes["default_user"]) == []


def test_a_template_that_the_mirror_made_goes_only_where_it_is_as_it_was():
    base = {"spec": {"containers": [{"name": "{{USER_CONTAINER_NAME}}"}]}}
    spec = Spec("default_user", ENV, base)
    made = plan_apply(spec, seen(None), nothing)
    assert made.record.created == "template"
    there = made.writes["default_user"]
    record = {"owns": made.record.owns, "written": {"default_user": there}, "created": "template"}
    assert plan_remove(spec, seen(there, **record), nothing).deletes == ["default_user"]
    labelled = {**there, "metadata": {"labels": {"eve": "was here"}}}
    plan = plan_remove(spec, seen(labelled, **record), nothing)
    assert plan.deletes == [] and plan.writes["default_user"]["metadata"] == labelled["metadata"]


def test_the_template_of_the_outputs_is_written_over_only_where_it_is_the_mirrors():
    spec = Spec("default_user", ENV, STOCK, OURS)
    assert plan_apply(spec, seen(STOCK), nothing).writes[OUTPUTS_TEMPLATE] == OURS
    with pytest.raises(Refused, match="is not the mirror's"):
        plan_apply(spec, seen(STOCK, outputs=THEIRS), nothing)
    # On record, but changed by somebody since.
    with pytest.raises(Refused, match="is not the mirror's"):
        plan_apply(
            spec, seen(STOCK, written={OUTPUTS_TEMPLATE: OURS}, outputs=THEIRS, record_outputs=True), nothing
        )
    older = seen(STOCK, written={OUTPUTS_TEMPLATE: THEIRS}, outputs=THEIRS, record_outputs=True)
    assert plan_apply(spec, older, nothing).writes[OUTPUTS_TEMPLATE] == OURS
    overwriting = Spec("default_user", ENV, STOCK, OURS, overwrite_existing=True)
    assert plan_apply(overwriting, seen(STOCK, outputs=THEIRS), nothing).writes[OUTPUTS_TEMPLATE] == OURS


@pytest.mark.parametrize("plan_of", [plan_apply, plan_remove])
def test_the_template_of_the_outputs_goes_only_where_it_is_the_mirrors(plan_of):
    ours = {"written": {OUTPUTS_TEMPLATE: OURS}, "record_outputs": True}
    assert plan_of(SPEC, seen(STOCK, outputs=OURS, **ours), nothing).deletes == [OUTPUTS_TEMPLATE]
    assert plan_of(SPEC, seen(STOCK, outputs=THEIRS, **ours), nothing).deletes == []
    assert plan_of(SPEC, seen(STOCK, outputs=OURS), nothing).deletes == []
    assert plan_of(SPEC, seen(STOCK, **ours), nothing).deletes == []


def test_a_record_is_read_as_it_was_written_and_only_of_its_template():
    record = Record({"A": None, "B": 12}, "env", True)
    row = Revision(3, record.describe("default_user", "set A, B", "0123abcd"), "me")
    assert read_record(row, "default_user") == record
    assert read_record(row, "default_ctrl") is None
    for text in ("", "set by hand", row.description[:-1], "x " + row.description):
        assert read_record(Revision(3, text, "me"), "default_user") is None


@pytest.mark.parametrize(
    "changed",
    [{"base": [1]}, {"base": "x"}, {"env": []}, {"template": 1}, {"env": [{"name": "A", "value": 1}]}],
)
def test_a_specification_of_another_form_is_refused(monkeypatch, changed):
    whole = {"template": "t", "env": [{"name": "A", "value": "1"}], "base": {}}
    monkeypatch.setenv("AZUREML_MIRROR_SPEC", json.dumps(whole))
    assert read_spec(None).env == {"A": "1"}
    monkeypatch.setenv("AZUREML_MIRROR_SPEC", json.dumps({**whole, **changed}))
    with pytest.raises(MirrorError) as raised:
        read_spec(None)
    assert raised.value.code == 64


def test_what_a_specification_says(monkeypatch):
    whole = {"template": "t", "env": [{"name": "A", "value": "1"}]}
    monkeypatch.setenv("AZUREML_MIRROR_SPEC", json.dumps(whole))
    assert read_spec(None) == Spec("t", {"A": "1"}, {})
    whole |= {"base": STOCK, "outputs_template": OURS, "overwrite_existing": True}
    # As a string, `terraform output -json` prints it.
    for text in (json.dumps(whole), json.dumps(json.dumps(whole))):
        monkeypatch.setenv("AZUREML_MIRROR_SPEC", text)
        assert read_spec(None) == Spec("t", {"A": "1"}, STOCK, OURS, overwrite_existing=True)


@pytest.mark.parametrize("notice", ["", "WARNING: a newer osmo client is available\n"])
def test_what_osmo_prints(monkeypatch, notice):
    cli = OsmoCli()
    said = [json.dumps({"t": STOCK}, indent=2)]
    monkeypatch.setattr(cli, "_once", lambda arguments: Answer(0, notice + said[0]))
    assert cli.templates() == {"t": STOCK}
    said[0] = json.dumps({"t": [STOCK]})
    with pytest.raises(MirrorError, match="no map of templates"):
        cli.templates()
    rows = [{"revision": number, "description": None, "username": None} for number in (3, 5, 4)]
    said[0] = json.dumps({"configs": rows})
    assert cli.history() == [Revision(number, "", "somebody") for number in (5, 4, 3)]
    for wrong in ("hello", "[]", '{"configs": [{}]}', '{"configs": null}'):
        said[0] = wrong
        with pytest.raises(MirrorError) as raised:
            cli.history()
        assert raised.value.code == 65


def answer(exit_code, status=0, message="no"):
    return Answer(exit_code, json.dumps({"message": message, "code": status}))


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (answer(2, 409), 78),
        (answer(2, 400, "Configs are managed by ConfigMap"), 78),
        (answer(2, 401), 77),
        (answer(1, 0, "Must login first"), 77),
        (answer(2, 403), 77),
        (answer(10), 75),
        (answer(75), 75),
        (answer(2, 429), 75),
        (answer(2, 500), 75),
        (answer(2, 400), 78),
    ],
)
def test_what_a_refusal_means(given, code):
    assert OsmoCli._error(("config", "update", "POD_TEMPLATE", "t"), given).code == code


def test_a_template_that_a_pool_lists_is_in_use():
    delete, update = ("config", "delete", "POD_TEMPLATE", "t"), ("config", "update", "POD_TEMPLATE", "t")
    assert isinstance(OsmoCli._error(delete, answer(2, 400)), InUse)
    assert not isinstance(OsmoCli._error(update, answer(2, 400)), InUse)
    assert not isinstance(OsmoCli._error(delete, answer(2, 403)), InUse)


@pytest.mark.parametrize("given", [answer(10), answer(75), answer(2, 429), answer(2, 503)])
def test_what_fails_for_now_is_asked_again_and_what_is_refused_is_not(monkeypatch, given):
    left = [given, answer(0)]
    cli = OsmoCli(pauses=(0, 0))
    monkeypatch.setattr(cli, "_once", lambda arguments: left.pop(0))
    assert cli._call("config", "show").exit_code == 0
    left[:] = [answer(2, 400), answer(0)]
    with pytest.raises(MirrorError):
        cli._call("config", "show")
    assert len(left) == 1
