"""Invented folders of no known framework: never two trainings in one version, never a step that no file
states.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aml_mirror.core.errors import DataError, MirrorError, UsageError
from aml_mirror.layouts import find_run
from aml_mirror.layouts.base import Run
from aml_mirror.pipeline.select import SelectedCheckpoint, choose
from aml_mirror.sources.local import LocalSource
from aml_mirror.sources.tree import Tree
from builders.torch_zip import save

WORDS = st.sampled_from(["pick", "place", "go2", "h1", "ppo", "flat", "rough", "arm", "x7"])
SEEDS = st.integers(0, 50)
STEPS = st.lists(st.integers(1, 10**7), min_size=1, max_size=4, unique=True)
COUNTERS = st.sampled_from(["step_{}", "iter_{}", "epoch_{}", "{}_steps", "ckpt_{}", "step={}", "epoch{}"])
# Each example is a folder on the disk.
FEW = settings(max_examples=40)
DATES = st.dates(date(2021, 1, 1), date(2039, 12, 31))


@contextmanager
def run_of(names: list[str]) -> Iterator[tuple[Tree, Run]]:
    """The run that these weight files form, below a folder whose name proves nothing."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "input"
        for name in names:
            save(root / name, {}, name.encode())
        source = LocalSource(root)
        whole = Tree(source, source.scan())
        found = find_run(whole)
        yield whole.below(found.root), found.read(whole)


def final(names: list[str]) -> SelectedCheckpoint:
    with run_of(names) as (tree, run):
        (chosen,) = choose(tree, run, "final")
        return chosen


def require_undecided(names: list[str], meant: set[str]) -> None:
    """Check that the program stops and names the candidates, and that each named value selects its
    candidate.
    """
    with run_of(names) as (tree, run):
        with pytest.raises(UsageError) as raised:
            list(choose(tree, run, "final"))
        picks = re.findall(r"--checkpoint ('[^']*'|[^ ,]+)", raised.value.hint)
        assert meant <= {pick.strip("'") for pick in picks}, (raised.value.hint, meant)
        for pick in picks:
            (chosen,) = choose(tree, run, pick.strip("'"))
            assert chosen.checkpoint.path == pick.strip("'")
        for chosen in choose(tree, run, "all"):
            require_one(chosen)


def require_one(chosen: SelectedCheckpoint) -> None:
    """Check that a version has one file of weights and the step in its name."""
    checkpoint = chosen.checkpoint
    assert checkpoint.weights == (checkpoint.path,)
    if checkpoint.step is not None:
        assert checkpoint.step in [int(digits) for digits in re.findall("[0-9]+", checkpoint.path)]


@FEW
@given(
    word=WORDS,
    counter=COUNTERS,
    steps=STEPS,
    kind=st.sampled_from(["seed", "task", "run", "stage", "fold"]),
    numbers=st.lists(SEEDS, min_size=2, max_size=3, unique=True),
    behind=st.booleans(),
    apart=st.booleans(),
)
def test_what_a_number_of_a_training_tells_apart(word, counter, steps, kind, numbers, behind, apart):
    """Seeds, tasks, runs, stages: several trainings with the same or with other steps."""
    names: list[str] = []
    meant = set()
    for at, number in enumerate(numbers):
        own = [step + at for step in steps] if apart else steps
        parts = [(counter.format(step), f"{kind}_{number}") for step in own]
        named = [f"models/{word}_" + "_".join(pair if behind else pair[::-1]) + ".pt" for pair in parts]
        names += named
        meant.add(named[own.index(max(own))])
    require_undecided(names, meant)


@FEW
@given(
    words=st.lists(WORDS, min_size=2, max_size=3, unique=True),
    counter=COUNTERS,
    steps=STEPS,
    others=STEPS,
    before=st.sampled_from(["policy_", "", "model-"]),
)
def test_what_a_word_tells_apart(words, counter, steps, others, before):
    """Teacher and student, tokenizer and policy, two tasks: their step numbers cannot be compared."""
    lists = [steps, others, steps]
    names, meant = [], set()
    for word, own in zip(words, lists, strict=False):
        named = {step: f"checkpoints/{before}{word}_{counter.format(step)}.pt" for step in own}
        names += named.values()
        meant.add(named[max(own)])
    require_undecided(names, meant)


