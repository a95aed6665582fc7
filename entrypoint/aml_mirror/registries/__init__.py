"""Where the mirror writes: Azure ML, an MLflow server, a local database. Nothing here knows a framework."""
