"""One reader per kind of log that a training writes."""
