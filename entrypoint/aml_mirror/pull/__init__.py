"""Brings a registered version to a disk, verified. Needs neither MLflow nor azure-ai-ml."""