@FEW
@given(
    folders=st.sampled_from(
        [
            ("1", "2"),
            ("001", "002"),
            ("8123", "8124"),
            ("lr1e-3", "lr1e-4"),
            ("sim", "real"),
            ("v1", "v2"),
            ("d256", "d512"),
        ]
    ),
    word=WORDS,
    counter=COUNTERS,
    steps=st.lists(st.integers(101, 10**7), min_size=2, max_size=3, unique=True),
    others=st.lists(st.integers(101, 10**7), min_size=2, max_size=3, unique=True),
    around=st.sampled_from(["checkpoints", "models"]),
)
def test_folders_in_which_policies_are_numbered_are_several_trainings(
    folders, word, counter, steps, others, around
):
    """Whatever their names: such a folder is never one version, and numbers in two folders are never
    compared.
    """
    names = [
        f"{around}/{folder}/policy_{word}_{counter.format(step)}.pt"
        for folder, own in zip(folders, (steps, others), strict=True)
        for step in own
    ]
    try:
        chosen = final(names)
    except MirrorError as error:
        assert error.exit_code == 64
    else:
        raise AssertionError(chosen.checkpoint)


@FEW
@given(
    word=WORDS,
    days=st.lists(DATES, min_size=2, max_size=4, unique=True),
    shape=st.sampled_from(
        ["%Y%m%d", "%Y-%m-%d", "%Y_%m_%d", "%Y%m%d_083000", "%Y-%m-%d_10-00-00", "%b%d_10-00-00", "%d-%m-%Y"]
    ),
    counter=st.sampled_from(["", "_100", "_step_100"]),
)
def test_dates_are_no_steps(word, days, shape, counter):
    names = {f"models/policy_{word}_{day.strftime(shape)}{counter}.pt" for day in days}
    assume(len(names) > 1)
    require_undecided(sorted(names), names)


@FEW
@given(numbers=st.lists(st.tuples(SEEDS, SEEDS), min_size=2, max_size=5, unique=True))
def test_of_two_numbers_without_a_word_nobody_knows_which_counts(numbers):
    names = {f"checkpoints/policy_{one}_{two}.pt" for one, two in numbers}
    require_undecided(sorted(names), names)


@FEW
@given(
    word=WORDS,
    counter=COUNTERS,
    steps=STEPS,
    end=st.sampled_from(["final", "last", "latest"]),
    seed=SEEDS,
    before=st.booleans(),
)
def test_a_number_does_not_hide_the_word(word, counter, steps, end, seed, before):
    stem = f"{word}_seed_{seed}"
    ended = f"checkpoints/{end}_{stem}.pt" if before else f"checkpoints/{stem}_{end}.pt"
    chosen = final([ended, *(f"checkpoints/{stem}_{counter.format(step)}.pt" for step in steps)])
    assert (chosen.checkpoint.path, chosen.checkpoint.step) == (ended, None)
    assert chosen.checkpoint.role == "final"
    unnamed = [f"checkpoints/{word}__{seed}_{end}.pt", *(f"checkpoints/{word}__{seed}_{n}.pt" for n in steps)]
    chosen = final(unnamed)
    assert (chosen.checkpoint.path, chosen.checkpoint.step) == (unnamed[0], None)


@FEW
@given(
    word=WORDS,
    end=st.sampled_from(["final", "last"]),
    seeds=st.lists(SEEDS, min_size=2, max_size=3, unique=True),
    steps=STEPS,
    label=st.sampled_from(["_seed_", "__", "-"]),
)
def test_the_ends_of_two_trainings_are_two(word, end, seeds, steps, label):
    ends = {f"models/{word}{label}{seed}_{end}.pt" for seed in seeds}
    numbered = [f"models/{word}{label}{seed}_{step}.pt" for seed in seeds for step in steps]
    require_undecided([*ends, *numbered], ends)


