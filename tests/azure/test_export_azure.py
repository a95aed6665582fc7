"""A version pushed to Azure Container Registry with the program's own Azure login, in the emulated Azure."""

from __future__ import annotations

import json
from pathlib import Path

from azure_emulator.names import REGISTRY_SUFFIX
from builders.runs import huggingface_run
from mirroring import Mirroring

HOST = f"lab.{REGISTRY_SUFFIX}"


def test_the_login_is_exchanged_and_asked_for_again(mirroring: Mirroring, tmp_path: Path) -> None:
    azure = mirroring.azure
    mirroring.mirror(huggingface_run(tmp_path / "run-1", steps=(10,), points=1, size=700), "act")
    azure.forget_requests()
    nowhere = {"DOCKER_CONFIG": str(tmp_path)}
    first = mirroring("export", "act:1", f"{HOST}/policies/act:1", **nowhere).json
    paths = [one["path"] for one in azure.requests() if one["host"] == HOST]
    assert first["outcome"] == "exported"
    # One exchange, one token for the repository.
    assert [path for path in paths if path.startswith("/oauth2/")] == ["/oauth2/exchange", "/oauth2/token"]
    # A token that expires between two requests: a client that streams a body gets the answer at its end.
    azure.fault("status", match=f"PATCH https://{HOST}", status=401, times=1)
    again = mirroring("export", "act:1", f"{HOST}/policies/act:2", **nowhere)
    assert (again.json["outcome"], again.json["digest"]) == ("exported", first["digest"])
    assert not any(secret in again.err + again.out for secret in ("refresh-", "access-", "eyJ"))
    # The user's docker login takes precedence. This one is wrong.
    entry = {"auths": {HOST: {"auth": "cm9ib3Q6d3Jvbmc="}}}
    (tmp_path / "config.json").write_text(json.dumps(entry))
    refused = mirroring("export", "act:1", f"{HOST}/policies/act:3", code=77, **nowhere)
    assert f"docker login {HOST}" in refused.err


def test_a_login_that_the_registry_does_not_know_is_told(mirroring: Mirroring, tmp_path: Path) -> None:
    azure = mirroring.azure
    mirroring.mirror(huggingface_run(tmp_path / "run-1", steps=(10,), points=1, size=700), "act")
    azure.fault("status", match=f"POST https://{HOST}/oauth2/exchange", status=401, times=0)
    done = mirroring("export", "act:1", f"{HOST}/policies/act:1", code=77, DOCKER_CONFIG=str(tmp_path))
    assert "grant AcrPush" in done.err
