"""Errors of Azure's clients become one line and an exit code, and are retried for as long as that can
help.
"""

from __future__ import annotations

import json
import logging

import pytest
from azure.core import exceptions as core

from aml_mirror.core.errors import ConfigurationError, MirrorError, NameNotFound, ServiceUnavailable
from aml_mirror.storage.azure_cloud import blob_suffix
from aml_mirror.storage.azure_errors import translate
from aml_mirror.support.retry import Retry
from azure_emulator.client import Azure
from this_process import here  # noqa: F401 - a fixture

RESOLVING = "Failed to resolve 'lab.blob.core.windows.net' ([Errno {}] {})"


@pytest.mark.parametrize(
    ("said", "kind", "code", "words"),
    [
        (RESOLVING.format(-2, "Name or service not known"), NameNotFound, 78, "cannot be resolved"),
        (RESOLVING.format(-5, "No address associated with hostname"), NameNotFound, 78, "cannot be resolved"),
        (
            RESOLVING.format(-3, "Temporary failure in name resolution"),
            ServiceUnavailable,
            75,
            "the name service does not answer",
        ),
        ("[Errno 111] Connection refused", ServiceUnavailable, 75, "refused"),
        ("Read timed out. (read timeout=60)", ServiceUnavailable, 75, "no answer in time"),
        ("certificate verify failed: self-signed", ConfigurationError, 78, "not trusted"),
    ],
)
def test_requests_without_an_answer(said: str, kind: type[MirrorError], code: int, words: str) -> None:
    failure = translate(core.ServiceRequestError(said), "container runs of account lab")
    assert type(failure) is kind
    assert failure.exit_code == code
    assert words in failure.message
    assert "\n" not in failure.message + failure.hint


@pytest.mark.parametrize(("kind", "lasted"), [(NameNotFound, 60.0), (ServiceUnavailable, 900.0)])
def test_a_name_that_is_not_there_is_not_waited_for_as_a_service_is(
    kind: type[ServiceUnavailable], lasted: float
) -> None:
    """Unresolved names are retried for a minute, because name servers restart and private endpoints may be
    new. A wrong name stays wrong.
    """
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    def fail() -> None:
        raise kind("the account does not answer", "")

    retry = Retry(900.0, lambda error: MirrorError(str(error)), lambda text: None, sleep, lambda: clock[0])
    with pytest.raises(kind):
        retry(fail)
    assert clock[0] == pytest.approx(lasted)


def test_metadata_of_a_cloud_whose_service_has_no_space(here: Azure) -> None:  # noqa: F811
    here.fault("status", match="/metadata/endpoints", status=507, times=0)
    with pytest.raises(ServiceUnavailable, match="507"):
        blob_suffix()
    here.clear_faults()
    assert blob_suffix() == "core.azure.test"


def test_the_clients_say_nothing_beside_our_line(
    here: Azure,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from aml_mirror.cli.main import main

    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", "/nowhere/token")
    levels = {name: logging.getLogger(name).level for name in ("azure", "azureml", "mlflow", "alembic")}
    try:
        code = main(["--source", f"azure://{here.account}/runs/r1", "--model-name", "reach"])
        assert logging.getLogger("azure.identity").getEffectiveLevel() == logging.ERROR
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    out, err = capfd.readouterr()
    assert code == 78
    assert json.loads(out)["error"].startswith("the federated token file /nowhere/token does not exist")
    assert [line for line in err.splitlines() if line] == [err.splitlines()[-1]]
