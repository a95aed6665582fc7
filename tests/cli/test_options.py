"""The table of options: which commands take one, how its value is read, and what it defaults to."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from aml_mirror.cli.arguments import COMMANDS, parser, with_default_command
from aml_mirror.core.errors import UsageError
from aml_mirror.core.option_values import run_count
from aml_mirror.core.options import TABLE, Option, options_of
from aml_mirror.core.settings import Settings, resolve
from builders.program import Call, clean_environment


def settings(*words: str, folder: Path = Path("/dev/null"), **environment: str) -> Settings:
    return resolve(parser().parse_args(with_default_command(words)), environment, folder)


def page(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        parser().parse_args([command, "--help"])
    return capsys.readouterr().out


def test_every_row_has_a_setting_and_a_command_takes_a_flag_once() -> None:
    own = {item.name for item in fields(Settings)}
    assert {option.setting for option in TABLE} <= own
    assert own - {option.setting for option in TABLE} == {
        "parameters",
        "where",
        "extra",
        "run_labels",
    }
    for command in COMMANDS:
        flags = [option.flag for option in options_of(command) if option.flag]
        assert len(flags) == len(set(flags))
        assert {name for option in TABLE for name in option.commands} <= set(COMMANDS)


def test_shown_defaults_are_the_defaults() -> None:
    """The default that --help shows, read as a value, is the value that applies if nothing is set."""
    checked = 0
    for option in TABLE:
        held = getattr(Settings(), option.setting)
        if option.setting in (
            "concurrency",
            "block_size",
            "retry_seconds",
            "wait_seconds",
            "checkpoint",
            "every_seconds",
            "longest_run_seconds",
        ):
            assert option.parse(option.default, option.flag) == held
            checked += 1
    assert checked == 7


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_what_the_command_uses_and_nothing_else(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", page(command, capsys), re.M)) - {"--help"}
    assert listed == {
        option.flag for option in TABLE if command in option.commands and option.flag.startswith("--")
    }
    if command in ("status", "verify", "completion"):
        assert not listed & {"--block-size", "--concurrency", "--tag", "--strict"}


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--concurrency", "zero"), ("--concurrency", "0"), ("--block-size", "1GiB"), ("--retry-for", "soon"),
        ("--wait-for", "soon"), ("--tag", "x"), ("--run-id", "a\nb"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["mirror", "plan", "doctor"])
def test_every_value_is_checked_whatever_the_target(
    aml_mirror: Call, tmp_path: Path, command: str, flag: str, value: str
) -> None:
    target = ("--tracking-uri", "http://127.0.0.1:9", "--model-name", "m")
    done = aml_mirror(command, "--source", tmp_path, *target, f"{flag}={value}", code=64)
    assert (flag if flag != "--run-id" else "run id") in done.err


def test_values_are_typed_and_settings_are_frozen() -> None:
    found = settings("mirror", "--concurrency", "4", "--block-size", "4MiB", "--retry-for", "1.5h")
    assert (found.concurrency, found.block_size, found.retry_seconds) == (4, 4 << 20, 5400.0)
    with pytest.raises(FrozenInstanceError):
        found.run_id = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        found.where["run_id"] = "x"  # type: ignore[index]


def test_a_variable_is_read_by_the_commands_that_use_it() -> None:
    assert settings("mirror", RUN_ID="r", OUTPUT_DIR="/d").run_id == "r"
    backfill = settings("backfill", RUN_ID="bad\nid", OUTPUT_DIR="/d", OUTPUT_BASE="/b")
    assert (backfill.run_id, backfill.source, backfill.output_base) == ("", "", "/b")


def test_the_source_is_positional_too(tmp_path: Path) -> None:
    for command in ("mirror", "plan", "doctor", "status", "backfill"):
        assert settings(command, "runs/a", "--json").source == "runs/a"
        assert settings(command, "--source", "runs/a").source == "runs/a"
        assert settings(command, "", "--source", "runs/a").source == "runs/a"
        assert settings(command, "runs/a/", "--source", "./runs/a").source == "runs/a/"
        with pytest.raises(UsageError, match="name two different sources"):
            settings(command, "runs/a", "--source", "runs/b")
    assert settings("plan", "runs/a", OUTPUT_DIR="/other").source == "runs/a"
    for place in ("runs/a", "./a", "/a", ".", "azure://acct/runs/a"):
        assert with_default_command([place, "--json"]) == ["mirror", place, "--json"]


def test_options_of_another_package() -> None:
    """A registry or a source can add rows. Their values are in ``extra``, validated and converted."""
    rows = (
        Option(
            setting="acme_limit",
            flag="--acme-limit",
            help="at most N",
            commands=("mirror",),
            group="Acme",
            metavar="N",
            variables=("ACME_LIMIT",),
            parse=run_count,
        ),
    )
    for words, environment, wanted in (
        (["mirror", "--acme-limit", "3"], {}, {"acme_limit": 3}),
        (["mirror"], {"ACME_LIMIT": "4"}, {"acme_limit": 4}),
        (["mirror"], {}, {}),
    ):
        assert resolve(parser(rows).parse_args(words), environment, Path("/dev/null"), rows).extra == wanted
    with pytest.raises(UsageError, match="--acme-limit 'x' is not a number"):
        resolve(parser(rows).parse_args(["mirror", "--acme-limit=x"]), {}, Path("/dev/null"), rows)
    with pytest.raises(UsageError, match="unknown option --acme-limit"):
        parser(rows).parse_args(["status", "--acme-limit", "3"])
    with pytest.raises(UsageError, match="unknown option --acme-limt") as caught:
        parser(rows).parse_args(["mirror", "--acme-limt", "3"])
    assert "did you mean --acme-limit?" in caught.value.hint
    commands = next(
        action for action in parser(rows)._actions if isinstance(action, argparse._SubParsersAction)
    )
    assert "Acme:" in commands.choices["mirror"].format_help()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["statu"], "did you mean status?"),
        (["verfy", "m:1"], "did you mean verify?"),
        (["--sorce", "x"], "did you mean --source? see: aml-mirror mirror --help"),
        (["status", "--modelname", "x"], "did you mean --model-name? see: aml-mirror status --help"),
        (
            ["verify", "--block-size", "8MiB"],
            "--block-size is an option of mirror, backfill, watch, not of verify",
        ),
        (["mirror", "--shard", "0/2"], "--shard is an option of backfill, watch, not of mirror"),
        (["plan", "a", "b"], "unexpected argument 'b' for aml-mirror plan; see: aml-mirror plan --help"),
        (["--json", "status"], "put it first: aml-mirror status"),
        (["backfill", "--since"], "--since needs a value; see: aml-mirror backfill --help"),
        (["plan", "x", "--framework", "lerobt"], "did you mean lerobot? one of: lerobot, "),
        (["backfill", "--limit", "many"], "for example: --limit 100; see: aml-mirror backfill --help"),
        (["--retry-for", "soon"], "see: aml-mirror mirror --help"),
        (["completion", "bsh"], "did you mean bash? one of: bash, zsh, fish"),
        (["builders"], "there is no command 'builders'; the commands are: mirror, "),
        (["run-a"], "there is no command 'run-a'; to mirror a folder: aml-mirror mirror run-a; "),
    ],
)
def test_what_was_meant(aml_mirror: Call, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "run-a").mkdir()
    done = aml_mirror(*words, code=64)
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_help_names_the_frameworks(capsys: pytest.CaptureFixture[str]) -> None:
    from aml_mirror.layouts import layout_names

    text = " ".join(page("plan", capsys).split())
    for name in layout_names():
        assert name in text


def test_version_loads_nothing_of_the_program(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom aml_mirror.cli.main import main\ncode = main(['--version'])\n"
        "print(sorted(name for name in sys.modules if name.startswith('aml_mirror') or name == 'argparse'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=clean_environment()
    )
    version, modules = done.stdout.splitlines()
    assert version.startswith("aml-mirror ")
    assert modules == "['aml_mirror', 'aml_mirror.cli', 'aml_mirror.cli.main']"
