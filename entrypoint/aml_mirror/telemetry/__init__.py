"""Telemetry for operators: OpenTelemetry traces and metrics, and a Prometheus text file.

It is off unless a variable of OpenTelemetry or ``--metrics-file`` is set. During the work, facts are only
recorded (:mod:`.record`). At the end, and after each pass of ``watch``, they are sent
(:mod:`.opentelemetry_export`) and written (:mod:`.prometheus_file`). An unavailable or slow collector changes
no exit code and costs at most :data:`.opentelemetry_export.PATIENCE` seconds.
"""
