"""What osmo_pod_template.py writes when others write at the same time. OSMO is a list of revisions here."""

import json
import sys

import pytest
from mirror_world import ENV, ROOT, STOCK, env_list, user_env

sys.path.insert(0, str(ROOT / "terraform" / "scripts"))
import osmo_pod_template
from osmo_config_cli import EX_CONFIG, EX_NOPERM, EX_TEMPFAIL, InUse, MirrorError, Revision
from osmo_pod_template import EX_DRIFT, TRIES, Settler
from pod_template_spec import OUTPUTS_TEMPLATE, Spec

SPEC = Spec("default_user", ENV, STOCK)
OUTPUTS = {"spec": {"volumes": [{"name": "outputs"}]}}


def template(**env):
    made = json.loads(json.dumps(STOCK))
    made["spec"]["containers"][0]["env"] = env_list(env)
    return made


def copy_of(templates):
    return json.loads(json.dumps(templates))


class Revisions:
    """Stands in for OsmoCli, which calls a program: templates, their history, and people who write too."""

    def __init__(self, templates):
        self.rows = []
        self.used, self.guarded = set(), set()
        self.forgotten = set()
        self.before_update, self.after_update = [], []
        self.keep(templates, "by setup")

    def keep(self, templates, description, who="ada"):
        self.rows.append((copy_of(templates), description, who))

    def edit(self, who="eve", **templates):
        self.keep(self.templates() | templates, f"by {who}", who)

    def templates(self, revision=None):
        if revision in self.forgotten:
            raise MirrorError(EX_CONFIG, "No config found matching the specified criteria")
        return copy_of(self.rows[-1 if revision is None else revision - 1][0])

    def history(self, offset=0):
        rows = [Revision(number, text, who) for number, (_, text, who) in enumerate(self.rows, 1)]
        return rows[::-1][offset : offset + osmo_pod_template.PAGE]

    def update(self, templates, description):
        for edit in self.before_update.pop(0) if self.before_update else ():
            self.edit(**edit)
        self.keep(self.templates() | templates, description)
        if self.after_update:
            self.edit(**self.after_update.pop(0))

    def delete(self, name, description):
        if name in self.guarded:
            raise MirrorError(EX_NOPERM, "osmo-admin only")
        if name in self.used:
            raise InUse(EX_CONFIG, f"Pod Template {name} is used in pools gpu")
        self.keep({key: value for key, value in self.templates().items() if key != name}, description)


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(osmo_pod_template, "FIRST_PAUSE", 0)


@pytest.fixture
def osmo():
    return Revisions({"default_user": STOCK})


def settle(osmo, verb, spec=SPEC, *, dry_run=False, check=False):
    return Settler(osmo, spec, verb).run(dry_run=dry_run, check=check)


@pytest.mark.parametrize("verb", ["apply", "remove"])
def test_what_others_built_on_our_write_is_not_undone(osmo, capsys, verb):
    if verb == "remove":
        settle(osmo, "apply")
    ours = ENV if verb == "apply" else {}
    theirs = {} if verb == "apply" else ENV
    ada = template(**ours, ADA="1")
    osmo.before_update.append([{"default_user": template(**theirs, EVE="1")}])
    osmo.after_update.append({"default_user": ada})
    before = len(osmo.rows)
    assert settle(osmo, verb) == 0
    assert osmo.templates()["default_user"] == ada and len(osmo.rows) == before + 3
    said = capsys.readouterr().err
    assert f"revision {before + 1} by eve was replaced by {before + 2}" in said


@pytest.mark.parametrize("verb", ["apply", "remove"])
def test_an_edit_that_our_write_replaced_comes_back(osmo, verb):
    if verb == "remove":
        settle(osmo, "apply")
    theirs = {} if verb == "apply" else ENV
    osmo.before_update.append([{"default_user": template(**theirs, EVE="1")}])
    assert settle(osmo, verb) == 0
    assert user_env(osmo.templates()["default_user"]) == env_list(
        {"EVE": "1", **ENV} if verb == "apply" else {"EVE": "1"}
    )


def test_an_edit_that_our_write_replaced_comes_back_beside_edits_of_other_templates(osmo):
    osmo.before_update += [[{"default_user": template(EVE="1")}], [{"other": {"spec": {}}}]]
    assert settle(osmo, "apply") == 0
    assert user_env(osmo.templates()["default_user"]) == env_list({"EVE": "1", **ENV})
    assert osmo.templates()["other"] == {"spec": {}}


