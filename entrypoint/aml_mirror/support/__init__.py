"""Small helpers without knowledge of runs: retry, redaction, progress, checksums."""
