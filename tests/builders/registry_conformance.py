"""What every registry must do: a class of tests, and a fixture ``target`` that names one."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from aml_mirror.core.errors import UsageError
from aml_mirror.core.settings import Settings
from aml_mirror.pipeline.decide import plans
from aml_mirror.pipeline.mirror import Mirror
from aml_mirror.pipeline.publish import tags_of
from aml_mirror.pipeline.receipt import Progress, Receipt
from aml_mirror.registries import keys
from aml_mirror.registries.base import Registry
from aml_mirror.registries.records import Version
from aml_mirror.registries.registry import open_registry, required_type
from aml_mirror.support.progress import Console
from aml_mirror.verify.verify import verify
from builders.runs import huggingface_run, write_weights


def _console() -> Console:
    return Console(io.StringIO())


class RegistryConformance:
    """Inherit from it, with a fixture ``target``: the settings that name a registry and a new model."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        return huggingface_run(tmp_path / "conformance-run", points=3)

    @pytest.fixture
    def settings(self, target: Settings, run: Path) -> Settings:
        return replace(target, source=str(run), retry_seconds=600.0)

    @pytest.fixture
    def registry(self, settings: Settings) -> Registry:
        return open_registry(settings, lambda text: None)

    def mirror(self, settings: Settings) -> Receipt:
        (receipt,) = Mirror(settings, _console(), Progress()).run()
        return receipt

    def versions(
        self, registry: Registry, settings: Settings, run_id: str = "conformance-run"
    ) -> list[Version]:
        return registry.versions(settings.model_name, settings.model_name, run_id)

    def test_one_run_is_one_version(self, registry: Registry, settings: Settings) -> None:
        assert self.versions(registry, settings) == []
        (plan,) = plans(settings, _console())
        first, second = self.mirror(settings), self.mirror(settings)
        assert (first.outcome, second.outcome) == ("mirrored", "already-mirrored")
        assert first.model_uri and second.model_uri == first.model_uri
        assert (first.manifest_sha256, second.manifest_sha256) == (plan.manifest.sha256,) * 2
        (version,) = self.versions(registry, settings)
        assert version.complete and registry.uri(version) == first.model_uri
        assert version.tags[keys.IDENTITY] == plan.identity
        assert version.tags[keys.QUICK_KEY] == plan.quick_key
        assert version.tags[keys.MLFLOW_RUN_ID] == first.mlflow_run_id
        assert self.versions(registry, settings, "another-run") == []

    def test_a_version_is_found_by_its_number_and_among_all(
        self, registry: Registry, settings: Settings
    ) -> None:
        receipt = self.mirror(settings)
        version = registry.find_version(settings.model_name, str(receipt.model_version))
        assert version is not None and version.tags[keys.MANIFEST_SHA256] == receipt.manifest_sha256
        assert registry.find_version(settings.model_name, "999") is None
        seen: list[Version] = []
        registry.each_version(settings.model_name, settings.model_name, seen.append)
        assert {(item.number, item.tags[keys.RUN_ID]) for item in seen} == {
            (receipt.model_version, "conformance-run")
        }

    def test_what_was_mirrored_is_read_back(self, registry: Registry, settings: Settings) -> None:
        (plan,) = plans(settings, _console())
        receipt = self.mirror(settings)
        (version,) = self.versions(registry, settings)
        reader = registry.version_reader(version)
        assert reader.pinned_by
        assert set(reader.files()) == {item.path for item in plan.manifest.items}
        for item in plan.manifest.items:
            digest = reader.hashed(item.path)
            assert (digest.bytes, digest.sha256) == (item.bytes, item.sha256)
        (manifest, *_) = reader.artifacts("manifest.json", 1 << 20)
        assert json.loads(manifest)["manifest_sha256"] == plan.manifest.sha256
        assert list(reader.artifacts("manifest.json", 1)) == []
        assert list(reader.artifacts("nothing.json", 1 << 20)) == []
        assert reader.changed(plan.manifest) == []
        checked = verify(replace(settings, reference=f"{settings.model_name}:{version.number}"), _console())
        assert checked.holds and checked.uri == receipt.model_uri

    def test_other_bytes_are_another_version(self, registry: Registry, settings: Settings, run: Path) -> None:
        first = self.mirror(settings)
        write_weights(run / "checkpoint-20" / "model.safetensors", seed=7)
        second = self.mirror(settings)
        assert second.outcome == "mirrored" and second.model_version != first.model_version
        numbers = {version.number for version in self.versions(registry, settings)}
        assert numbers == {first.model_version, second.model_version}

    def test_the_same_bytes_under_other_times_are_the_same_version(
        self, registry: Registry, settings: Settings, run: Path
    ) -> None:
        first = self.mirror(settings)
        before = self.versions(registry, settings)[0].tags[keys.QUICK_KEY]
        for path in run.rglob("*"):
            os.utime(path, (1_700_000_000, 1_700_000_000))
        second = self.mirror(settings)
        assert (second.outcome, second.model_version) == ("already-mirrored", first.model_version)
        fresh = open_registry(settings, lambda text: None)
        assert self.versions(fresh, settings)[0].tags[keys.QUICK_KEY] != before

    def test_what_failed_is_unfinished_until_the_next_attempt_takes_it_up(
        self, registry: Registry, settings: Settings
    ) -> None:
        (plan,) = plans(settings, _console())
        experiment = settings.model_name
        writer = registry.begin(experiment, "conformance-run", tags_of(plan, settings))
        assert not isinstance(writer, Version)
        writer.log_params(dict(plan.params))
        writer.abort("FAILED", "the network is down")
        (left,) = registry.unfinished(experiment, "conformance-run")
        assert left[keys.MLFLOW_RUN_ID] == writer.run_id and left["status"] == "FAILED"
        receipt = self.mirror(settings)
        assert (receipt.outcome, receipt.mlflow_run_id) == ("mirrored", writer.run_id)
        assert list(registry.unfinished(experiment, "conformance-run")) == []
        assert len(self.versions(registry, settings)) == 1

    def test_begin_returns_the_version_that_another_finished(
        self, registry: Registry, settings: Settings
    ) -> None:
        (plan,) = plans(settings, _console())
        receipt = self.mirror(settings)
        found = registry.begin(settings.model_name, "conformance-run", tags_of(plan, settings))
        assert isinstance(found, Version) and found.number == receipt.model_version

    def test_what_is_kept_for_the_next_call(self, registry: Registry, settings: Settings) -> None:
        name = f"state-{settings.model_name}"
        store = registry.state_store(settings.model_name, name)
        assert store.place and store.entries() == {} and list(store.texts()) == []
        store.change({"ab.train-1": '{"code":65}', "ab.train-2": "two"})
        other = open_registry(settings, lambda text: None).state_store(settings.model_name, name)
        other.change({"ab.train-2": None, "ab.train-3": "ä" * 300})
        assert store.entries() == other.entries() == {"ab.train-1": '{"code":65}', "ab.train-3": "ä" * 300}
        store.put_text("receipts-00002.jsonl", "two\n")
        other.put_text("receipts-00001.jsonl", "öne\n")
        store.put_text("receipts-00002.jsonl", "2\n")
        assert list(store.texts()) == [
            ("receipts-00001.jsonl", "öne\n"), ("receipts-00002.jsonl", "2\n"),
        ]  # fmt: skip
        assert registry.state_store(settings.model_name, f"{name}-other").entries() == {}

    def test_the_names_of_models(self, registry: Registry, settings: Settings) -> None:
        assert settings.model_name not in set(registry.model_names())
        self.mirror(settings)
        assert list(registry.model_names()).count(settings.model_name) == 1

    def test_its_type_says_what_it_is_before_it_is_opened(self, settings: Settings) -> None:
        kind = required_type(settings)
        kind.check(settings)
        assert kind.name and kind.usage
        kind.check_names(settings.model_name, settings.model_name)
        for model in ("a/b", "a:b", "", "a\nb"):
            with pytest.raises(UsageError):
                kind.check_names(model, "experiment")
        assert kind.checks(settings)
        for name, check in kind.checks(settings):
            assert name and callable(check)

    def test_it_is_described_without_a_secret(self, registry: Registry, settings: Settings) -> None:
        assert registry.description and "sig=" not in registry.description
