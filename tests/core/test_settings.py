"""settings.py and arguments.py: the values of options, which source takes precedence, and where each value
came from.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aml_mirror.cli.arguments import COMMANDS, parser, with_default_command
from aml_mirror.core.dotenv import read_dotenv
from aml_mirror.core.errors import ConfigurationError, MirrorError, UsageError
from aml_mirror.core.option_values import seconds
from aml_mirror.core.settings import PARAMETER_VARIABLES, Settings, locate_source, resolve
from aml_mirror.registries.registry import required_type

# Setting, flag, and variables in order of precedence.
EVERYWHERE = (
    ("model_name", "--model-name", ("AZUREML_MODEL_NAME",)),
    ("subscription_id", "--subscription-id", ("AZURE_SUBSCRIPTION_ID",)),
    ("resource_group", "--resource-group", ("AZURE_RESOURCE_GROUP", "AZUREML_RESOURCE_GROUP")),
    ("workspace_name", "--workspace-name", ("AZUREML_WORKSPACE_NAME",)),
    ("tracking_uri", "--tracking-uri", ("MLFLOW_TRACKING_URI",)),
    ("run_id", "--run-id", ("REPLAY_RUN_ID", "RUN_ID")),
    ("source", "--source", ("OUTPUT_DIR",)),
)
CASES = [(name, flag, variable) for name, flag, variables in EVERYWHERE for variable in variables]


def resolved(folder: Path, *flags: str, dotenv: str | None = None, **environment: str) -> Settings:
    if dotenv is not None:
        (folder / ".env").write_text(dotenv)
    return resolve(parser().parse_args(with_default_command(flags)), environment, folder)


@pytest.mark.parametrize(("name", "flag", "variable"), CASES)
def test_a_flag_wins_over_the_environment_over_dotenv_over_the_default(
    tmp_path: Path, name: str, flag: str, variable: str
) -> None:
    def found(*flags: str, **environment: str) -> tuple[str, str]:
        settings = resolved(tmp_path, *flags, **environment)
        return getattr(settings, name), settings.from_where(name)

    assert found() == (getattr(Settings(), name), "")
    (tmp_path / ".env").write_text(f"{variable}=from-dotenv\n")
    assert found() == ("from-dotenv", f" ({variable} in .env)")
    assert found(**{variable: "from-env"}) == ("from-env", f" ({variable})")
    assert found(flag, "from-flag", **{variable: "from-env"}) == ("from-flag", f" ({flag})")


WORKSPACE = (
    "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/11111111-2222-3333-4444-555555555555/"
    "resourceGroups/rg-robots/providers/Microsoft.MachineLearningServices/workspaces/mlw-robots"
)


@pytest.mark.parametrize("uri", [WORKSPACE, WORKSPACE + "/", WORKSPACE.replace("rceGroups", "rcegroups")])
def test_the_tracking_uri_of_an_azure_ml_workspace_is_its_coordinates(tmp_path: Path, uri: str) -> None:
    for found, where in (
        (resolved(tmp_path, "--tracking-uri", uri), " (--tracking-uri)"),
        (resolved(tmp_path, MLFLOW_TRACKING_URI=uri), " (MLFLOW_TRACKING_URI)"),
    ):
        assert found.azure_coordinates == ("11111111-2222-3333-4444-555555555555", "rg-robots", "mlw-robots")
        assert required_type(found).name == "azureml"
        assert found.from_where("workspace_name") == where
    both = {"MLFLOW_TRACKING_URI": uri, "AZUREML_WORKSPACE_NAME": "other"}
    assert resolved(tmp_path, **both).azure_coordinates == ("", "", "other")
    assert resolved(tmp_path, "--tracking-uri", uri, **both).workspace_name == "mlw-robots"
    for wrong in ("azureml://eastus", uri.rpartition("/workspaces")[0], "azureml:"):
        with pytest.raises(ConfigurationError, match="names no workspace"):
            resolved(tmp_path, MLFLOW_TRACKING_URI=wrong)


@pytest.mark.parametrize(("name", "flag", "variable"), CASES)
def test_what_is_empty_is_unset_and_shadows_nothing(
    tmp_path: Path, name: str, flag: str, variable: str
) -> None:
    (tmp_path / ".env").write_text(f"{variable}=from-dotenv\n")
    assert getattr(resolved(tmp_path, **{variable: ""}), name) == "from-dotenv"
    assert getattr(resolved(tmp_path, f"{flag}=", **{variable: "from-env"}), name) == "from-env"
    (tmp_path / ".env").write_text(f"{variable}=\n{variable}\n")
    assert getattr(resolved(tmp_path), name) == ""


@pytest.mark.parametrize(
    ("name", "variables"), [(name, both) for name, _, both in EVERYWHERE if len(both) > 1]
)
def test_the_first_of_two_variables_wins_and_the_environment_wins_over_dotenv_with_either(
    tmp_path: Path, name: str, variables: tuple[str, str]
) -> None:
    first, second = variables
    assert getattr(resolved(tmp_path, **{first: "1", second: "2"}), name) == "1"
    assert getattr(resolved(tmp_path, **{first: "", second: "2"}), name) == "2"
    assert getattr(resolved(tmp_path, dotenv=f"{first}=1", **{second: "2"}), name) == "2"


def test_a_replay_is_its_source_run(tmp_path: Path) -> None:
    found = resolved(tmp_path, RUN_ID="train-7-replay", REPLAY_RUN_ID="train-7")
    assert (found.run_id, found.replay_run_id) == ("train-7", "train-7")
    assert resolved(tmp_path, RUN_ID="train-7").replay_run_id == ""
    assert resolved(tmp_path, "--run-id", "x", REPLAY_RUN_ID="train-7").run_id == "x"


def test_the_source_is_the_flag_then_output_dir_then_output_base_with_the_run_id(tmp_path: Path) -> None:
    base = {"OUTPUT_BASE": "/base", "RUN_ID": "r"}
    assert locate_source(resolved(tmp_path, "--source", "/flag", OUTPUT_DIR="/dir", **base)) == "/flag"
    assert locate_source(resolved(tmp_path, OUTPUT_DIR="/dir", **base)) == "/dir"
    assert locate_source(resolved(tmp_path, **base)) == "/base/r"
    assert locate_source(resolved(tmp_path, REPLAY_RUN_ID="source", **base)) == "/base/source"


@pytest.mark.parametrize("environment", [{}, {"OUTPUT_BASE": "/base"}, {"RUN_ID": "r"}])
def test_no_source_is_64(tmp_path: Path, environment: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        locate_source(resolved(tmp_path, **environment))
    assert caught.value.exit_code == 64 and "--source" in caught.value.hint


@pytest.mark.parametrize("run_id", ["..", ".", "../other", "a/../../b", "/etc"])
def test_a_run_id_leads_to_no_other_folder(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(UsageError):
        locate_source(resolved(tmp_path, "--run-id", run_id, OUTPUT_BASE="/base"))


@pytest.mark.parametrize("run_id", ["a\nb", "\x1b[2J", "x" * 257, "\x7f", "\udcff", "a\x00b"])
def test_a_run_id_that_is_no_text_is_64_and_says_where_it_came_from(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(UsageError, match=r"\(RUN_ID\)") as caught:
        resolved(tmp_path, RUN_ID=run_id)
    assert caught.value.message.isprintable()


def test_no_model_name_is_64(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(tmp_path).require_model_name()
    assert caught.value.exit_code == 64 and "AZUREML_MODEL_NAME" in caught.value.hint
    assert resolved(tmp_path, AZUREML_MODEL_NAME="m").require_model_name() == "m"


def test_only_the_parameter_variables_are_taken_and_never_the_whole_environment(tmp_path: Path) -> None:
    secret = {"AWS_SECRET_ACCESS_KEY": "planted", "HOME": "planted", "PATH": "planted"}
    found = resolved(tmp_path, dotenv="SAVE_STEPS=9\nOTHER=planted\n", BATCH_SIZE="8", MAX_STEPS="", **secret)
    assert found.parameters == {"BATCH_SIZE": "8", "SAVE_STEPS": "9"}
    assert "planted" not in str(found)
    everything = resolved(tmp_path, **dict.fromkeys(PARAMETER_VARIABLES, "1"))
    assert set(everything.parameters) == set(PARAMETER_VARIABLES)


def test_tags_of_consumers_are_values_never_paths(tmp_path: Path) -> None:
    found = resolved(tmp_path, TRAINING_FRAMEWORK="lerobot", AML_SOURCE="osmo")
    assert (found.framework_tag, found.source_tag, found.framework, found.source) == (
        "lerobot",
        "osmo",
        "",
        "",
    )


def test_tags_are_key_and_value(tmp_path: Path) -> None:
    given_ = ("--tag", "robot=ur5e", "--tag", "a b/c.d-e_f=x=y", "--tag", "empty=", "--tag", "robot=ur10")
    assert resolved(tmp_path, *given_).tags == {"robot": "ur10", "a b/c.d-e_f": "x=y", "empty": ""}


@pytest.mark.parametrize(
    "tag", ["robot", "=x", "", "a:b=c", "a\nb=c", "a\n=c", "x" * 101 + "=1", "é\u202e=1"]
)
def test_what_is_no_tag_is_64(tmp_path: Path, tag: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(tmp_path, "--tag", tag)
    assert caught.value.exit_code == 64 and caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("2h", 7200),
        ("1.5h", 5400),
        (" 5 m ", 300),
        ("0", 0),
        ("1w", 604_800),
    ],
)
def test_durations(tmp_path: Path, text: str, found: float) -> None:
    settings = resolved(tmp_path, "--retry-for", text)
    assert settings.retry_seconds == found and settings.from_where("retry_seconds") == " (--retry-for)"


@pytest.mark.parametrize(
    "text", ["-1", "1y", "h", "1e3", "inf", "nan", "1,5h", "5mm", "m5", "1 2", "--", "\n"]
)
def test_what_is_no_duration_is_64(text: str) -> None:
    with pytest.raises(UsageError, match="duration"):
        seconds(text)


def test_patience_is_fifteen_minutes_unless_told(tmp_path: Path) -> None:
    assert resolved(tmp_path).retry_seconds == resolved(tmp_path, "--retry-for", "").retry_seconds == 900


def test_repeated_globs_add_up_and_switches_are_off_unless_given(tmp_path: Path) -> None:
    found = resolved(tmp_path, "--include", "*.pt", "--include", "*.json", "--exclude", "", "--strict")
    assert found.include == ("*.pt", "*.json") and found.exclude == ()
    assert found.strict and not found.hash and not found.json and not found.debug
    assert found.checkpoint == "final" == resolved(tmp_path, "--checkpoint", "").checkpoint


@pytest.mark.parametrize("content", [b"\xff\xfe=1", None])
def test_a_dotenv_that_cannot_be_read_is_78(
    tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_bytes(content or b"A=1")
    if content is None:  # as a share that fails; root may read all else

        def fail(path: Path) -> bool:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "is_file", fail)
    with pytest.raises(ConfigurationError, match=r"\.env") as caught:
        read_dotenv(tmp_path)
    assert caught.value.exit_code == 78


def test_what_is_no_dotenv_file_is_none(tmp_path: Path) -> None:
    assert read_dotenv(tmp_path) == {}
    (tmp_path / ".env").mkdir()
    assert read_dotenv(tmp_path) == {}
    (tmp_path / ".env").rmdir()
    os.mkfifo(tmp_path / ".env")
    assert read_dotenv(tmp_path) == {}


@given(content=st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(content="export A='x\nB=$C${D:-1}\"\n=\n#")
def test_any_dotenv_is_read_or_78(tmp_path: Path, content: str) -> None:
    try:
        found = resolved(tmp_path, dotenv=content)
    except MirrorError as error:
        assert error.exit_code in (64, 78)
    else:
        assert isinstance(found, Settings)


FLAGS = ("--source", "--tag", "--retry-for", "--json", "--checkpoint", "mirror", "plan", "-x", "a=b", "9s")
WORDS = st.sampled_from(FLAGS) | st.text(max_size=6)


@given(words=st.lists(WORDS, max_size=6))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_command_line_is_understood_or_64(tmp_path: Path, words: list[str]) -> None:
    try:
        resolved(tmp_path, *words)
    except MirrorError as error:
        assert error.exit_code == 64 and error.hint
    except SystemExit as done:
        assert done.code == 0


def test_mirror_is_the_command_where_none_is_named() -> None:
    assert with_default_command(["--json"]) == ["mirror", "--json"] and with_default_command([]) == ["mirror"]
    for command in COMMANDS:
        assert with_default_command([command, "--json"])[0] == command
    assert with_default_command(["--help"]) == ["--help"] and with_default_command(["--version"]) == [
        "--version"
    ]
    with pytest.raises(UsageError, match="no command"):
        with_default_command(["miror"])


@pytest.mark.parametrize(
    "words", [["--sourc", "x"], ["--unknown"], ["--source"], ["plan", "one", "two"], ["--json=1"]]
)
def test_a_wrong_command_line_is_64_and_flags_are_never_guessed(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r".+") as caught:
        parser().parse_args(with_default_command(words))
    assert caught.value.exit_code == 64 and "--help" in caught.value.hint


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        parser().parse_args([command, "--help"])
    assert done.value.code == 0 and f"aml-mirror {command}" in capsys.readouterr().out.split("example", 1)[1]
