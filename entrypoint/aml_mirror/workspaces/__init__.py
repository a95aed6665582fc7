"""Where the mirror writes: an MLflow server, a local MLflow database. Nothing here knows a framework."""
