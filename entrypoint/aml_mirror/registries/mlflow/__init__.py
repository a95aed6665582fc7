"""An MLflow server, or a local MLflow database."""
