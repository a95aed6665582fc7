"""Writes a record as a Prometheus text file, for the textfile collector of its node exporter.

A job that ends before it is scraped leaves its figures there.
"""

from __future__ import annotations

from aml_mirror.telemetry.record import Record


def write(record: Record, path: str) -> None:
    """Write the file under another name first and rename it, so that no incomplete file is ever read.

    Args:
        record: ended.
        path: the path of the file; the textfile collector reads names that end in ``.prom``.

    Raises:
        OSError: it cannot be written.
        ImportError: the distribution has no Prometheus client.
    """
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"aml_mirror_{name}", text, ("command", *labels), registry=registry)

    command = record.command
    # Sums of one call, which start at zero in the next call: gauges, not counters.
    versions = gauge("versions", "Versions of the last call, by outcome", "outcome")
    for outcome, number in sorted(record.outcomes.items()):
        versions.labels(command, outcome).set(number)
    transferred = gauge("transferred_bytes", "Bytes of checkpoints in the last call, by way", "way")
    transferred.labels(command, "sent").set(record.bytes_sent)
    transferred.labels(command, "copied").set(record.bytes_copied)
    transferred.labels(command, "reused").set(record.bytes_reused)
    gauge("points", "Metric points sent in the last call").labels(command).set(record.points)
    gauge("duration_seconds", "Duration of the last call").labels(command).set(round(record.seconds, 3))
    gauge("exit_code", "Exit code of the last call").labels(command).set(record.exit_code)
    gauge("end_time_seconds", "When the last call ended, since the epoch").labels(command).set(
        record.ended / 1e9
    )
    write_to_textfile(path, registry)