def test_of_several_edits_the_newest_comes_back(osmo):
    edits = [{"default_user": template(EVE=str(number))} for number in (1, 2, 3)]
    osmo.before_update.append([*edits, {"other": {"spec": {}}}])
    assert settle(osmo, "apply") == 0
    assert user_env(osmo.templates()["default_user"]) == env_list({"EVE": "3", **ENV})


def test_an_edit_of_another_template_is_not_merged(osmo, capsys):
    osmo.before_update.append([{"other": {"spec": {}}}])
    assert settle(osmo, "apply") == 0
    assert "came in between" not in capsys.readouterr().err and len(osmo.rows) == 3


def test_a_value_that_was_set_in_between_and_overwritten_comes_back_at_removal(osmo):
    overwriting = Spec("default_user", ENV, STOCK, overwrite_existing=True)
    theirs = template(AZURE_RESOURCE_GROUP="theirs")
    osmo.before_update.append([{"default_user": theirs}])
    settle(osmo, "apply", overwriting)
    assert user_env(osmo.templates()["default_user"]) != user_env(theirs)
    settle(osmo, "remove", overwriting)
    assert osmo.templates()["default_user"] == theirs


def test_what_was_merged_with_an_edit_of_our_own_revision_is_still_ours(osmo):
    """Eve edits what our first write left, while that write is merged with her earlier edit."""
    later = template(**ENV, EVE="2")
    osmo.before_update += [[{"default_user": template(EVE="1")}], [{"default_user": later}]]
    assert settle(osmo, "apply") == 0
    assert osmo.templates()["default_user"] == later
    assert settle(osmo, "remove") == 0
    assert user_env(osmo.templates()["default_user"]) == env_list({"EVE": "2"})


def test_an_edit_that_we_may_not_merge_with_is_put_back(osmo):
    theirs = template(**{**ENV, "AZURE_RESOURCE_GROUP": "theirs"})
    osmo.before_update.append([{"default_user": theirs}])
    with pytest.raises(MirrorError, match="AZURE_RESOURCE_GROUP"):
        settle(osmo, "apply")
    assert osmo.templates()["default_user"] == theirs


def test_a_record_from_before_a_rollback_does_not_count(osmo):
    osmo = Revisions({"default_user": {"spec": {"containers": []}}})
    settle(osmo, "apply")
    # Now Ada has made the container that the record says is ours.
    ada = {"spec": {"containers": [{"name": "{{USER_CONTAINER_NAME}}", "env": []}]}}
    osmo.edit(default_user=ada)
    settle(osmo, "apply")
    settle(osmo, "remove")
    assert osmo.templates()["default_user"] == ada


def test_a_template_that_we_made_stays_without_our_variables_while_a_pool_lists_it(osmo):
    spec = Spec("mirror_user", ENV, STOCK)
    settle(osmo, "apply", spec)
    osmo.used.add("mirror_user")
    assert settle(osmo, "remove", spec) == 0
    assert user_env(osmo.templates()["mirror_user"]) == []
    revisions = len(osmo.rows)
    assert settle(osmo, "remove", spec) == 0 and len(osmo.rows) == revisions
    # Without a pool it goes.
    settle(osmo, "apply", other := Spec("other_user", ENV, STOCK))
    assert settle(osmo, "remove", other) == 0 and "other_user" not in osmo.templates()


def test_a_template_of_the_outputs_that_a_pool_lists_is_deleted_by_the_next_removal(osmo):
    spec = Spec("default_user", ENV, STOCK, OUTPUTS)
    settle(osmo, "apply", spec)
    osmo.used.add(OUTPUTS_TEMPLATE)
    with pytest.raises(InUse):
        settle(osmo, "remove", spec)
    assert osmo.templates() == {"default_user": STOCK, OUTPUTS_TEMPLATE: OUTPUTS}
    osmo.used.clear()
    assert settle(osmo, "remove", spec) == 0
    assert osmo.templates() == {"default_user": STOCK}


def test_a_template_that_could_not_be_deleted_yet_stays_on_record(osmo):
    spec = Spec("mirror_user", ENV, STOCK, OUTPUTS)
    settle(osmo, "apply", spec)
    osmo.guarded.add("mirror_user")
    with pytest.raises(MirrorError, match="osmo-admin only"):
        settle(osmo, "remove", spec)
    assert user_env(osmo.templates()["mirror_user"]) == env_list()
    osmo.guarded.clear()
    assert settle(osmo, "remove", spec) == 0 and osmo.templates() == {"default_user": STOCK}


