"""scripts/replay.py and OSMO's labels: passed on if the client knows them, warnings, refusals."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from osmo_world import OsmoWorld
from replay_calls import IMAGE, Replay, submitted, values_of


def policy(osmo: OsmoWorld, *labels: dict[str, Any], version: str = "6.4") -> None:
    """Set OSMO's version and label policy."""
    with osmo.changed() as state:
        state["version"], state["labels"] = version, list(labels)
    osmo.add("train-7")


def replays(osmo: OsmoWorld) -> list[dict[str, Any]]:
    """The labels of each replay."""
    return [found["labels"] for name, found in osmo.state["workflows"].items() if name.startswith("azureml")]


def test_labels_are_passed_on(call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str]) -> None:
    policy(osmo, {"key": "team", "enforcement": "enforce"})
    assert (
        call("train-7", "--label", "team=arms", "--label", "example.com/site=lab-2", "--pool", "default") == 0
    )
    assert replays(osmo) == [{"team": "arms", "example.com/site": "lab-2"}]
    (command,) = [one for one in submitted(osmo) if "--help" not in one]
    assert values_of(command) == {"run_id": "train-7", "image": IMAGE}
    assert "warns" not in capsys.readouterr().err


def test_a_dry_run_prints_the_labels(
    call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("train-7", "--label", "team=arms", "--dry-run") == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[words.index("--label") + 1] == "team=arms"
    assert osmo.calls == []


def test_a_client_without_labels(call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str]) -> None:
    """6.3 and before: the script prints a note and submits without labels."""
    policy(osmo, version="6.3")
    assert call("train-7", "--label", "team=arms") == 0
    assert "knows no labels, which came with OSMO 6.4" in capsys.readouterr().err
    assert replays(osmo) == [{}]
    assert not any("--label" in command for command in submitted(osmo))


def test_nobody_is_asked_where_no_label_is_given(call: Replay, osmo: OsmoWorld) -> None:
    policy(osmo)
    assert call("train-7") == 0
    assert not any("--help" in command for command in osmo.calls)


@pytest.mark.parametrize(
    ("rule", "given", "warning", "hint"),
    [
        ({}, (), "Workflow is missing label 'team'", "add --label team=VALUE"),
        (
            {"allow_list": ["arms"]},
            ("--label", "team=legs"),
            "Workflow label 'team' has a value that is not allowed",
            "give another value: --label team=VALUE",
        ),
    ],
)
def test_what_osmo_warns_of_and_what_it_refuses(
    call: Replay,
    osmo: OsmoWorld,
    capsys: pytest.CaptureFixture[str],
    rule: dict[str, Any],
    given: tuple[str, ...],
    warning: str,
    hint: str,
) -> None:
    policy(osmo, {"key": "team", "enforcement": "warn", **rule})
    assert call("train-7", *given) == 0
    out, err = capsys.readouterr()
    assert out == "azureml-replay-8\n"
    assert f"OSMO warns: {warning}" in err
    assert f"({hint})" in err
    policy(osmo, {"key": "team", "enforcement": "enforce", **rule})
    assert call("train-7", *given) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "OSMO refused the workflow" in err
    assert "label 'team'" in err
    assert err.endswith(f"; {hint}\n")


@pytest.mark.parametrize(
    "label", ["team", "=arms", "team=", "team=a b", "team={{ x }}", "-team=arms", "Example.com/team=arms",
              "a/b/c=d", "team=" + "a" * 64, "x" * 64 + "=a"],
)  # fmt: skip
def test_what_is_no_label(
    call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str], label: str
) -> None:
    assert call("train-7", "--label=" + label) == 64
    assert "is not a Kubernetes label" in capsys.readouterr().err
    assert osmo.calls == []


def test_more_labels_than_osmo_takes(
    call: Replay, osmo: OsmoWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [word for number in range(17) for word in ("--label", f"k{number}=v")]
    assert call("train-7", *many) == 64
    assert "pass at most 16" in capsys.readouterr().err
    assert call("train-7", *many[2:], "--dry-run") == 0
    assert osmo.calls == []