@FEW
@given(
    epochs=st.dictionaries(st.integers(0, 30), STEPS, min_size=1, max_size=3),
    shape=st.sampled_from(["epoch_{}_step_{}", "epoch={}-step={}", "model_ep{}_iter{}", "epoch_{}_iter_{}"]),
)
def test_the_epoch_comes_before_the_step_in_it(epochs, shape):
    names = {
        (epoch, step): f"checkpoints/{shape.format(epoch, step)}.pt"
        for epoch in epochs
        for step in epochs[epoch]
    }
    chosen = final(list(names.values()))
    newest = max(names)
    assert chosen.checkpoint.path == names[newest]
    restarts = [step for _, step in sorted(names)] != sorted(step for _, step in names)
    assert chosen.checkpoint.step == (None if restarts else newest[1])


@FEW
@given(word=WORDS, counter=COUNTERS, steps=STEPS)
def test_one_family_is_ordered_by_its_counter(word, counter, steps):
    names = {step: f"checkpoints/{word}_{counter.format(step)}.pt" for step in steps}
    chosen = final(list(names.values()))
    assert (chosen.checkpoint.path, chosen.checkpoint.step) == (names[max(steps)], max(steps))
    require_one(chosen)


COPIES = st.sampled_from(
    [
        ".azDownload-3f2b1c9a-1111-2222-3333-444455556666-{}",
        ".azDownload-6a1b-{}",
        ".{}.Xy12Ab",
        ".{}.a8Zq0P",
        "{}.partial",
        "{}.d5a5bb1f.partial",
        "{}_.gstmp",
        "{}.incomplete",
        "{}.crdownload",
        "{}.part",
        "{}.opdownload",
        "{}.6e0F9a3b",
        "{}.part.minio",
        "{}.filepart",
        ".rsync-partial/{}",
        ".~tmp~/{}",
        "{0}.download/{0}",
        "{}.tmp",
        ".{}.tmp",
        ".syncthing.{}.tmp",
        "{}3141592653",
        "{}.a1b2c3d4.part",
        "{}.uploading",
        ".unison.{}.0a1b2c.unison.tmp",
    ]
)


@FEW
@given(
    copy=COPIES,
    steps=st.lists(st.integers(0, 10**6), min_size=2, max_size=4, unique=True),
    shape=st.sampled_from(["model_{}.pt", "checkpoints/agent_{}.pt", "policy_step_{}.pt", "nets/{}.pth"]),
)
def test_what_an_interrupted_copy_left(copy, steps, shape):
    """Alone it is a newer, incomplete checkpoint. Next to the complete file it is ignored."""
    names = {step: shape.format(step) for step in steps}
    newest, before = sorted(names, reverse=True)[:2]
    folder, _, name = names[newest].rpartition("/")
    leftover = (f"{folder}/" if folder else "") + copy.format(name)
    with run_of([*(names[step] for step in steps if step != newest), leftover]) as (tree, run):
        (chosen,) = choose(tree, run, "final")
        assert chosen.checkpoint.path.rpartition("/")[2] == names[before].rpartition("/")[2]
        ((path, why),) = chosen.passed_over
        assert path.endswith(name) and leftover.rpartition("/")[2] in why
        with pytest.raises(DataError, match="not complete"):
            list(choose(tree, run, "final", strict=True))
    with run_of([*names.values(), leftover]) as (tree, run):
        (chosen,) = choose(tree, run, "final", strict=True)
        assert chosen.checkpoint.step == newest and not chosen.passed_over
        assert not any(path in chosen.checkpoint.files for path in tree.leftovers)
        assert [path.rpartition("/")[2] for path in tree.leftovers] == [leftover.rpartition("/")[2]]


@pytest.mark.parametrize(
    ("files", "role", "step"),
    [
        (["model.pt", "config.yaml", "metrics.csv"], "unknown", None),
        (["checkpoints/policy_seed_3.pt"], "unknown", None),
        (["checkpoints/policy_20260801.pt"], "unknown", None),
        (["checkpoints/policy_1_200.pt"], "unknown", None),
        (["checkpoints/policy_200.pt"], "final", 200),
        (["checkpoints/policy_last.pt"], "final", None),
    ],
)
def test_the_role_is_unknown_where_no_name_tells_it(files: list[str], role: str, step: int | None) -> None:
    checkpoint = final(files).checkpoint
    assert (checkpoint.role, checkpoint.step) == (role, step)


