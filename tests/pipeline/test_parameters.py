"""params.py: any configuration becomes names and values that MLflow accepts, without secrets."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_param

from aml_mirror.pipeline.parameters import MAX_DEPTH, MAX_NAME, MAX_PARAMS, MAX_VALUE, parameters, valid_name

CONFIGS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=15,
)


def nested(levels: int, leaf: Any) -> dict[str, Any]:
    for _ in range(levels):
        leaf = {"a": leaf}
    return {"a": leaf}


@given(
    config=st.dictionaries(st.text(), CONFIGS, max_size=4), environment=st.dictionaries(st.text(), st.text())
)
@settings(max_examples=150)
def test_mlflow_takes_every_name_and_value(config: dict[str, Any], environment: dict[str, str]) -> None:
    for name, value in parameters(config, environment).items():
        _validate_param(name, value)
        assert len(value) <= MAX_VALUE


def test_nesting_becomes_dots_and_flat_lists_stay_one_value() -> None:
    config = {
        "optim": {"lr": 1e-4, "betas": [0.9, 0.99]},
        "layers": [{"n": 1}, {"n": 2}],
        "none": None,
        "e": {},
    }
    assert parameters(config, {}) == {
        "optim.lr": "0.0001",
        "optim.betas": "[0.9, 0.99]",
        "layers.0.n": "1",
        "layers.1.n": "2",
        "none": "None",
        "e": "{}",
    }


def test_the_environment_wins() -> None:
    assert parameters({"BATCH_SIZE": 8, "x": 1}, {"BATCH_SIZE": "16"}) == {"BATCH_SIZE": "16", "x": "1"}


def test_names_that_become_the_same_are_all_kept_and_the_valid_one_keeps_its_name() -> None:
    found = parameters({"a b": 0, "a_b": 1, "a:b": 2, "a?b": 3, "a/../a_b": 4}, {})
    assert found["a_b"] == "1" and sorted(found.values()) == ["0", "1", "2", "3", "4"]
    long = {"x" * 400 + str(number): number for number in range(3)}
    assert len(parameters(long, {})) == 3


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../../etc/passwd",
        "/abs",
        "a//b",
        "a/./b",
        "x\n",
        "\ud800",
        "é" * 400,
        "..a",
        "a/" * 124 + "..b",
        "/" * 300,
    ],
)
def test_any_name_becomes_a_plain_relative_path(name: str) -> None:
    found = valid_name(name)
    _validate_param(found, "1")
    assert 0 < len(found) <= MAX_NAME and not found.startswith("/") and ".." not in found.split("/")


def test_long_values_are_cut_with_a_mark_that_says_how_long_they_were() -> None:
    found = parameters({"text": "x" * 10_000, "fits": "y" * MAX_VALUE, "list": ["z" * 100] * 1000}, {})
    assert len(found["text"]) == MAX_VALUE and found["text"].endswith("… (cut: 10000 characters)")
    assert found["fits"] == "y" * MAX_VALUE
    assert len(found["list"]) == MAX_VALUE and found["list"].endswith("… (cut)")


SECRETS: tuple[dict[str, Any], ...] = (
    {"wandb": {"api_key": "planted"}},
    {"hub_token": "planted"},
    {"password": ["planted"]},
    {"credentials": {"user": "planted", "deep": {"x": "planted"}}},
    {"args": ["--token", "planted"]},
    {"command": "WANDB_API_KEY=planted python train.py"},
    {"url": "https://u:planted@host/x?sig=planted"},
    {"list": [{"hub_token": "planted"}]},
    {"list": [[{"hub_token": ["planted"]}]]},
    {"text": "x" * (MAX_VALUE - 20) + " api_key=planted"},
    {"a?b": {"hub_token": "planted"}},
    nested(MAX_DEPTH + 2, {"hub_token": "planted", "auth": {"a": "planted"}}),
)


@pytest.mark.parametrize("config", SECRETS)
def test_no_credential_is_shown_at_any_depth(config: dict[str, Any]) -> None:
    found = parameters(config, {"HF_TOKEN": "planted", "DATA_CONFIG": "https://a/c?sv=1&sig=planted"})
    assert "planted" not in str(found)
    assert "***" in str(found)


def test_ordinary_values_stay() -> None:
    config = {
        "eos_token": "</s>",
        "pad_token_id": 0,
        "tokenizer": "gpt2",
        "use_auth_token": False,
        "hub_token": None,
    }
    assert parameters(config, {}) == {key: str(value) for key, value in config.items()}


def test_what_is_deeper_than_any_configuration_is_kept_as_text() -> None:
    found = parameters(nested(MAX_DEPTH, {"lr": 1, "s": "x"}), {})
    assert found == {".".join("a" * MAX_DEPTH): "{'a': {'lr': 1, 's': 'x'}}"}


def test_no_configuration_is_too_deep_or_unfolds_without_end() -> None:
    parameters(nested(900, 1), {})
    listed: Any = 1
    for _ in range(900):
        listed = [listed]
    parameters({"a": listed}, {})
    loop: list[Any] = []
    loop.extend([loop, {"x": loop}])
    assert len(parameters({"a": loop}, {})) <= MAX_PARAMS
    laughs: Any = "ha"
    for _ in range(40):
        laughs = {"a": laughs, "b": laughs}
    assert len(parameters({"a": laughs}, {})) <= MAX_PARAMS


def test_shared_text_is_not_unfolded_in_memory() -> None:
    shared = "x" * (1 << 20)
    tracemalloc.start()
    parameters({"a": [shared] * 50_000, "b": {"c": shared}}, {})
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_an_integer_that_python_refuses_to_print_is_described() -> None:
    assert "bits" in parameters({"seed": 1 << 40_000}, {})["seed"]
    assert "bits" in parameters({"seeds": [1 << 40_000]}, {})["seeds"]


def test_no_more_parameters_than_a_configuration_has() -> None:
    assert len(parameters({str(number): number for number in range(MAX_PARAMS * 3)}, {})) == MAX_PARAMS
