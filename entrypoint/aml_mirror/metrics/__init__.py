"""Reads the metrics of a run from event files and other logs, as series with valid names."""