@pytest.mark.parametrize(
    "names",
    [
        ["pick_1_100/model.pt", "pick_1_200/model.pt", "pick_1_final/model.pt"],
        ["checkpoints/pick_1_final/model.pt"],
    ],
)
def test_a_folder_that_says_it_is_the_end_may_have_a_number(names: list[str]) -> None:
    chosen = final(names)
    assert chosen.checkpoint.path + "/model.pt" == names[-1]
    assert (chosen.checkpoint.step, chosen.checkpoint.role) == (None, "final")


@pytest.mark.parametrize(
    "names",
    [
        ["policy_a.pt", "policy_b.pt"],
        ["checkpoints/seed1.pt", "checkpoints/seed2.pt"],
        ["checkpoints/20260801/model.pt", "checkpoints/20260802/model.pt"],
        ["step_100_seed_0/model.pt", "step_100_seed_1/model.pt"],
        ["ppo_1000.pt", "sac_2000.pt", "config.yaml"],
    ],
)
def test_where_no_run_is_found_every_model_is_proposed(names: list[str]) -> None:
    with pytest.raises(UsageError) as raised, run_of(names):
        pass
    for name in names:
        assert name.endswith(".yaml") or f"--checkpoint {name}" in raised.value.hint


@pytest.mark.parametrize(
    "names",
    [
        ["checkpoints/step_100/policy_seed_0.pt", "checkpoints/step_100/policy_seed_1.pt"],
        ["checkpoints/100/seed_0.pt", "checkpoints/100/seed_1.pt"],
        ["checkpoints/step_100.pt", "checkpoints/teacher/step_500.pt"],
        ["policy_100.pt", "ema/policy_100.pt"],
        ["models/actor_agent0.pt", "models/actor_agent1.pt"],
    ],
)
def test_folders_do_not_make_one_of_two(names: list[str]) -> None:
    require_undecided(names, set(names))


def test_one_policy_in_two_formats_and_its_critic_is_one(tmp_path: Path) -> None:
    chosen = final(
        [f"models/{part}_{step}.pt" for part in ("actor", "critic", "normalizer") for step in (9, 100)]
    )
    assert chosen.checkpoint.path == "models/actor_100.pt"
    assert chosen.checkpoint.weights == (
        "models/actor_100.pt",
        "models/critic_100.pt",
        "models/normalizer_100.pt",
    )
    # It is unknown which of two policies a critic belongs to, so it is part of neither.
    seeds = [f"models/{part}_seed_{seed}_9.pt" for part in ("actor", "critic") for seed in (0, 1)]
    require_parts(seeds, {"models/actor_seed_0_9.pt", "models/actor_seed_1_9.pt"})


def require_parts(names: list[str], meant: set[str]) -> None:
    with run_of(names) as (tree, run):
        with pytest.raises(UsageError):
            list(choose(tree, run, "final"))
        assert {item.path for item in run.checkpoints} == meant
        for item in run.checkpoints:
            assert len({path.rpartition("_seed_")[2] for path in item.weights}) == 1


def test_a_step_that_two_share_is_undecided_and_copies_are_one() -> None:
    with run_of(["models/teacher_9.pt", "models/student_9.pt", "models/student_5.pt"]) as (tree, run):
        with pytest.raises(UsageError, match="several checkpoints have the step 9") as raised:
            list(choose(tree, run, "9"))
        assert raised.value.hint.count("--checkpoint") == 2
        (chosen,) = choose(tree, run, "5")
        assert chosen.checkpoint.path == "models/student_5.pt"
    with (
        run_of(["models/policy_1_9.pt", "models/policy_2_9.pt"]) as (tree, run),
        pytest.raises(UsageError, match="no checkpoint is known to have the step 9"),
    ):
        list(choose(tree, run, "9"))
