"""Telemetry for operators: OpenTelemetry traces and metrics, and a Prometheus text file.

It is off unless a variable of OpenTelemetry or ``--metrics-file`` asks for it. The work only notes what it
did (:mod:`.record`). At the end, and after each pass of ``watch``, that is sent
(:mod:`.opentelemetry_export`) and written (:mod:`.prometheus_file`). A collector that is down or slow changes
no exit code and costs at most :data:`.opentelemetry_export.PATIENCE` seconds.
"""
