"""What Azure ML accepts, decided without a request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aml_mirror.core.errors import ConfigurationError, UsageError
from aml_mirror.registries import keys
from aml_mirror.registries.azureml.coordinates import Coordinates
from aml_mirror.registries.azureml.limits import (
    LIMITS,
    PERSONS_TAGS,
    check_names,
    cut,
    fit_tags,
    safe_part,
)

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize("model", ["m", "a.b-c_d", "9lives", "x" * 255])
def test_model_names_that_are_taken(model: str) -> None:
    check_names(model, "experiment")


@pytest.mark.parametrize("model", ["", "-a", "_a", ".a", "a.", "a b", "a/b", "a:b", "ünï", "x" * 256, "a\n"])
def test_model_names_that_are_refused(model: str) -> None:
    with pytest.raises(UsageError, match="beginning with a letter or digit"):
        check_names(model, "experiment")


@pytest.mark.parametrize("experiment", ["", "-a", "a.b", "a b", "x" * 257, "a\n"])
def test_experiment_names_that_are_refused(experiment: str) -> None:
    with pytest.raises(UsageError, match="1 to 256 letters"):
        check_names("model", experiment)


def test_coordinates() -> None:
    Coordinates(SUBSCRIPTION, "rg-robots_1.(x)", "mlw-robots")
    with pytest.raises(ConfigurationError) as missing:
        Coordinates("", "rg", "")
    assert "AZURE_SUBSCRIPTION_ID, AZUREML_WORKSPACE_NAME not set" in missing.value.message
    for given_, name in (
        (("not-a-guid", "rg", "ws"), "AZURE_SUBSCRIPTION_ID"),
        ((SUBSCRIPTION, "rg/x", "ws"), "AZURE_RESOURCE_GROUP"),
        ((SUBSCRIPTION, "rg", "w"), "AZUREML_WORKSPACE_NAME"),
    ):
        with pytest.raises(ConfigurationError, match=f"{name} is malformed"):
            Coordinates(*given_)


def test_tags_are_kept_within_the_limits_and_what_is_not_is_told() -> None:
    own = dict.fromkeys(keys.RESERVED, "x")
    persons = {f"tag{number}": "v" for number in range(60)}
    kept, told = fit_tags({**persons, "long": "y" * 2000, **own})
    assert len(kept) <= 50
    assert own.items() <= kept.items()
    assert all(len(value) <= 1000 for value in kept.values())
    assert len(told) == 61 - PERSONS_TAGS
    assert "tag59 was left out" in "\n".join(told)
    kept, told = fit_tags({"long": "y" * 2000, "n" * 101: "v"})
    assert len(kept["long"]) == 1000
    assert kept["long"].endswith("characters)")
    assert len(told) == 2


@given(st.text(max_size=300), st.integers(min_value=60, max_value=200))
def test_cut_never_exceeds(text: str, length: int) -> None:
    assert len(cut(text, length)) <= length
    assert cut(text, 300) == text


@given(st.text(min_size=1, max_size=300))
def test_parts_of_paths_are_safe(text: str) -> None:
    part = safe_part(text)
    assert part
    assert part.strip(".") == part
    assert len(part) <= 70
    assert set(part) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def test_parts_of_paths_differ_where_the_texts_do() -> None:
    texts = ["a/b", "a_b", "a b", "a//b", ".a_b", "a_b.", "x" * 60, "x" * 61, "", "é", "è"]
    assert len({safe_part(text) for text in texts}) == len(texts)
    assert safe_part("policies/checkpoint-20").startswith("policies_checkpoint-20-")


def test_the_batch_limits_stay_below_the_documented_ones() -> None:
    assert LIMITS.batch < 250
    assert LIMITS.series == 50
    assert LIMITS.files == 1500
