"""Telemetry for operators: traces, metrics and a text file, and how a failing collector affects the work.

The collector parses requests with OpenTelemetry's own messages (opentelemetry-proto).
"""

from __future__ import annotations

import gzip
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from builders.program import Call
from builders.runs import huggingface_run

PAGE = Path(__file__).parents[2] / "entrypoint" / "telemetry.md"
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(ThreadingHTTPServer):
    """Takes what is sent to it."""

    daemon_threads = True

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.status = status
        self.traces = ExportTraceServiceRequest()
        self.metrics = ExportMetricsServiceRequest()
        self.url = f"http://127.0.0.1:{self.server_port}"

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for resource in self.traces.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.headers["Content-Type"] == "application/x-protobuf"
        message = {"/v1/traces": self.server.traces, "/v1/metrics": self.server.metrics}[self.path]
        message.MergeFromString(body)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_mirror_is_one_trace_with_its_stages_and_no_metric_names_a_run(
    aml_mirror: Call, tmp_path: Path, database: str, collector: Collector
) -> None:
    run, prom = huggingface_run(tmp_path / "run-7"), tmp_path / "mirror.prom"
    given = ("mirror", run, "--model-name", "reach", "--tracking-uri", database, "--json")
    receipt = aml_mirror(
        *given,
        "--metrics-file",
        prom,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        TRACEPARENT=f"00-{TRACE}-b7ad6b7169203331-01",
    ).json
    spans = {span.name: span for span in collector.spans}
    root = spans.pop("aml-mirror mirror")
    # The job's trace continues.
    assert root.trace_id.hex() == TRACE and root.parent_span_id.hex() == "b7ad6b7169203331"
    assert set(spans) == {"open registry", "locate", "look up versions", "decide", "publish"}
    for span in spans.values():
        assert span.parent_span_id == root.span_id
        assert (
            root.start_time_unix_nano
            <= span.start_time_unix_nano
            <= span.end_time_unix_nano
            <= root.end_time_unix_nano
        )
    (resource,) = collector.metrics.resource_metrics
    named = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert named["service.name"] == "aml-mirror"
    metrics = {item.name: item for scope in resource.scope_metrics for item in scope.metrics}
    sent = {
        point.attributes[-1].value.string_value: point.as_int
        for point in metrics["aml_mirror.transferred"].sum.data_points
    }
    assert sent["sent"] == receipt["bytes_sent"] > 0
    assert metrics["aml_mirror.points"].sum.data_points[0].as_int == receipt["points"] == 30
    assert str(receipt["run_id"]) not in str(collector.metrics)

    families = {item.name: item for item in text_string_to_metric_families(prom.read_text())}
    (version,) = families["aml_mirror_versions"].samples
    assert version.labels == {"command": "mirror", "outcome": "mirrored"} and version.value == 1
    assert families["aml_mirror_exit_code"].samples[0].value == 0
    assert families["aml_mirror_points"].samples[0].value == 30
    assert str(receipt["run_id"]) not in prom.read_text()
    # The page shows lines of such a file.
    (block,) = re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for family in text_string_to_metric_families(block):
        written = {frozenset(sample.labels) for sample in families[family.name].samples}
        assert {frozenset(sample.labels) for sample in family.samples} == written
    assert [path.name for path in tmp_path.glob("mirror.prom*")] == ["mirror.prom"]


def test_each_run_of_a_backfill_has_its_stage_and_a_failure_is_counted(
    aml_mirror: Call, tmp_path: Path, database: str, collector: Collector
) -> None:
    for name in ("a", "b"):
        huggingface_run(tmp_path / "runs" / name, points=3)
    weights = next((tmp_path / "runs" / "b" / "checkpoint-20").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    prom = tmp_path / "backfill.prom"
    aml_mirror(
        *("backfill", tmp_path / "runs", "--model-name", "reach", "--tracking-uri", database),
        *("--strict", "--metrics-file", prom),
        code=65,
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/v1/traces",
    )
    runs = {item.attributes[0].value.string_value: item for item in collector.spans if item.name == "run"}
    assert set(runs) == {"a", "b"}
    assert runs["a"].status.code == 0 and runs["b"].status.code == 2
    # Only traces were asked for.
    assert not collector.metrics.resource_metrics
    families = {item.name: item for item in text_string_to_metric_families(prom.read_text())}
    outcomes = {item.labels["outcome"]: item.value for item in families["aml_mirror_versions"].samples}
    assert outcomes == {"mirrored": 1, "failed": 1}
    assert families["aml_mirror_exit_code"].samples[0].value == 65


@pytest.mark.parametrize("kind", ["dead", "silent", "refuses", "speaks grpc", "no folder"])
def test_what_goes_wrong_with_telemetry_is_a_warning(aml_mirror: Call, tmp_path: Path, kind: str) -> None:
    run = huggingface_run(tmp_path / "run-7", points=3)
    environment: dict[str, str] = {}
    more: list[str] = []
    # Accepts one connection, which it never answers, and neither accepts nor refuses others.
    with socket.create_server(("127.0.0.1", 0)) as silent, Collector(status=400) as refuses:
        threading.Thread(target=refuses.serve_forever, daemon=True).start()
        if kind == "dead":
            with socket.create_server(("127.0.0.1", 0)) as gone:
                environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{gone.getsockname()[1]}"
        elif kind == "silent":
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        elif kind == "refuses":
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = refuses.url
        elif kind == "speaks grpc":
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = refuses.url
            environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc"
        else:
            more = ["--metrics-file", str(tmp_path / "nowhere" / "plan.prom")]
        done = aml_mirror("plan", run, *more, **environment)
        refuses.shutdown()
    warnings = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    says = {
        "dead": "telemetry was not delivered: ",
        "silent": "longer than 2 s",
        "refuses": "traces: the collector did not take them; metrics: the collector did not take them",
        "speaks grpc": "OTEL_EXPORTER_OTLP_PROTOCOL=grpc, but telemetry is only sent by http/protobuf",
        "no folder": "nowhere/plan.prom cannot be written: No such file or directory",
    }
    assert any(says[kind] in line for line in warnings), done.err
    assert "Traceback" not in done.err


def test_a_file_beside_a_run_does_not_say_where_telemetry_goes(
    aml_mirror: Call, tmp_path: Path, collector: Collector
) -> None:
    run = huggingface_run(tmp_path / "run-7", points=3)
    (tmp_path / ".env").write_text(f"OTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\n")
    aml_mirror("plan", run)
    assert not collector.spans