@pytest.mark.parametrize("containers", [[], [{"name": "sidecar"}], [{"name": "{{USER_CONTAINER_NAME}}"}]])
def test_a_removal_leaves_what_was_there_before(containers):
    osmo = Revisions({"default_user": (before := {"spec": {"containers": containers}})})
    settle(osmo, "apply")
    assert user_env(osmo.templates()["default_user"]) == env_list()
    settle(osmo, "remove")
    assert osmo.templates()["default_user"] == before
    # What somebody added to the container that we made keeps it.
    settle(osmo, "apply")
    there = osmo.templates()["default_user"]
    there["spec"]["containers"][-1]["image"] = "eve"
    osmo.edit(default_user=there)
    settle(osmo, "remove")
    assert osmo.templates()["default_user"]["spec"]["containers"][-1]["image"] == "eve"


@pytest.mark.parametrize("base", [{}, {"spec": {}}, {"spec": {"containers": []}}, STOCK])
def test_a_template_that_we_made_goes_again(osmo, base):
    spec = Spec("mirror_user", ENV, base)
    settle(osmo, "apply", spec)
    assert user_env(osmo.templates()["mirror_user"]) == env_list()
    settle(osmo, "remove", spec)
    assert osmo.templates() == {"default_user": STOCK}


def test_a_template_that_somebody_deleted_needs_no_removal(osmo):
    settle(osmo, "apply", spec := Spec("mirror_user", ENV, STOCK))
    osmo.keep({"default_user": STOCK}, "deleted by eve")
    assert settle(osmo, "remove", spec) == 0 and osmo.templates() == {"default_user": STOCK}


def test_a_revision_that_an_administrator_deleted_is_passed_over(osmo):
    settle(osmo, "apply")
    osmo.forgotten.add(len(osmo.rows))
    assert settle(osmo, "remove") == 0
    assert user_env(osmo.templates()["default_user"]) == []


def test_an_error_of_a_revision_that_is_there_is_not_passed_over(osmo, monkeypatch):
    settle(osmo, "apply")
    real = osmo.templates

    def templates(revision=None):
        if revision is not None:
            raise MirrorError(EX_TEMPFAIL, "OSMO does not answer for now")
        return real()

    monkeypatch.setattr(osmo, "templates", templates)
    with pytest.raises(MirrorError, match="does not answer"):
        settle(osmo, "remove")
    assert user_env(real()["default_user"]) == env_list()


def test_a_record_on_a_later_page_of_the_history_counts(osmo, monkeypatch):
    monkeypatch.setattr(osmo_pod_template, "PAGE", 3)
    settle(osmo, "apply")
    for number in range(7):
        osmo.edit(other={"n": number})
    # What we overwrite is looked up in the newest revision, not in the newest of that page.
    osmo.edit(default_user=template(**{**ENV, "AZURE_RESOURCE_GROUP": "theirs"}))
    settle(osmo, "apply", Spec("default_user", ENV, STOCK, overwrite_existing=True))
    for number in range(7):
        osmo.edit(other={"n": number})
    assert settle(osmo, "remove") == 0
    assert user_env(osmo.templates()["default_user"]) == env_list({"AZURE_RESOURCE_GROUP": "theirs"})


def test_others_who_never_stop(osmo):
    osmo.after_update += [{"default_user": STOCK}] * (TRIES + 3)
    with pytest.raises(MirrorError, match="others keep writing") as raised:
        settle(osmo, "apply")
    assert raised.value.code == EX_TEMPFAIL
    assert len(osmo.after_update) == 3


@pytest.mark.parametrize("how", [{"dry_run": True}, {"check": True}])
def test_a_dry_run_and_a_check_write_nothing(osmo, capsys, how):
    code = EX_DRIFT if "check" in how else 0
    assert settle(osmo, "apply", **how) == code and len(osmo.rows) == 1
    settle(osmo, "apply")
    capsys.readouterr()
    assert settle(osmo, "apply", **how) == 0
    assert ("no drift" if "check" in how else "unchanged") in capsys.readouterr().out
    assert settle(osmo, "remove", **how) == code and len(osmo.rows) == 2
    # A value of somebody else is drift, too, and an error only for a write.
    osmo.edit(default_user=template(AZURE_RESOURCE_GROUP="theirs"))
    if "check" in how:
        assert settle(osmo, "apply", **how) == EX_DRIFT
    else:
        with pytest.raises(MirrorError, match="AZURE_RESOURCE_GROUP"):
            settle(osmo, "apply", **how)
