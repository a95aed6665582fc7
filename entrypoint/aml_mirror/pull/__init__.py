"""Downloads a registered version to a disk and verifies it. Needs neither MLflow nor azure-ai-ml."""
