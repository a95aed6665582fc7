"""All uses of undocumented parts of libraries: private attributes, log records, frames.

No other module of this program may use any. Each function says why there is no public way, and
tests/support/test_library_internals.py fails if the library changes.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from typing import Any


def call_endpoint(client: Any, message: type, body: str) -> None:
    """Send a JSON body to the endpoint of one of MLflow's messages, with the client's login and errors.

    mlflow 3.15: ``MlflowClient`` builds the body from protobuf messages, which takes most of the CPU of a
    request. Only its store accepts a finished body.

    Args:
        client: an ``mlflow.MlflowClient``.
        message: the protobuf class of the request, for example ``mlflow.protos.service_pb2.LogBatch``.
        body: the request as JSON.
    """
    client._tracking_client.store._call_endpoint(message, body)


def metric_history_page(client: Any, run_id: str, key: str, count: int) -> list[Any]:
    """Return the first points of a metric.

    mlflow 3.15: ``MlflowClient.get_metric_history`` requests 25,000 rows per page, which Azure ML refuses.
    """
    store = client._tracking_client.store
    return list(store.get_metric_history(run_id, key, max_results=count, page_token=None))


def host_credentials(repository: Any) -> Any:
    """Return the address and login of an artifact repository behind MLflow's server.

    mlflow 3.15: ``HttpArtifactRepository`` can only download to a file. To read a file in parts, the same
    request must be sent.
    """
    return repository._host_creds


def s3_client(repository: Any) -> Any:
    """Return the boto3 client of an artifact repository in S3, with its login and its endpoint.

    mlflow 3.15: ``S3ArtifactRepository`` can only download to a file, and creates its client in a private
    method.
    """
    return repository._get_s3_client()


def sends_in_parts(repository: Any, path: str) -> bool:
    """Tell whether an artifact repository behind MLflow's server would send a file in parts to its store.

    mlflow 3.15: ``MlflowArtifactsRepository.log_artifact`` decides this by the server's capabilities, the
    size of the file and environment variables.
    """
    return bool(repository._should_multipart_upload(path))


def send_whole_from_now_on(repository: Any) -> None:
    """Make an artifact repository send every file through MLflow's server.

    mlflow 3.15: if a part does not arrive, ``log_artifact`` fails. Only an environment variable, which
    applies to the whole process, would prevent sending in parts.
    """
    repository._is_multipart_upload_enabled = lambda: False


def successful_credential(credential: Any) -> object | None:
    """Return the credential from which a chain of azure-identity got its last token; None: unknown.

    azure-identity 1.27: the chain only logs which one it was.
    """
    return getattr(credential, "_successful_credential", None)


class StatusOfAnswers(logging.Handler):
    """Reports the HTTP status of every answer that urllib3 gets, in the thread that got it.

    urllib3 2: only a record at level DEBUG has the status of every answer, including those that MLflow's
    exceptions lose. Its arguments are ``'%s://%s:%s "%s %s %s" %s %s'``.
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, tuple) and len(record.args) == 8 and isinstance(record.args[6], int):
            self._tell(record.args[6])

    @classmethod
    def watch(cls, tell: Callable[[int], None]) -> None:
        """Begin to report; a second call changes nothing."""
        logger = logging.getLogger("urllib3.connectionpool")
        if not any(isinstance(handler, cls) for handler in logger.handlers):
            logger.addHandler(cls(tell))
            logger.setLevel(logging.DEBUG)
            # The records contain whole URLs, with their signatures, so they are not passed on.
            logger.propagate = False


def headers_behind(error: BaseException) -> Mapping[str, str] | None:
    """Return the headers of the answer behind one of MLflow's exceptions; None: there is none.

    mlflow 3.15: the exceptions do not contain the answer. The frame that raised one, or its cause, still has
    it in a variable called ``response``.
    """
    cause: BaseException | None = error
    while cause is not None:
        trace = cause.__traceback__
        while trace is not None:
            headers = getattr(trace.tb_frame.f_locals.get("response"), "headers", None)
            if isinstance(headers, Mapping):
                return headers
            trace = trace.tb_next
        cause = cause.__cause__ or cause.__context__
    return None


def actions_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a parser. argparse has no public list of them (Python 3.11 to 3.14)."""
    return list(parser._actions)


def flags_of_command(parser: argparse.ArgumentParser, command: str) -> list[str]:
    """Return the long flags of one of a parser's commands; none: there is no such command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and command in action.choices:
            return [flag for flag in action.choices[command]._option_string_actions if flag[:2] == "--"]
    return []


def registry_discovery_endpoint() -> str:
    """Return the address where the registries of the current cloud can be looked up.

    azure-ai-ml 1.35: the endpoints of its clouds, and how those of another one are built, are in a private
    module. ``MLClient`` takes a registry's name and does not expose them.
    """
    from azure.ai.ml import _azure_environments as environments

    return str(
        environments._get_registry_discovery_endpoint_from_metadata(environments._get_default_cloud_name())
    )
