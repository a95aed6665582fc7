"""scripts/replay.py: what it refuses before OSMO sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
import replay

from aml_mirror.core.errors import UsageError
from osmo_world import OsmoWorld
from replay_calls import IMAGE, Replay, submitted, values_of


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 64, "RUN_ID"),
        (["train-7", "--sauce", "x"], 64, "unrecognized arguments"),
        (["../train-7"], 64, "cannot be the id"),
        (["-t"], 64, "error"),
        (["train-7", "--source", "s3://bucket/x"], 64, "s3:// URI"),
        (["train-7", "--source", "file:///runs/x"], 64, "file:// URI"),
        (["train-7", "--source", "azure://acct"], 64, "no account and container"),
        (["train-7", "--source", "azure:///c/p"], 64, "no account and container"),
        (["train-7", "--source", "outputs/x"], 64, "relative path"),
        (
            ["train-7", "--source", "https://acct.blob.core.windows.net/c/p?sv=1&sig=SECRETSECRET"],
            64,
            "a SAS",
        ),
        (["train-7", "--source", "https://example.com/c/p"], 64, "https:// URI"),
        (["train-7", "--model-name", "{{ x }}"], 64, "braces"),
        (["train-7", "--model-name", "a\nb"], 64, "newline"),
        (["train-7", "--checkpoint", "{% x %}"], 64, "braces"),
        (["train-7", "--image", "registry.example/aml-mirror@sha256:" + "0" * 64], 78, "placeholder"),
        (["train-7", "--image", "aml mirror"], 64, "not the name of an image"),
        (["train-7", "--image", "UPPER/Case:1"], 64, "not the name of an image"),
        (["train-7", "--", "--tag", "site=lab two"], 64, "has a blank"),
    ],
)
def test_what_is_refused_before_it_is_submitted(
    call: Replay,
    osmo: OsmoWorld,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    assert call(*arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert "SECRETSECRET" not in err
    assert submitted(osmo) == []


def test_the_placeholder_of_the_workflow_is_refused(
    call: Replay,
    osmo: OsmoWorld,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("AML_MIRROR_IMAGE")
    workflow = tmp_path / "replay-azureml.yaml"
    text = replay.WORKFLOW.read_text()
    released = text.replace(replay.default_image(replay.WORKFLOW), IMAGE)
    monkeypatch.setattr(replay, "WORKFLOW", workflow)
    workflow.write_text(released.replace("ab" * 32, "0" * 64))
    assert call("train-7") == 78
    assert "the placeholder" in capsys.readouterr().err
    assert submitted(osmo) == []
    # A released image is accepted unchanged.
    workflow.write_text(released)
    assert call("train-7", "--dry-run") == 0
    assert "image=" not in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("azure://acct/runs/a b/c", "azure://acct/runs/a b/c"),
        ("https://acct.blob.core.windows.net/runs/x", "azure://acct/runs/x"),
        ("abfss://runs@acct.dfs.core.windows.net/x/y", "azure://acct/runs/x/y"),
        ("/mnt/outputs/x", "/mnt/outputs/x"),
    ],
)
def test_sources_that_can_be_meant(
    call: Replay, capsys: pytest.CaptureFixture[str], given: str, taken: str
) -> None:
    assert call("train-7", "--source", given, "--dry-run") == 0
    assert values_of(capsys.readouterr().out.splitlines()[-1])["source"] == taken


@pytest.mark.parametrize("name", ["sig", "se", "sv", "sp"])
def test_any_part_of_a_sas_is_one(name: str) -> None:
    for mark in ("?", "?x=1&"):
        with pytest.raises(UsageError, match="a SAS"):
            replay.check_source(f"https://acct.blob.core.windows.net/c/p{mark}{name}=SECRETSECRET")


@pytest.mark.parametrize("braces", ["{{", "}}", "{%", "%}", "{#", "#}"])
def test_what_osmo_s_templates_read_is_refused(braces: str) -> None:
    with pytest.raises(UsageError, match="braces"):
        replay.Values().set("model_name", f"a {braces} b", "--model-name")
    with pytest.raises(UsageError, match="braces"):
        replay.check_flags([f"--tag=a{braces}b"])
    assert replay.check_flags(["--tag=a{b}", ""]) == "--tag=a{b}"


def test_a_workspace_s_name_with_a_blank_is_refused() -> None:
    names = {"AZURE_SUBSCRIPTION_ID": "s", "AZURE_RESOURCE_GROUP": "rg", "AZUREML_WORKSPACE_NAME": "w x"}
    with pytest.raises(UsageError, match="has a blank"):
        replay.coordinates([("the environment", names)])
