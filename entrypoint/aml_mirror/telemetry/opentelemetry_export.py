"""Sends a record to an OpenTelemetry collector, by OTLP over HTTP.

The variables are those of OpenTelemetry's specification ("Environment Variable Specification" and
"OpenTelemetry Protocol Exporter"). Its SDK reads endpoint, headers, certificates and resource attributes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from aml_mirror import __version__
from aml_mirror.telemetry.record import ROOT, Record

# The time limit for everything, in seconds: loading the SDK, and sending.
PATIENCE = 2.0

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_SCOPE = "aml_mirror"


def signals(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return which of ``traces`` and ``metrics`` the environment asks for."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ()
    return tuple(
        signal
        for signal in ("traces", "metrics")
        if environ.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp") == "otlp"
        and (environ.get(_ENDPOINT) or environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"))
    )


def unsupported(environ: Mapping[str, str]) -> str:
    """Return a warning about requested features that this program does not support; empty: none."""
    wanted = signals(environ)
    for signal in wanted:
        name = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL"
        for variable in (name, "OTEL_EXPORTER_OTLP_PROTOCOL"):
            if (protocol := environ.get(variable, "")) and protocol != "http/protobuf":
                return (
                    f"{variable}={protocol}, but telemetry is only sent by http/protobuf: nothing is sent; "
                    "set it to http/protobuf and name the collector's HTTP port (4318)"
                )
            if protocol:
                break
    return ""


def send(record: Record, environ: Mapping[str, str]) -> str:
    """Send the contents of a record.

    Args:
        record: ended.
        environ: the variables of this process.

    Returns:
        Why not everything was delivered, as one sentence; empty: it was.
    """
    until = time.monotonic() + PATIENCE
    # The exporter writes errors to the log, with a traceback for each attempt.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    failed: dict[str, str] = {}
    threads: dict[str, threading.Thread] = {}
    for signal in signals(environ):
        sender = _send_traces if signal == "traces" else _send_metrics

        def work(signal: str = signal, sender: Callable[[Record, Mapping[str, str]], bool] = sender) -> None:
            try:
                if not sender(record, environ):
                    failed[signal] = "the collector did not take them"
            except ImportError:
                failed[signal] = "OpenTelemetry's exporter is not installed"
            except Exception as error:  # noqa: BLE001 - nothing in telemetry may end the work
                failed[signal] = type(error).__name__

        # A daemon thread: the process ends whether the collector answers or not.
        threads[signal] = threading.Thread(target=work, name=f"telemetry-{signal}", daemon=True)
        threads[signal].start()
    for signal, thread in threads.items():
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            failed[signal] = f"the collector took longer than {PATIENCE:g} s"
    if not failed:
        return ""
    return "telemetry was not delivered: " + "; ".join(f"{signal}: {why}" for signal, why in failed.items())


def _resource(environ: Mapping[str, str]) -> Any:
    from opentelemetry.sdk.resources import Resource

    named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = {"service.version": __version__} | ({} if named else {"service.name": "aml-mirror"})
    return Resource.create(own)


def _send_traces(record: Record, environ: Mapping[str, str]) -> bool:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=_resource(environ), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer(_SCOPE, __version__)
    # A job that is a step of a larger trace has these variables.
    carrier = {name.lower(): environ[name] for name in ("TRACEPARENT", "TRACESTATE") if environ.get(name)}
    above = TraceContextTextMapPropagator().extract(carrier)
    attributes: dict[str, str | int] = {
        "aml_mirror.command": record.command,
        "aml_mirror.exit_code": record.exit_code,
    }
    if record.spans_left_out:
        attributes["aml_mirror.spans_left_out"] = record.spans_left_out
    root = tracer.start_span(
        f"aml-mirror {record.command}", above, attributes=attributes, start_time=record.begun
    )
    if record.exit_code:
        root.set_status(Status(StatusCode.ERROR, f"exit {record.exit_code}"))
    made = [root]
    for item in record.spans:
        parent = made[0 if item.parent == ROOT else item.parent + 1]
        one = tracer.start_span(
            item.name,
            trace.set_span_in_context(parent),
            attributes={f"aml_mirror.{key}": value for key, value in item.attributes.items()},
            start_time=item.begun,
        )
        if item.error:
            one.set_status(Status(StatusCode.ERROR, item.error))
        made.append(one)
    for one, item in zip(made[1:], record.spans, strict=True):
        one.end(item.ended or record.ended)
    root.end(record.ended)
    return OTLPSpanExporter().export(kept.get_finished_spans()) is SpanExportResult.SUCCESS


def _send_metrics(record: Record, environ: Mapping[str, str]) -> bool:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=_resource(environ), shutdown_on_exit=False)
    meter = provider.get_meter(_SCOPE, __version__)
    # No label names a run: their number would be unlimited.
    labels = {"command": record.command}
    versions = meter.create_counter("aml_mirror.versions", "{version}", "Versions, by outcome")
    for outcome, number in sorted(record.outcomes.items()):
        versions.add(number, {**labels, "outcome": outcome})
    transferred = meter.create_counter("aml_mirror.transferred", "By", "Bytes of checkpoints, by way")
    for way, number in (
        ("sent", record.bytes_sent),
        ("copied", record.bytes_copied),
        ("reused", record.bytes_reused),
    ):
        transferred.add(number, {**labels, "way": way})
    meter.create_counter("aml_mirror.points", "{point}", "Metric points sent").add(record.points, labels)
    meter.create_histogram("aml_mirror.duration", "s", "Duration of a call").record(
        record.seconds, {**labels, "exit_code": record.exit_code}
    )
    data = reader.get_metrics_data()
    return data is None or OTLPMetricExporter().export(data) is MetricExportResult.SUCCESS
