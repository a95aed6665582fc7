"""Exports a registered version as a container image, streamed from its storage into a container registry."""
