"""Nothing that a version needs, or that a running mirror uses, is ever listed for removal."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from aml_mirror.core.manifest import identity
from aml_mirror.prune.unneeded import unneeded
from aml_mirror.registries.leftovers import RunLeft, StagingLeft, StoredBlob, Survey
from aml_mirror.registries.records import Version

DAY = 86_400.0
RUNS = ("run-1", "run-2", "claims", "a b/c")
CHECKPOINTS = ("checkpoint-10", ".", "pretrained model")
DIGESTS = tuple(hashlib.sha256(text.encode()).hexdigest() for text in "abc")
MODELS = ("act", "act-2")


@dataclass(frozen=True)
class Attempt:
    """One mirror, finished or not."""

    run: str
    checkpoint: str
    digest: str
    model: str
    old_form: bool
    version: str
    """``none``, ``complete``, ``incomplete``, ``archived`` or ``foreign`` (another path below the folder)."""
    status: str
    age: float
    claim_held: bool
    described: bool
    """Whether this workspace has its run."""

    @property
    def identity(self) -> str:
        return identity(self.run, self.checkpoint, self.digest)

    @property
    def unit(self) -> str:
        from aml_mirror.registries.azureml.limits import safe_part

        digest = self.digest if self.old_form else f"sha256-{self.digest}"
        return f"aml-mirror/{safe_part(self.run)}/{safe_part(self.checkpoint)}/{digest}"

    @property
    def folder(self) -> str:
        return self.unit if self.old_form else f"{self.unit}/model"

    @property
    def claim(self) -> str:
        return f"aml-mirror/claims/{self.identity}/{self.model}"

    @property
    def tags(self) -> dict[str, str]:
        return {
            "osmo.run_id": self.run,
            "checkpoint": self.checkpoint,
            "manifest_sha256": self.digest,
            "identity": self.identity,
            "model_name": self.model,
        }


attempts = st.lists(
    st.builds(
        Attempt,
        st.sampled_from(RUNS),
        st.sampled_from(CHECKPOINTS),
        st.sampled_from(DIGESTS),
        st.sampled_from(MODELS),
        st.booleans(),
        st.sampled_from(["none", "complete", "incomplete", "archived", "foreign"]),
        st.sampled_from(["FAILED", "KILLED", "FINISHED", "RUNNING"]),
        st.floats(0, 60 * DAY),
        st.booleans(),
        st.booleans(),
    ),
    max_size=8,
)


def survey_of(given: list[Attempt], datastore: str = "workspaceblobstore") -> Survey:
    versions, runs, blobs = [], [], {}
    for at, one in enumerate(given):
        for name in (f"{one.folder}/model.safetensors", f"{one.unit}/mirror/{one.model}/manifest.json"):
            kept = blobs.get(name)
            age = min(one.age, kept.age) if kept else one.age
            blobs[name] = StoredBlob(name, 100, age)
        held = one.claim_held or (one.claim in blobs and blobs[one.claim].is_leased)
        blobs[one.claim] = StoredBlob(one.claim, 0, one.age, held)
        run_id = f"run{at}"
        if one.described:
            runs.append(RunLeft(run_id, one.status, one.tags, one.age))
        if one.version == "none":
            continue
        path = one.folder + ("/part" if one.version == "foreign" else "")
        uri = f"azureml://subscriptions/s/resourceGroups/g/workspaces/w/datastores/{datastore}/paths/{path}/"
        tags = {**one.tags, "mlflow_run_id": run_id} if one.version != "foreign" else {}
        versions.append(Version(one.model, str(at), tags, uri, one.version == "archived"))
    return Survey(tuple(versions), tuple(runs), tuple(blobs.values()))


@given(attempts, st.floats(0, 30 * DAY), st.sampled_from(["workspaceblobstore", "another_name_of_it"]))
def test_nothing_reachable_is_removed(given: list[Attempt], older_than: float, datastore: str) -> None:
    survey = survey_of(given, datastore)
    items = unneeded(survey, older_than)
    folders = {item.name for item in items if item.kind == "folder"}
    names = {item.name for item in items}
    for version in survey.versions:
        path = version.path.partition("/paths/")[2].rstrip("/")
        assert not any(path == name or path.startswith(f"{name}/") for name in folders)
    for one in given:
        if one.version != "none":
            assert one.unit not in folders
        if one.claim_held:
            # A mirror that holds a claim is running: its folder, its claim and its run stay.
            assert one.unit not in folders and one.claim not in names
        if one.age <= older_than:
            assert one.unit not in folders
    for run in survey.runs:
        if run.run_id in names:
            assert run.status in ("FAILED", "KILLED") and run.age > older_than
            assert all(version.tags.get("mlflow_run_id") != run.run_id for version in survey.versions)
    for item in items:
        assert item.age > older_than
        if item.kind == "folder":
            # Only what this workspace started. A run does not record which form its folder's name has.
            began = {one.unit.replace("/sha256-", "/") for one in given if one.described}
            assert item.name.replace("/sha256-", "/") in began
            owned = [blob for blob in survey.blobs if blob.name.startswith(f"{item.name}/")]
            assert item.files == len(owned) and item.bytes == sum(blob.bytes for blob in owned)


@given(attempts)
def test_what_nobody_needs_is_found(given: list[Attempt]) -> None:
    items = {item.name for item in unneeded(survey_of(given), 0.0)}
    for one in given:
        same = [other for other in given if other.unit == one.unit or other.identity == one.identity]
        if all(
            other.version == "none"
            and not other.claim_held
            and other.described
            and other.age > 0
            and other.status == "FAILED"
            for other in same
        ):
            assert one.unit in items and one.claim in items
    assert [item.kind for item in unneeded(survey_of(given), 0.0)] == sorted(
        (item.kind for item in unneeded(survey_of(given), 0.0)),
        key=["folder", "staging", "claim", "run"].index,
    )


def test_staging_stays_as_long_as_the_service_keeps_blocks() -> None:
    survey = Survey((), (), (), tuple(StagingLeft(f"s{days}", 1, 1, days * DAY) for days in (1, 6, 8, 30)))
    assert [item.name for item in unneeded(survey, 0.0)] == ["s8", "s30"]
    assert [item.name for item in unneeded(survey, 14 * DAY)] == ["s30"]


def test_other_blobs_and_other_peoples_runs_stay() -> None:
    digest = "a" * 64
    blobs = tuple(
        StoredBlob(name, 1, 90 * DAY)
        for name in (
            "aml-mirror/stages/act/production/000001.json",
            f"aml-mirror/run/ckpt/sha256-{digest}/model/x",  # no run of this workspace started it
            f"aml-mirror/run/ckpt/{digest[:-1]}/x",
            "aml-mirror/probes/1",
            "elsewhere/model.bin",
        )
    )
    runs = (RunLeft("r", "FAILED", {"mlflow.user": "somebody"}, 90 * DAY),)
    assert unneeded(Survey((), runs, blobs), 0.0) == []
