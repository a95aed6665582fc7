"""Under which number a version is created, in a model service in memory that others write to, too."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from aml_mirror.core.errors import ConfigurationError, MirrorError, ServiceUnavailable
from aml_mirror.registries import keys
from aml_mirror.registries.azureml import version_registration
from aml_mirror.registries.azureml.model_versions import Models
from aml_mirror.registries.azureml.version_registration import TRIES, Registration
from aml_mirror.storage import azure_errors
from aml_mirror.support.retry import Retry
from builders.blobs import refusal

FOLDER = f"aml-mirror/run-1/ckpt/sha256-{'d' * 64}/model"
PATH = f"azureml://datastores/own/paths/{FOLDER}"
PROPERTIES = {
    keys.RUN_ID: "run-1",
    keys.CHECKPOINT: "ckpt",
    keys.MANIFEST_SHA256: "d" * 64,
    keys.IDENTITY: "1" * 64,
}
OTHER = {"properties": {keys.IDENTITY: "2" * 64}, "modelUri": f"{PATH}/other"}


class Service:
    """The models. ``spent`` has the numbers of deleted versions."""

    def __init__(self, *others: str, next_version: int | None = None) -> None:
        self.there: dict[str, dict[str, Any]] = dict.fromkeys(others, OTHER)
        self.spent: set[str] = set()
        self.next_version = next_version
        self.is_archived = False
        self.exists = True
        self.puts: list[str] = []
        self.abouts: list[str] = []
        self.refuses: Callable[[str, dict[str, Any]], Exception | None] = lambda number, made: None

    def version_if_any(self, model: str, number: str) -> dict[str, Any] | None:
        return self.there.get(number)

    def versions(self, model: str) -> Any:
        return iter(self.there.items())

    def container(self, model: str) -> dict[str, Any]:
        if not self.exists:
            raise refusal(404, "ModelNotFound")
        return {"nextVersion": self.next_version, "isArchived": self.is_archived}

    def put_container(self, model: str, about: str) -> None:
        self.abouts.append(about)

    def long_path(self, path: str) -> str:
        return path

    def put(self, model: str, number: str, made: dict[str, Any]) -> None:
        self.puts.append(number)
        if number in self.spent:
            raise refusal(400, "", "the version cannot be recreated")
        if failure := self.refuses(number, dict(made)):
            raise failure
        if number in self.there:
            raise refusal(409)
        self.there[number] = dict(made)


def register(
    service: Service,
    intended: str | None = None,
    intend: Callable[[str], None] = lambda number: None,
    allowed: Callable[[], None] = lambda: None,
    locked: Callable[[str], Any] = lambda model: nullcontext(),
    **more: Any,
) -> str:
    """Register our version and return its number. The lease on the model has tests of its own."""
    retry = Retry(0, lambda error: azure_errors.translate(error, "ws"), lambda text: None)
    models = Models(service, retry)  # type: ignore[arg-type]
    azure: Any = SimpleNamespace(retry=retry)
    registration = Registration(models, service, azure, lambda text: None)  # type: ignore[arg-type]
    registration._locked = locked  # type: ignore[method-assign]
    found = registration.register(
        "m", PATH, "text", PROPERTIES, {"note": "x"}, intended, intend, allowed, **more
    )
    assert found.tags[keys.IDENTITY] == PROPERTIES[keys.IDENTITY] and found.path == PATH
    return found.number


def test_a_new_version_is_incomplete_and_has_what_must_not_change_as_properties() -> None:
    service = Service()
    assert register(service) == "1"
    made = service.there["1"]
    assert made["properties"] == PROPERTIES and made["tags"] == {"note": "x", keys.STATE: keys.INCOMPLETE}
    assert (made["modelType"], made["isAnonymous"], made["isArchived"]) == ("custom_model", False, False)
    service.is_archived = True
    service.there.clear()
    register(service)
    assert service.there["1"]["isArchived"] is True


def test_the_service_s_next_number_is_taken_else_the_one_after_the_highest() -> None:
    assert register(Service("1", "2", next_version=9)) == "9"
    assert register(Service("1", "12", "named")) == "13"


def test_a_number_is_noted_before_it_is_used() -> None:
    service, noted = Service("1"), list[tuple[str, list[str]]]()
    register(service, intend=lambda number: noted.append((number, list(service.puts))))
    assert noted == [("2", [])]


def test_the_version_of_an_earlier_attempt_is_found_by_its_number() -> None:
    service = Service("1")
    assert register(service) == "2"
    service.puts.clear()
    # The number is not taken again, so the lease on the model is not needed.
    assert register(service, "2", locked=lambda model: pytest.fail("it is locked")) == "2"
    assert service.puts == []
    # It was noted and never created.
    assert register(Service("1"), intended="2") == "2"
    # Another writer was faster.
    service = Service("1", "2")
    assert register(service, intended="2") == "3" and service.puts == ["3"]


def test_numbers_of_others_and_of_deleted_versions_are_passed() -> None:
    service = Service("1", next_version=2)
    service.spent = {"2", "3"}
    service.there["4"] = OTHER
    assert register(service) == "5" and service.puts == ["2", "3", "5"]


def test_many_deleted_numbers_are_passed_in_growing_steps() -> None:
    service = Service(next_version=1)
    service.spent = {str(number) for number in range(1, 5000)}
    assert int(register(service)) >= 5000 and len(service.puts) < 70
    # After some steps, the service is asked once more.
    service = Service(next_version=1)
    service.spent = {str(number) for number in range(1, 400)}
    real = service.put

    def put(model: str, number: str, made: dict[str, Any]) -> None:
        service.next_version = 500
        real(model, number, made)

    service.put = put  # type: ignore[method-assign]
    assert register(service) == "500"


def test_numbers_without_an_end_are_an_error() -> None:
    service = Service(next_version=1)
    service.refuses = lambda number, made: refusal(400, "", "the version cannot be recreated")
    with pytest.raises(ServiceUnavailable, match=f"{TRIES} version numbers of m in a row"):
        register(service)
    assert len(service.puts) == TRIES


def test_a_number_that_another_took_first_is_not_ours() -> None:
    service = Service("1")

    def taken(number: str, made: dict[str, Any]) -> Exception | None:
        # The service reports success, and keeps the other one.
        service.there.setdefault("2", OTHER)
        return None if number != "2" else refusal(412)

    service.refuses = taken
    assert register(service) == "3" and service.there["2"] == OTHER


def test_a_refused_request_may_have_been_carried_out() -> None:
    service = Service("1")

    def lost(number: str, made: dict[str, Any]) -> Exception:
        service.there[number] = made
        return refusal(409)

    service.refuses = lost
    assert register(service) == "2" and service.puts == ["2"]


def test_a_refusal_that_is_not_about_the_number_is_raised() -> None:
    service = Service("1")
    service.refuses = lambda number, made: refusal(400, "", "the tags are wrong")
    with pytest.raises(ConfigurationError, match="the tags are wrong"):
        register(service)
    assert service.puts == ["2"]


def test_a_link_to_the_run_is_not_worth_a_version() -> None:
    service = Service("1")
    service.refuses = lambda number, made: refusal(400, "", "no jobName") if "jobName" in made else None
    assert register(service, job_name="r") == "2" and service.puts == ["2", "2"]
    assert "jobName" not in service.there["2"]
    service = Service("1")
    assert register(service, job_name="r") == "2" and service.there["2"]["jobName"] == "r"


def test_a_mirror_that_lost_its_claim_creates_nothing() -> None:
    service = Service("1")

    def refuse() -> None:
        raise ServiceUnavailable("another has it", "")

    with pytest.raises(ServiceUnavailable, match="another has it"):
        register(service, allowed=refuse)
    assert service.puts == []


def test_a_version_that_does_not_appear_is_an_error() -> None:
    service = Service("1")
    service.put = lambda *given: None  # type: ignore[method-assign]
    with pytest.raises(ServiceUnavailable, match="was registered but cannot be found"):
        register(service)


def test_only_a_new_model_gets_a_description() -> None:
    service = Service()
    register(service, about="trained by us")
    assert service.abouts == []
    service = Service()
    service.exists = False
    register(service, about="trained by us")
    assert service.abouts == ["trained by us"]
    # The version does not need it.
    service = Service()
    service.exists = False
    service.put_container = lambda *given: (_ for _ in ()).throw(refusal(400))  # type: ignore[method-assign]
    assert register(service, about="trained by us") == "1"


def test_the_lease_on_the_model_is_held_while_a_number_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def lease(blob: str, *given: Any) -> Any:
        name = blob.rpartition("/")[2]
        return SimpleNamespace(
            acquire=lambda: done.append(f"acquire {name}"), release=lambda: done.append(f"release {name}")
        )

    monkeypatch.setattr(version_registration, "BlobLease", lease)
    azure: Any = SimpleNamespace(retry=None, container=SimpleNamespace(get_blob_client=lambda name: name))
    registration = Registration(None, None, azure, lambda text: None)  # type: ignore[arg-type]
    with pytest.raises(MirrorError), registration._locked("m"):
        done.append("take")
        raise MirrorError("no")
    assert done == ["acquire m", "take", "release m"]
